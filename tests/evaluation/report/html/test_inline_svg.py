"""A figure inside a page: it draws the same, and nothing of it runs, is loaded or reaches the page around it."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import matplotlib
import pytest
from matplotlib.figure import Figure

from swinssl.core.errors import UserError
from swinssl.evaluation.report.html.inline_svg import inline_svg

HEAD = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="20pt" height="10pt">'


def inlined(folder, inside, prefix="f1"):
    path = folder / "f.svg"
    path.write_text(f"{HEAD}{inside}</svg>")
    return inline_svg(path, prefix=prefix, alt='a "b" <c>')


@pytest.mark.parametrize(
    "inside",
    [
        "<script>alert(1)</script>",
        '<path d="M0 0" onclick="alert(1)"/>',
        '<path d="M0 0" ONLOAD="alert(1)"/>',
        '<a href="javascript:alert(1)"><path d="M0 0"/></a>',
        "<foreignObject><body xmlns='http://www.w3.org/1999/xhtml'><iframe src='alert'/></body></foreignObject>",
        '<image href="https://alert.example/x.png"/>',
        '<image xlink:href="data:image/svg+xml;base64,alert"/>',
        '<use xlink:href="https://alert.example/x.svg#a"/>',
        '<use href="data:alert"/>',
        "<style>@import url(https://alert.example);</style>",
        "<style>path { fill: url(https://alert.example#a) }</style>",
        "<style>path { fill: u\\72l(alert) } </style>",
        "<style>path { background-image: image-set('alert') }</style>",
        '<path style="fill: url(https://alert.example/#a)"/>',
        '<path fill="url(//alert.example)"/>',
        '<set attributeName="href" to="javascript:alert(1)"/>',
        '<animate attributeName="href" values="javascript:alert(1)"/>',
        "<metadata>alert</metadata><!-- alert -->",
        "<style>&lt;/style>&lt;script>alert(1)&lt;/script></style>",
    ],
)
def test_what_could_run_or_be_loaded_is_left_out(tmp_path, inside):
    assert "alert" not in inlined(tmp_path, inside) and "http" not in inlined(tmp_path, inside)


def test_ids_and_what_refers_to_them_get_a_prefix(tmp_path):
    inside = """<defs><clipPath id="clip"><path d="M0 0"/></clipPath></defs><style>.a, #b {fill: url(#clip)}</style>
        <g clip-path="url(#clip)"><use xlink:href="#b" class="a c" style="stroke: url('#clip')"/></g>"""
    found = inlined(tmp_path, inside, "f7")
    assert re.findall(r'(?<=id=")[^"]+', found) == ["f7-root", "f7-clip"]
    assert 'clip-path="url(#f7-clip)"' in found and 'href="#f7-b"' in found and 'class="f7-a f7-c"' in found
    assert "stroke: url(#f7-clip)" in found
    # A style sheet holds for the whole page unless its rules name the figure.
    assert "#f7-root .f7-a, #f7-root #f7-b {fill: url(#f7-clip)}" in found


def test_it_is_as_wide_as_it_was_drawn_and_its_words_are_there(tmp_path):
    found = inlined(tmp_path, "<text>a &lt;b&gt;</text>")
    assert (
        found.startswith('<svg role="img" aria-label="a &quot;b&quot; &lt;c&gt;" ') and 'viewBox="0 0 20 10"' in found
    )
    assert "<text>a &lt;b&gt;</text>" in found and 'width="27"' in found  # 20 points


def test_a_figure_of_matplotlib_keeps_all_that_it_draws(tmp_path):
    figure = Figure()
    axes = figure.subplots()
    axes.plot([0, 1], [1, 0], marker="o")
    axes.imshow([[0, 1], [2, 3]], interpolation="none")
    figure.savefig(tmp_path / "f.svg")
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(tmp_path / "g.svg")
    for name in ("f.svg", "g.svg"):
        found = inline_svg(tmp_path / name, prefix="f", alt="")
        before, after = (ElementTree.fromstring(text) for text in ((tmp_path / name).read_bytes(), found))
        for element in ("path", "use", "image", "text", "clipPath"):
            numbers = [sum(e.tag.rpartition("}")[2] == element for e in tree.iter()) for tree in (before, after)]
            assert numbers[0] == numbers[1]
        assert "data:image/png;base64," in found and "http" not in found and "image-rendering" in found
        ids = set(re.findall(r'(?<= id=")[^"]+', found))
        assert set(re.findall(r'(?<=href="#)[^"]+', found)) | set(re.findall(r"(?<=url\(#)[^)]+", found)) <= ids


@pytest.mark.parametrize("content", ["", "no svg", "<html/>", "<svg>"])
def test_what_is_no_svg_is_refused(tmp_path, content):
    (tmp_path / "f.svg").write_text(content)
    with pytest.raises(UserError, match=r"f\.svg"):
        inline_svg(tmp_path / "f.svg", prefix="f", alt="")


def test_entities_that_would_grow_without_end_are_refused(tmp_path):
    entities = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))
    text = (
        f'<!DOCTYPE svg [<!ENTITY a0 "ha">{entities}]><svg xmlns="http://www.w3.org/2000/svg"><text>&a11;</text></svg>'
    )
    (tmp_path / "f.svg").write_text(text)
    with pytest.raises(UserError, match="no valid SVG"):
        inline_svg(tmp_path / "f.svg", prefix="f", alt="")
