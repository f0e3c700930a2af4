"""What fine-tuning did to the encoders, as sections of a benchmark's report: CKA before and after, and attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from swinssl.core import files
from swinssl.core.pictures import spare_the_run
from swinssl.core.text import counted
from swinssl.evaluation.encoders.cka_curves import NAME, REMEDY, Curve, cka_curves_figure
from swinssl.evaluation.encoders.comparison_files import CKA_FILE
from swinssl.evaluation.encoders.comparison_picture import CKA_DRAWING
from swinssl.evaluation.report.figures.style import save
from swinssl.evaluation.report.html.content import Cell, Figure, Section, Table
from swinssl.experiments.benchmark.cells import ComparisonCell
from swinssl.experiments.benchmark.study import Benchmark

HOW = (
    "CKA says how alike an encoder sees the same tokens before and after fine-tuning: 1 alike but for rotation and "
    "scale, 0 not at all. Attention is how far the heads look, as a share of what even attention over their windows "
    "would give, and how far the heads of the encoder lie apart in it (SD). On {crops} crops of {cases}, which neither "
    "training has seen, with seed {seed}."
)


def encoder_sections(benchmark: Benchmark, folder: Path) -> list[Section]:
    """A section a task of which a comparison of encoders is done; its figures are written beneath `folder`."""
    done = [cell for cell in benchmark.cells if isinstance(cell, ComparisonCell) and benchmark.is_done(cell)]
    sections = []
    for task in benchmark.tasks:
        own = [cell for cell in done if cell.trained.task == task]
        left_out = {cell: (benchmark.record(cell) or {}).get("left_out") for cell in own}
        compared = [cell for cell in own if left_out[cell] is None]
        notes = [f"{cell.init}: {reason}." for cell, reason in left_out.items() if reason is not None]
        found = {cell: _read(benchmark.place(cell)) for cell in compared}
        if not own:
            continue
        paragraphs = [_how(next(iter(found.values())), compared[0].seed)] if found else []
        figures = _figures(benchmark, found, folder, task)
        tables = [_table(found)] if found else []
        sections.append(Section(f"Encoders of {task}", [*paragraphs, *dict.fromkeys(notes)], tables, figures))
    return sections


def _read(place: Path) -> dict[str, Any]:
    return files.read_json(place / CKA_FILE, what="comparison of encoders", remedy=REMEDY)


def _how(one: Mapping[str, Any], seed: int) -> str:
    return HOW.format(crops=one["counts"]["crops"], cases=counted(one["counts"]["cases"], "test case"), seed=seed)


def _figures(
    benchmark: Benchmark, found: Mapping[ComparisonCell, Mapping[str, Any]], folder: Path, task: str
) -> list[Figure]:
    """The curves of all inits, and the matrices of each with its fewest shots."""
    panels: dict[str, dict[str, Curve]] = {}
    for cell, one in found.items():
        panels.setdefault(cell.init, {})[_shots(cell)] = one["curve"]
    figures = []
    with spare_the_run(folder / task / NAME):
        if (curves := cka_curves_figure(panels)) is None:
            return []
        drawn, _ = save(curves, folder / task, NAME)
        said = "CKA between the encoder before and after fine-tuning, block by block."
        figures.append(Figure(folder / task / drawn, said, said))
    first: dict[str, ComparisonCell] = {}
    for cell in found:
        first.setdefault(cell.init, cell)
    for init, cell in first.items():
        caption = f"All blocks of {init} with each other: A before fine-tuning with {_shots(cell)}, B after."
        if (drawing := benchmark.place(cell) / CKA_DRAWING).is_file():  # else it could not be drawn
            figures.append(Figure(drawing, caption, caption))
    return figures


def _table(found: Mapping[ComparisonCell, Mapping[str, Any]]) -> Table:
    """A row a fine-tuning; CKA at the last block of each stage."""
    stages = max((_stage(point) for one in found.values() for point in one["curve"]), default=0)
    attention = ("attention before", "after", "SD before", "SD after")
    rows: list[list[Cell]] = []
    for cell, one in found.items():
        last = {_stage(point): point["cka"] for point in one["curve"]}
        heads = [_shares(one["attention"][letter]) for letter in ("A", "B")]
        row: list[Cell] = [cell.init, cell.trained.shots]
        row += [last.get(stage) for stage in range(1, stages + 1)]
        rows.append([*row, *map(fmean, heads), *map(pstdev, heads)])
    columns = ["init", "shots", *(f"stage {stage}" for stage in range(1, stages + 1)), *attention]
    caption = "CKA at the last block of each stage; attention distance before and after, as a share of even attention's"
    return Table(caption, columns, rows)


def _stage(point: Mapping[str, Any]) -> int:
    return int(point["block_A"].split(".")[0])


def _shares(heads: Sequence[Mapping[str, Any]]) -> list[float]:
    """Of each head, its attention distance as a share of even attention's."""
    return [head["distance_mm"] / head["even_distance_mm"] for head in heads]


def _shots(cell: ComparisonCell) -> str:
    shots = cell.trained.shots
    return counted(shots, "shot") if isinstance(shots, int) else f"{shots} cases"
