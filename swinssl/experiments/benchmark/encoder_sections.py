"""Sections of a report on what fine-tuning does to the encoders: CKA before and after, and attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from swinssl.core.pictures import spare_the_run
from swinssl.core.text import counted
from swinssl.evaluation.encoders.cka_curves import NAME, Curve, cka_curves_figure
from swinssl.evaluation.encoders.comparison_picture import CKA_DRAWING
from swinssl.evaluation.report.figures.style import save
from swinssl.evaluation.report.html.content import Cell, Figure, Section, Table
from swinssl.experiments.benchmark.cells import ComparisonCell
from swinssl.experiments.benchmark.study import Benchmark

HOW = (
    "CKA is the similarity of an encoder's features of the same tokens before and after fine-tuning: 1 equal up to "
    "rotation and scale, 0 unrelated. Attention is the mean attention distance of the heads relative to uniform "
    "attention over their windows, and its SD over heads. Measured on {crops} crops of {cases} that no training used, "
    "with seed {seed}."
)


def encoder_sections(benchmark: Benchmark, folder: Path) -> list[Section]:
    """A section per task with a finished comparison of encoders; figures are written beneath `folder`."""
    done = [cell for cell in benchmark.cells if isinstance(cell, ComparisonCell) and benchmark.is_done(cell)]
    sections = []
    for task in benchmark.config.tasks:
        records = {cell: benchmark.record(cell) or {} for cell in done if cell.trained.task == task}
        results = {cell: record["cka"] for cell, record in records.items() if "cka" in record}
        notes = [f"{cell.init}: {record['left_out']}." for cell, record in records.items() if "left_out" in record]
        if not records:
            continue
        paragraphs = [_how(next(iter(results.values())), next(iter(results)).seed)] if results else []
        figures = _figures(benchmark, results, folder, task)
        tables = [_table(results)] if results else []
        sections.append(Section(f"Encoders of {task}", [*paragraphs, *dict.fromkeys(notes)], tables, figures))
    return sections


def _how(result: Mapping[str, Any], seed: int) -> str:
    counts = result["counts"]
    return HOW.format(crops=counts["crops"], cases=counted(counts["cases"], "test case"), seed=seed)


def _figures(
    benchmark: Benchmark, results: Mapping[ComparisonCell, Mapping[str, Any]], folder: Path, task: str
) -> list[Figure]:
    """The curves of all inits, and the matrices of each init for its fewest shots."""
    panels: dict[str, dict[str, Curve]] = {}
    for cell, result in results.items():
        panels.setdefault(cell.init, {})[_shots(cell)] = result["curve"]
    figures = []
    with spare_the_run(folder / task / NAME):
        if (curves := cka_curves_figure(panels)) is None:
            return []
        drawn, _ = save(curves, folder / task, NAME)
        caption = "CKA between the encoder before and after fine-tuning, block by block."
        figures.append(Figure(folder / task / drawn, caption, caption))
    first: dict[str, ComparisonCell] = {}
    for cell in results:
        first.setdefault(cell.init, cell)
    for init, cell in first.items():
        caption = f"All pairs of blocks of {init}: A before fine-tuning with {_shots(cell)}, B after."
        if (
            drawing := benchmark.place(cell) / CKA_DRAWING
        ).is_file():  # absent if it could not be drawn or the folder was deleted
            figures.append(Figure(drawing, caption, caption))
    return figures


def _table(results: Mapping[ComparisonCell, Mapping[str, Any]]) -> Table:
    """A row per fine-tuning; CKA at the last block of each stage."""
    stages = max((_stage(point) for result in results.values() for point in result["curve"]), default=0)
    attention = ("attention before", "after", "SD before", "SD after")
    rows: list[list[Cell]] = []
    for cell, result in results.items():
        last = {_stage(point): point["cka"] for point in result["curve"]}
        heads = [_relative_distances(result["attention"][letter]) for letter in ("A", "B")]
        row: list[Cell] = [cell.init, cell.trained.shots]
        row += [last.get(stage) for stage in range(1, stages + 1)]
        rows.append([*row, *map(fmean, heads), *map(pstdev, heads)])
    columns = ["init", "shots", *(f"stage {stage}" for stage in range(1, stages + 1)), *attention]
    caption = "CKA at the last block of each stage; attention distance before and after, relative to uniform attention"
    return Table(caption, columns, rows)


def _stage(point: Mapping[str, Any]) -> int:
    return int(point["block_A"].split(".")[0])


def _relative_distances(heads: Sequence[Mapping[str, Any]]) -> list[float]:
    """The attention distance of each head relative to uniform attention."""
    return [head["distance_mm"] / head["even_distance_mm"] for head in heads]


def _shots(cell: ComparisonCell) -> str:
    shots = cell.trained.shots
    return counted(shots, "shot") if isinstance(shots, int) else f"{shots} cases"
