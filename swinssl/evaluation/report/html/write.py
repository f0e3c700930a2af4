"""Write a report as one HTML file.

The file asks for nothing: no network, no other file. A content security policy says so to the browser, and names the
hash of each script in it, so that nothing else runs even where a name or a figure should carry a script past the
escaping.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.core.text import counted, printable
from swinssl.evaluation.report.html.case_summary import case_score, in_words, mean_score, models_of, worst_first
from swinssl.evaluation.report.html.cells import ShownCell, ShownTable, shown_cell, shown_table
from swinssl.evaluation.report.html.content import Case, Figure, HtmlReport
from swinssl.evaluation.report.html.embedded_case import EmbeddedCase, embed_case
from swinssl.evaluation.report.html.inline_svg import inline_svg
from swinssl.evaluation.report.html.vendored import viewer_licences, viewer_source
from swinssl.evaluation.report.pictures.shown_case import COLOURS

# A browser opens 40 MB at once, and a mail server of a hospital may take it.
CASE_BYTES, REPORT_BYTES = 1_500_000, 40_000_000
# Of a case: the names of its parts, quotes, commas.
BESIDE_VOLUMES = 1000
PAGE = "page"


def write_report(
    path: Path, report: HtmlReport, *, case_bytes: int = CASE_BYTES, report_bytes: int = REPORT_BYTES
) -> None:
    """Write a report.

    Args:
        path: `report.html`.
        case_bytes: of the volumes of a case; they are made coarser until they fit.
        report_bytes: of the whole file. The worst cases of each task are put in first; whose volumes do not fit keep
            their scores, and the page says that they have no pictures.

    Raises:
        UserError: a figure cannot be read, or the page is too large even without volumes.
    """
    listed = _listed_cases(report)
    embedded: dict[int, EmbeddedCase] = {}
    empty = len(_render(report, listed, embedded).encode())
    if empty > report_bytes:
        raise UserError(
            f"{path}: {empty / 1e6:.1f} MB without cases, {report_bytes / 1e6:.1f} MB are allowed: leave out figures."
        )
    left = report_bytes - empty
    for one in _by_turns(listed):
        # The last one may be coarser, to fill the file; coarser than this it would show nothing.
        if left < case_bytes // 3:
            break
        case = embed_case(one.case, one.models, budget=min(case_bytes, left - BESIDE_VOLUMES))
        # Of the texts a character takes up to 12 bytes in JSON.
        needed = case.size + BESIDE_VOLUMES + 12 * sum(map(len, (*case.notes, *case.labels)))
        if needed <= left:
            embedded[one.number] = case
            left -= needed
    files.write_text(Path(path), _render(report, listed, embedded))


@dataclass(frozen=True)
class _ListedCase:
    """A case with its number in the page, the section that lists it, and that section's models."""

    number: int
    section: int
    case: Case
    models: Sequence[str]


def _listed_cases(report: HtmlReport) -> list[_ListedCase]:
    """In the order of the page: section by section, the worst first."""
    numbers = itertools.count(1)
    return [
        _ListedCase(next(numbers), index, case, models_of(section.cases))
        for index, section in enumerate(report.sections)
        for case in worst_first(section.cases)
    ]


def _by_turns(cases: Sequence[_ListedCase]) -> list[_ListedCase]:
    """The worst of each task, then the second worst of each, and so on."""
    tasks: dict[str, list[_ListedCase]] = {}
    for one in cases:
        tasks.setdefault(one.case.task, []).append(one)
    turns = itertools.zip_longest(*tasks.values())
    return [one for turn in turns for one in turn if one is not None]


# --- what the template is given


@dataclass(frozen=True)
class _Script:
    """A script of the page, and its hash for the policy."""

    text: str

    @property
    def policy(self) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(self.text.encode()).digest()).decode('ascii')}'"

    def __html__(self) -> str:
        if "</script" in self.text.lower() or "<!--" in self.text:
            raise ValueError("a script would end within itself")
        return self.text


@dataclass(frozen=True)
class _ShownFigure:
    content: Markup
    caption: str


@dataclass(frozen=True)
class _ShownCase:
    """A case in the list: its row, and what the viewer needs."""

    number: int
    case: Case
    mean: ShownCell
    scores: Sequence[ShownCell]
    shown: bool
    data: dict[str, object]


@dataclass(frozen=True)
class _ShownSection:
    number: int
    title: str
    paragraphs: Sequence[str]
    commands: Sequence[str]
    tables: Sequence[ShownTable]
    figures: Sequence[_ShownFigure]
    cases: Sequence[_ShownCase]
    models: Sequence[str]

    @property
    def without_pictures(self) -> int:
        return sum(not case.shown for case in self.cases)

    @property
    def marked(self) -> bool:
        rows = [row for table in self.tables for row in table.rows] + [case.scores for case in self.cases]
        return any(cell.best for row in rows for cell in row)

    @property
    def score_columns(self) -> Sequence[str]:
        """Of a single model the mean over models would repeat its scores."""
        return self.models if len(self.models) == 1 else ["mean", *self.models]

    @property
    def several_tasks(self) -> bool:
        return len({case.case.task for case in self.cases}) > 1


def _render(report: HtmlReport, listed: Sequence[_ListedCase], embedded: Mapping[int, EmbeddedCase]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, PAGE),
        autoescape=True,
        finalize=_shown_text,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scripts = [_Script(_page_file("tables.js"))]
    if listed:
        scripts += [_Script(viewer_source()), _Script(_page_file("viewer.js"))]
    return (
        environment.get_template("report.html.jinja").render(
            report=report,
            summary=[*report.summary, *_in_words(report)],
            sections=_sections(report, listed, embedded),
            style=Markup(_page_file("report.css")),
            scripts=scripts,
            policy=_policy(scripts),
            colours=COLOURS,
            licences=escape(viewer_licences()) if listed else None,
            counted=counted,
        )
        + "\n"
    )


def _shown_text(value: object) -> object:
    """What a variable of the template becomes, before it is escaped."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _in_words(report: HtmlReport) -> list[str]:
    """Of each section that has cases: they may be of other models, so that they are not counted together."""
    sections = [section for section in report.sections if section.cases]
    if len(sections) == 1:
        return in_words(sections[0].cases, report.score)
    return [f"{section.title}: {' '.join(in_words(section.cases, report.score))}" for section in sections]


def _policy(scripts: Sequence[_Script]) -> str:
    """Nothing is loaded; what runs is named by its hash. Style attributes of figures need 'unsafe-inline', and the
    viewer keeps its letters as data: pictures."""
    hashes = " ".join(script.policy for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _sections(
    report: HtmlReport, listed: Sequence[_ListedCase], embedded: Mapping[int, EmbeddedCase]
) -> list[_ShownSection]:
    figures = itertools.count(1)
    too_large = EmbeddedCase(notes=["No pictures: this file would have become too large."])
    return [
        _ShownSection(
            index + 1,
            section.title,
            section.paragraphs,
            section.commands,
            [shown_table(table) for table in section.tables],
            [_figure(figure, next(figures)) for figure in section.figures],
            [_shown_case(one, embedded.get(one.number, too_large)) for one in listed if one.section == index],
            models_of(section.cases),
        )
        for index, section in enumerate(report.sections)
    ]


def _figure(figure: Figure, number: int) -> _ShownFigure:
    if figure.path.suffix.lower() == ".svg":
        drawn = Markup(inline_svg(figure.path, prefix=f"figure{number}", alt=figure.alt))
    elif figure.path.suffix.lower() == ".png":
        try:
            encoded = base64.b64encode(figure.path.read_bytes()).decode("ascii")
        except OSError as error:
            raise UserError(f"{figure.path}: the figure cannot be read ({error.strerror}).") from None
        drawn = Markup('<img alt="{}" src="data:image/png;base64,{}">').format(figure.alt, encoded)
    else:
        raise UserError(f"{figure.path}: a figure is an SVG or a PNG file.")
    return _ShownFigure(drawn, figure.caption)


def _shown_case(listed: _ListedCase, volumes: EmbeddedCase) -> _ShownCase:
    case, models = listed.case, listed.models
    means = [mean_score(case, model) for model in models]
    there = [mean for mean in means if mean is not None]
    highest = max(there) if len(there) > 1 else None
    structures = dict.fromkeys(name for scores in case.scores.values() for name in scores)
    data: dict[str, object] = {
        "task": printable(case.task),
        "case": printable(case.case),
        "models": [*map(printable, models)],
        "scores": [
            [printable(name), *(shown_cell(case.scores.get(model, {}).get(name)).text for model in models)]
            for name in structures
        ],
        "labels": [*map(printable, volumes.labels)],
        "focus": list(volumes.focus),
        "notes": [*map(printable, volumes.notes)],
        "image": volumes.image,
        "reference": volumes.reference,
        "predictions": [volumes.predictions.get(model, "") for model in models],
    }
    return _ShownCase(
        listed.number,
        case,
        shown_cell(case_score(case)),
        [shown_cell(mean, best=mean is not None and mean == highest) for mean in means],
        bool(volumes.image),
        data,
    )


def _page_file(name: str) -> str:
    return (resources.files(__package__) / PAGE / name).read_text(encoding="utf-8")
