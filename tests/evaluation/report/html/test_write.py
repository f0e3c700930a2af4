"""The page: what is filled in stays text, nothing is asked for, numbers sort, sizes are kept."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pytest
from support.made_reports import GRID, TABLE, labels, made_case, report_of

from swinssl.core.errors import UserError
from swinssl.evaluation.report.html.content import Figure, HtmlReport, Section, Table
from swinssl.evaluation.report.html.vendored import viewer_source
from swinssl.evaluation.report.html.write import write_report
from swinssl.imageio.volume import Geometry
from swinssl.imageio.writer import write_volume
from swinssl.metrics.structures import Structure

SCRIPT, IMAGE = "<script>alert(1)</script>", '"><img src=x onerror=alert(2)>'
SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"><path id="p" d="M0 0L1 1"/></svg>'


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the text of its scripts."""

    def __init__(self, text):
        super().__init__()
        self.found, self.scripts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    handle_startendtag = handle_starttag

    def handle_data(self, data):
        if self.found and self.found[-1][0] == "script" and self.lasttag == "script":
            self.scripts[-1] += data

    def data_of(self, identity):
        at = [attrs for tag, attrs in self.found if tag == "script"]
        return json.loads(next(s for a, s in zip(at, self.scripts, strict=True) if a.get("id") == identity))


def page_of(report, folder, **sizes):
    write_report(folder / "report.html", report, **sizes)
    return (folder / "report.html").read_text(encoding="utf-8")


def test_names_stay_text(tmp_path):
    case = made_case(
        tmp_path,
        shifts={IMAGE: 1},
        structures=[Structure(SCRIPT, (4,), "4")],
        scores={IMAGE: {SCRIPT: 0.5}},
        task=SCRIPT,
    )
    table = Table(SCRIPT, [IMAGE], [[SCRIPT], [IMAGE]])
    (tmp_path / "f.svg").write_text(SVG)
    figure = Figure(tmp_path / "f.svg", SCRIPT, IMAGE)
    report = HtmlReport(
        SCRIPT, IMAGE, [Section(SCRIPT, [IMAGE], [table], [figure], [case])], summary=[SCRIPT], score=IMAGE
    )
    page = page_of(report, tmp_path)
    assert SCRIPT not in page and IMAGE not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    elements = Elements(page)
    # One script of data, then ours: tables, the viewer's library, the viewer. No picture: figures are drawn.
    assert [attrs.get("type") for tag, attrs in elements.found if tag == "script"] == ["application/json", *[None] * 3]
    assert not [tag for tag, _ in elements.found if tag == "img"]
    assert not [name for _, attrs in elements.found for name in attrs if name.startswith("on")]
    data = elements.data_of("case1")
    assert data["labels"] == [SCRIPT, "label 7"] and data["models"] == [IMAGE] and data["scores"] == [[SCRIPT, "0.500"]]


def test_nothing_is_asked_for(tmp_path):
    (tmp_path / "f.svg").write_text(SVG)
    page = page_of(report_of(made_case(tmp_path), figures=[Figure(tmp_path / "f.svg", "c", "a")]), tmp_path)
    elements = Elements(page)
    for tag, attrs in elements.found:
        for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            assert attrs.get(name) is None or attrs[name].startswith(("#", "data:image/")), (tag, attrs)
    own = page.replace(viewer_source(), "")
    assert not re.search(r"url\(\s*[\"']?(?!#)|@import|fetch\(|XMLHttpRequest|WebSocket", own)
    # Addresses are in the licences, which are text.
    assert "http" not in re.sub(r"<pre>.*?</pre>", "", own, flags=re.DOTALL).replace("http-equiv", "")
    (policy,) = (a["content"] for t, a in elements.found if t == "meta" and a.get("http-equiv"))
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "http" not in policy and "eval" not in policy and "script-src 'unsafe" not in policy and "*" not in policy


def test_a_report_without_cases_has_no_viewer(tmp_path):
    page = page_of(report_of(), tmp_path)
    assert len(page) < 40_000 and "niivue" not in page


def test_the_summary_is_first_and_in_numbers(tmp_path):
    shifted = made_case(tmp_path, "a")
    other = made_case(tmp_path, "b", shifts={"shifted": 1, "exact": 0})
    page = page_of(report_of(shifted, other, summary=["Said by hand."]), tmp_path)
    said = re.findall(r"<li>([^<]*)</li>", page[page.index("In short") : page.index('<h2 id="section1"')])
    # shifted: a = (0.7 + 0.4) / 2, b = (0.9 + 0.8) / 2.
    assert said == [
        "Said by hand.",
        "2 models on 2 cases of 1 task.",
        "Mean Dice, over structures and then cases: exact 1.000 (2 cases), shifted 0.700 (2 cases).",
        "Of 2 cases with every model, the highest Dice: exact in 2.",
        "The lowest Dice is 0.400: tumour of case a (task) by shifted.",
    ]


def test_a_missing_prediction_is_said_and_its_scores_are_dashes(tmp_path):
    whole, lacking = made_case(tmp_path, "a"), made_case(tmp_path, "b", shifts={"exact": 0})
    gone = made_case(tmp_path, "c")
    gone.predictions["shifted"].unlink()
    page = page_of(report_of(whole, lacking, gone), tmp_path)
    assert "No prediction of shifted in 2 cases: b, c." in page
    cases = {data["case"]: data for data in map(Elements(page).data_of, ("case1", "case2", "case3"))}
    assert cases["a"]["notes"] == [] and all(cases["a"]["predictions"])
    for name in "bc":
        assert cases[name]["notes"] == ["shifted: no prediction of this case."]
        assert [bool(one) for one in cases[name]["predictions"]] == [False, True]
    assert cases["b"]["scores"] == [["organ", "–", "1.000"], ["tumour", "–", "1.000"]]


def test_a_damaged_prediction_is_said_without_where_it_lay(tmp_path):
    case = made_case(tmp_path)
    case.predictions["shifted"].write_bytes(b"no image")
    other = Geometry.from_parts((18, 36, 40), spacing=GRID.spacing)
    write_volume(case.predictions["exact"], labels()[:-2], other)
    page = page_of(report_of(case), tmp_path)
    first, second = Elements(page).data_of("case1")["notes"]
    assert first.startswith("shifted: the prediction cannot be read (") and second.startswith(
        "exact: the prediction has"
    )
    assert str(tmp_path) not in page


def test_cells_sort_by_number_and_the_best_is_marked(tmp_path):
    page = page_of(report_of(), tmp_path)
    assert re.findall(r'data-kind="(\w+)">(\w+)', page) == [
        ("text", "method"),
        ("number", "Dice"),
        ("number", "minutes"),
    ]
    dice = re.findall(r"<td class=\"number\"(?: data-sort=\"([^\"]*)\")?>", page)
    assert dice == ["0.9", "9", "", "10", "0.35", "100", "1e-05", "8"]
    assert re.findall(r"<strong>([^<]*)<", page) == ["0.900", "8"] and "1.0e-05" in page and page.count("(best)") == 2


def test_of_each_case_the_best_model_is_marked_where_there_is_another(tmp_path):
    both, alone = made_case(tmp_path, "a"), made_case(tmp_path, "b", shifts={"exact": 0})
    page = page_of(report_of(both, alone, tables=[]), tmp_path)
    assert re.findall(r"<strong>([^<]*)<", page) == ["1.000"]


def test_rows_of_another_length_are_a_mistake():
    with pytest.raises(ValueError, match="2 cells"):
        Table("t", ["a", "b"], [[1]])
    with pytest.raises(ValueError, match="no column"):
        Table("t", ["a"], [[1]], best={"c": "lowest"})


def test_the_worst_case_is_listed_first(tmp_path):
    good, bad = made_case(tmp_path, "good", shifts={"m": 0}), made_case(tmp_path, "bad", shifts={"m": 4})
    unknown = made_case(tmp_path, "unknown", scores={})
    page = page_of(report_of(unknown, good, bad), tmp_path)
    assert re.findall(r'aria-pressed="false">(\w+)', page) == ["bad", "good", "unknown"]


def test_what_does_not_fit_is_left_out_and_said(tmp_path):
    cases = [made_case(tmp_path, f"case{i}", shifts={"m": i}, task=f"task{i % 2}") for i in range(4)]
    whole = page_of(report_of(*cases), tmp_path)
    assert "no pictures" not in re.sub(r"<script.*?</script>", "", whole, flags=re.DOTALL)
    one = (len(whole) - len(page_of(report_of(), tmp_path)) - len(viewer_source())) // 6
    allowed = len(whole) - 2 * one
    page = page_of(report_of(*cases), tmp_path, report_bytes=allowed, case_bytes=2 * one)
    assert len(page.encode()) <= allowed
    data = [Elements(page).data_of(f"case{i}") for i in range(1, 5)]
    shown = [one["case"] for one in data if one["image"]]
    # By turns of the tasks, the worst of each first.
    assert 2 <= len(shown) < 4 and shown[:2] == ["case3", "case2"]
    left_out = [one for one in data if not one["image"]]
    assert all("too large" in one["notes"][0] and one["scores"] for one in left_out)
    assert f"{len(left_out)} case{'s' * (len(left_out) > 1)} without pictures" in page


def test_models_that_lack_the_same_predictions_are_said_together(tmp_path):
    case = made_case(tmp_path, "a", shifts={"m": 1, "n": 2, "o": 3})
    other = made_case(tmp_path, "b", shifts={"m": 1, "n": 2, "o": 3})
    for gone in ((case, "m"), (case, "n"), (other, "o")):
        gone[0].predictions[gone[1]].unlink()
    page = page_of(report_of(case, other), tmp_path)
    assert re.findall(r"No prediction of [^<]*", page) == [
        "No prediction of m, n in 1 case: a.",
        "No prediction of o in 1 case: b.",
    ]


def test_a_case_counts_wherever_it_is_shown_and_for_the_models_there(tmp_path):
    case, other = made_case(tmp_path, "a", shifts={"m": 1}), made_case(tmp_path, "b", shifts={"n": 2})
    report = HtmlReport(
        "t", "", [Section("one", cases=[case]), Section("two", cases=[case, case]), Section("3", cases=[other])]
    )
    page = page_of(report, tmp_path)
    data = [Elements(page).data_of(f"case{i}") for i in range(1, 5)]
    assert [one["models"] for one in data] == [["m"], ["m"], ["m"], ["n"]] and not any(one["notes"] for one in data)
    assert "<li>one: 1 model on 1 case of 1 task. Mean Dice" in page and "No prediction" not in page
    allowed = len(page) - len(data[0]["image"]) // 2
    assert len(page_of(report, tmp_path, report_bytes=allowed, case_bytes=30_000)) <= allowed


def test_sizes_are_kept_with_any_letters(tmp_path):
    structures = [Structure("🫁" * 200, (4,), "4"), Structure("<&>'" * 100, (7,), "7")]
    case = made_case(tmp_path, shifts={"é" * 100: 1}, structures=structures)
    allowed = len(page_of(report_of(case), tmp_path).encode()) - 100
    assert len(page_of(report_of(case), tmp_path, report_bytes=allowed, case_bytes=30_000).encode()) <= allowed


def test_a_page_that_cannot_be_small_enough_is_refused(tmp_path):
    with pytest.raises(UserError, match="without cases"):
        write_report(tmp_path / "report.html", report_of(), report_bytes=1000)
    assert not (tmp_path / "report.html").exists()


def test_figures(tmp_path):
    (tmp_path / "f.svg").write_text(SVG)
    matplotlib.image.imsave(tmp_path / "f.png", np.zeros((2, 2)))
    page = page_of(
        report_of(figures=[Figure(tmp_path / name, "c", "two <lines>") for name in ("f.svg", "f.png", "f.svg")]),
        tmp_path,
    )
    assert re.findall(r'<path id="(\S+)"', page) == ["figure1-p", "figure3-p"]
    assert (
        page.count('aria-label="two &lt;lines&gt;"') == 2 and '<img alt="two &lt;lines&gt;" src="data:image/png' in page
    )
    for name in ("none.svg", "none.png", "f.gif"):
        with pytest.raises(UserError, match=name):
            write_report(tmp_path / "report.html", report_of(figures=[Figure(tmp_path / name, "c", "a")]))


def test_the_table_of_the_test_has_every_kind_of_cell():
    assert {type(cell) for row in TABLE.rows for cell in row} == {str, float, int, type(None)}


def test_commands_stay_text_and_stand_each_on_a_line(tmp_path):
    section = Section("Next", commands=["swinssl_train 101", f"swinssl_predict -o {SCRIPT}"])
    page = page_of(HtmlReport("Report", "", [section]), tmp_path)
    lines = re.findall(r"<code>(.*?)</code>", page)
    assert lines == ["swinssl_train 101", "swinssl_predict -o &lt;script&gt;alert(1)&lt;/script&gt;"]


@pytest.mark.parametrize(
    ("shifts", "columns"), [({"m": 1}, ["case", "m"]), ({"m": 1, "n": 2}, ["case", "mean", "m", "n"])]
)
def test_the_mean_over_models_is_shown_where_there_are_several(tmp_path, shifts, columns):
    page = page_of(report_of(made_case(tmp_path, shifts=shifts), tables=()), tmp_path)
    table = page[page.index('class="cases"') :]
    table = table[: table.index("</table>")]
    assert re.findall(r'data-kind="\w+">(.*?)<', table) == columns
    assert len(re.findall(r"<td", table)) == len(columns)


def test_a_table_of_sentences_is_marked_for_narrow_screens(tmp_path):
    table = Table("Plan", ["decision", "reason"], [["patch", "as asked"]], prose=True)
    assert 'class="prose"' in page_of(report_of(tables=[table]), tmp_path)
    assert 'class="prose"' not in page_of(report_of(tables=[TABLE]), tmp_path)
