"""An SVG file as a part of a page: what only draws is kept, everything else is left out.

A file may come from anywhere. Elements and attributes are kept by lists of what is allowed, so that a script, an event
handler, a link or a picture from elsewhere has no way in; ids get a prefix, so that two figures do not mix.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from xml.etree import ElementTree

from swinssl.core.errors import UserError
from swinssl.core.text import html_text

ELEMENTS = """svg g defs symbol use path rect circle ellipse line polyline polygon text tspan textPath image clipPath
    mask pattern linearGradient radialGradient stop marker title desc style"""
# Beside those that begin with a word of PRESENTATION.
ATTRIBUTES = """id class style d x y x1 x2 y1 y2 dx dy cx cy r rx ry fx fy width height points transform viewBox offset
    rotate preserveAspectRatio gradientUnits gradientTransform spreadMethod patternUnits patternContentUnits
    patternTransform clipPathUnits maskUnits maskContentUnits markerWidth markerHeight markerUnits orient refX refY href
    opacity color display visibility overflow startOffset textLength lengthAdjust"""
PRESENTATION = re.compile(r"(fill|stroke|font|text|clip|mask|marker|stop|letter|word|dominant|alignment|shape|image)-?")
PICTURE = re.compile(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=\s]+")
REFERENCE = re.compile(r"""url\(\s*["']?#([^"')\s]+)["']?\s*\)""")
PIXELS_A_POINT = 4 / 3
# A rule of a style sheet without nesting.
RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")


def inline_svg(path: Path, *, prefix: str, alt: str) -> str:
    """The file as HTML.

    Args:
        prefix: of its ids; another for each figure of a page.
        alt: what the picture shows, for who cannot see it.

    Raises:
        UserError: the file is missing or no SVG.
    """
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: the figure cannot be read ({error.strerror}).") from None
    except ElementTree.ParseError as error:
        raise UserError(f"{path}: the figure is no valid SVG ({error}). Draw it again.") from None
    if _local(root.tag) != "svg":
        raise UserError(f"{path}: expected an SVG, found a file of <{_local(root.tag)}>.")
    # The page says how large it is shown; without a viewBox it could not be scaled.
    if "viewBox" not in root.attrib:
        size = [re.match(r"[\d.]+", root.attrib.get(side, "")) for side in ("width", "height")]
        if all(size):
            root.set("viewBox", " ".join(["0 0", *(match.group() for match in size if match)]))
    for side in ("width", "height"):
        root.attrib.pop(side, None)
    # As large as it was drawn, so that small figures do not get large letters; the page makes it smaller where need be.
    if view := re.fullmatch(r"\S+ \S+ ([\d.]+) \S+", root.attrib.get("viewBox", "")):
        root.set("width", f"{float(view[1]) * PIXELS_A_POINT:.0f}")
    root.set("id", "root")
    drawn = _element(root, prefix)
    return drawn.replace("<svg", f'<svg role="img" aria-label="{html_text(alt)}"', 1)


def _element(element: ElementTree.Element, prefix: str) -> str:
    name = _local(element.tag)
    if name not in ELEMENTS.split():
        return ""
    if name == "style":
        return f"<style>{_style_sheet(''.join(element.itertext()), prefix)}</style>"
    attributes = "".join(
        f' {key}="{html.escape(value)}"'
        for key, value in (_attribute(name, _local(k), v, prefix) for k, v in element.attrib.items())
        if value is not None
    )
    inside = html.escape(element.text or "", quote=False)
    for child in element:
        inside += _element(child, prefix) + html.escape(child.tail or "", quote=False)
    return f"<{name}{attributes}>{inside}</{name}>"


def _attribute(element: str, name: str, value: str, prefix: str) -> tuple[str, str | None]:
    """The attribute as it is written; None where it is left out."""
    if name not in ATTRIBUTES.split() and not PRESENTATION.match(name):
        return name, None
    if name == "id":
        return name, f"{prefix}-{value}"
    if name == "class":
        # Classes are the page's own.
        return name, " ".join(f"{prefix}-{one}" for one in value.split())
    if name == "href":
        if value.startswith("#"):
            return name, f"#{prefix}-{value[1:]}"
        return name, value if element == "image" and PICTURE.fullmatch(value) else None
    return name, _safe_css(value, prefix)


def _style_sheet(text: str, prefix: str) -> str:
    """Its rules, for this figure alone; what is no plain rule is left out."""
    rules = []
    for selectors, declarations in RULE.findall(re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)):
        if re.fullmatch(r"[\w\s.#*,>:-]+", selectors) is None or (safe := _safe_css(declarations, prefix)) is None:
            continue
        own = re.sub(r"([.#])([\w-]+)", rf"\1{prefix}-\2", selectors)
        rules.append(", ".join(f"#{prefix}-root {one.strip()}" for one in own.split(",")) + " {" + safe + "}")
    return "\n".join(rules).replace("<", "")


def _safe_css(text: str, prefix: str) -> str | None:
    """The text with its references renamed; None where it could ask for something else."""
    renamed = REFERENCE.sub(rf"url(#{prefix}-\1)", text)
    rest = renamed.replace(f"url(#{prefix}-", "")
    return None if re.search(r"url|image(-set)?\s*\(|import|expression|[\\@<]|//", rest, re.IGNORECASE) else renamed


def _local(name: object) -> str:
    """Without its namespace; comments have no name."""
    return name.rpartition("}")[2] if isinstance(name, str) else ""
