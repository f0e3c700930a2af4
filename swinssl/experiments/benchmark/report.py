"""The report of a benchmark: the comparison of its inits, figures, and one HTML file, made from the two tables.

<results>/results.md       the comparison as Markdown, beside the tables
report/comparison.*, *.svg, *.png, large_table.*    as of swinssl_compare
       <task>/overlays.*   outlines of the best inits
       <task>/cka_curves.* CKA before and after fine-tuning
       report.html         all of it, and a viewer of the cases; needs no other file
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.core.pictures import spare_the_run
from swinssl.core.text import counted, dimensions, listed
from swinssl.dataset.channel_kind import named_ct
from swinssl.evaluation.comparison.convergence import LOG_FILE, TrainingCurve, read_curve
from swinssl.evaluation.comparison.expected_order import ExpectedOrder
from swinssl.evaluation.comparison.score_files import table_of
from swinssl.evaluation.comparison.score_table import ScoreTable
from swinssl.evaluation.comparison.study import ModelStudy, make_study
from swinssl.evaluation.comparison.study_files import TEXT_FILE, summary, write_files
from swinssl.evaluation.report.figures.drawing import draw_study, folder_of
from swinssl.evaluation.report.figures.style import save
from swinssl.evaluation.report.html.case_summary import mean_score, models_of
from swinssl.evaluation.report.html.content import Better, Case, Cell, Figure, HtmlReport, Section, Table
from swinssl.evaluation.report.html.write import write_report
from swinssl.evaluation.report.pictures.overlays import NAME as OVERLAYS
from swinssl.evaluation.report.pictures.overlays import overlays_figure, typical_cases
from swinssl.experiments.benchmark.cells import TrainingCell
from swinssl.experiments.benchmark.config import SCRATCH
from swinssl.experiments.benchmark.encoder_sections import encoder_sections
from swinssl.experiments.benchmark.study import Benchmark, training_cells
from swinssl.experiments.benchmark.task_workspace import TaskWorkspace
from swinssl.imageio.formats import required_ending
from swinssl.metrics.registry import DICE
from swinssl.metrics.structures import raw_structures
from swinssl.preprocessing.plans import PLANS_FILE

logger = logging.getLogger(__name__)

# Inits whose outlines are drawn beside those of scratch, as in the paper.
SHOWN = 4
RESULTS_FILE, REPORT_FILE = "results.md", "report.html"
# What a reader needs to know of a figure, by its file's name.
CAPTIONS = {
    "differences": "Differences between inits with 95 % intervals: for other training and test cases where there are "
    "several seeds, else for these trainings; named comparisons first.",
    "scores": "Every test case, by structure and init.",
    "order_probabilities": "How probable it is that the row is better than the column for these trainings, by "
    "resampling test cases.",
    "critical_difference": "Average ranks; inits that a bar joins are not told apart.",
    "organ_groups": "Groups of structures.",
    "task_accuracy": "Accuracy by task and init.",
    "modality": "CT against MR.",
    "convergence": "Training loss and validation Dice by step.",
    "few_shot": "Few and many labelled cases, and the gap to the best.",
    "volumes": "Size of the pretraining set.",
    "parameters": "Size of the model.",
}


def write_benchmark_report(benchmark: Benchmark) -> Path:
    """Write the report of all cells that are done; the path of its page.

    Raises:
        UserError: none is.
    """
    folder = benchmark.report_folder
    benchmark.upgrade()
    done = [cell for cell in training_cells(benchmark) if benchmark.is_done(cell)]
    if not done:
        raise UserError(f"{benchmark.tables.folder}: no cell is done, so there is nothing to report. Run it first.")
    if other := len(set(benchmark.tables.records()) - {cell.key for cell in benchmark.cells}):
        logger.info(
            "%s: %s of cells that the TOML file does not have; they are kept, but not reported.",
            benchmark.tables.cells_path,
            counted(other, "row"),
        )
    cells = [_cell_row(benchmark, cell) for cell in done]
    table = table_of(benchmark.tables.scores_path, [row for cell in done for row in benchmark.scores(cell)])
    workspaces = _workspaces(benchmark)
    study: ModelStudy | None = None
    figures: tuple[str, ...] = ()
    if any(len(part.models) > 1 for part in table.settings.values()):
        groups = _groups(benchmark)
        study = make_study(
            table,
            named=_named(benchmark, table),
            groups=groups,
            expected=_expected(benchmark, table),
            curves=_curves(benchmark, done),
        )
        write_files(study, folder)
        files.write_bytes(benchmark.tables.folder / RESULTS_FILE, (folder / TEXT_FILE).read_bytes())
        figures = draw_study(study, table, folder, groups=groups)
    page = HtmlReport(
        title=benchmark.config.title or benchmark.config.name,
        subtitle=_extent(benchmark, done),
        sections=[
            *_result_sections(table, study, figures, folder),
            *encoder_sections(benchmark, folder),
            *_case_sections(benchmark, workspaces, done, folder),
            _how_section(benchmark, workspaces, cells),
        ],
        summary=summary(study) if study is not None else ["One init only: nothing to compare."],
    )
    write_report(folder / REPORT_FILE, page)
    return folder / REPORT_FILE


def _workspaces(benchmark: Benchmark) -> dict[str, TaskWorkspace]:
    """The tasks whose raw data and plans are here; the tables alone are enough for everything but cases and plans."""
    try:
        workspaces = benchmark.tasks
    except UserError as error:
        logger.warning("warning: the report shows no cases: %s", error)
        return {}
    return {name: one for name, one in workspaces.items() if (one.preprocessed / PLANS_FILE).is_file()}


def _cell_row(benchmark: Benchmark, cell: TrainingCell) -> dict[str, Any]:
    record = benchmark.record(cell) or {}
    return {
        "task": cell.task,
        "model": cell.init,
        "shots": cell.shots,
        "seed": cell.seed,
        "steps": record["steps"],
        "minutes": round(record["minutes"], 2),
        "device": record.get("device"),
        "mean Dice": record.get("mean_dice"),
    }


def _groups(benchmark: Benchmark) -> dict[str, tuple[str, ...]]:
    return {name: own for task in benchmark.config.tasks.values() for name, own in task.groups.items()}


def _named(benchmark: Benchmark, table: ScoreTable) -> list[str]:
    """The named comparisons of which both inits are done somewhere together."""
    parts = [set(part.models) for part in table.settings.values()]
    return [pair for pair in benchmark.config.named if any(models.issuperset(pair.split(":")) for models in parts)]


def _expected(benchmark: Benchmark, table: ScoreTable) -> ExpectedOrder | None:
    """The expected order of the inits that are done."""
    text = benchmark.config.expected
    return None if text is None else ExpectedOrder.parse(text).among(table.models)


def _curves(benchmark: Benchmark, done: Sequence[TrainingCell]) -> list[TrainingCurve]:
    """Of every init, the first seed of the first task and number of shots."""
    first: dict[str, TrainingCell] = {}
    for cell in done:
        logged = (benchmark.place(cell) / LOG_FILE).is_file()  # a peer's is not
        if logged and (cell.task, cell.shots) == (done[0].task, done[0].shots):
            first.setdefault(cell.init, cell)
    return [read_curve(f"{name}={benchmark.place(cell)}") for name, cell in first.items()]


def _extent(benchmark: Benchmark, done: Sequence[TrainingCell]) -> str:
    every = training_cells(benchmark)
    inits = listed([*dict.fromkeys(cell.init for cell in done)])
    tasks = counted(len({cell.task for cell in done}), "task")
    seeds = counted(len({cell.seed for cell in done}), "seed")
    cells = f"{len(done)} of {counted(len(every), 'cell')} done"
    return f"{inits}; {tasks}, {seeds}; {cells}."


def _result_sections(
    table: ScoreTable, study: ModelStudy | None, figures: Sequence[str], folder: Path
) -> list[Section]:
    sections = []
    for name, part in table.settings.items():
        own = [figure for figure in figures if name and Path(figure).parent == Path(folder_of(name))]
        notes = list(study.settings[name].notes) if study is not None and name in study.settings else []
        sections.append(Section(name or "Results", notes, [_scores_table(part)], _figures(own, folder)))
    overall = [figure for figure in figures if Path(figure).parent == Path()]
    if overall:
        sections.append(
            Section("Over all tasks" if len(table.settings) > 1 else "Figures", (), (), _figures(overall, folder))
        )
    return sections


def _scores_table(part: ScoreTable) -> Table:
    """A row an init: means over test cases, by structure."""
    rows: list[list[Cell]] = []
    for model in part.models:
        means = [part.unit_means(model, structures=[one]) for one in part.structures]
        everything = list(part.unit_means(model).values())
        own: list[Cell] = [model, len(part.seeds(model)), len(everything)]
        own += [sum(m.values()) / len(m) if m else None for m in means]
        rows.append([*own, sum(everything) / len(everything) if everything else None])
    columns = ["init", "seeds", "cases", *part.structures, "mean"]
    best: dict[str, Better] = dict.fromkeys((*part.structures, "mean"), "highest")
    return Table("Mean Dice over test cases, each averaged over seeds", columns, rows, best)


def _figures(names: Sequence[str], folder: Path) -> list[Figure]:
    made = []
    for name in names:
        caption = CAPTIONS.get(Path(name).name, Path(name).name.replace("_", " "))
        made.append(Figure(folder / f"{name}.svg", caption, caption))
    return made


def _case_sections(
    benchmark: Benchmark, workspaces: Mapping[str, TaskWorkspace], done: Sequence[TrainingCell], folder: Path
) -> list[Section]:
    """The test cases of each task with the predictions of its fewest shots and first seed."""
    sections = []
    for name, workspace in workspaces.items():
        own = [cell for cell in done if cell.task == name]
        own = [cell for cell in own if (cell.shots, cell.seed) == (own[0].shots, own[0].seed)]
        if not own:
            continue
        found = {cell.init: benchmark.folder / (benchmark.record(cell) or {})["predictions"] for cell in own}
        shown = {init: where for init, where in found.items() if where.is_dir()}
        by_case: dict[str, dict[str, dict[str, float | None]]] = {}
        for cell in own:
            for row in benchmark.scores(cell):
                value = float(row[DICE]) if row[DICE] else None
                by_case.setdefault(row["case"], {}).setdefault(cell.init, {})[row["structure"]] = value
        cases = []
        for case in workspace.cases.test:
            assert case.label is not None
            ending = required_ending(case.label)
            predictions = {init: where / f"{case.id}{ending}" for init, where in shown.items()}
            ct = named_ct(workspace.raw.channel_names[0])
            structures = raw_structures(workspace.raw.labels)
            scores = by_case.get(case.id, {})
            cases.append(Case(name, case.id, case.images[0], case.label, predictions, scores, structures, ct))
        told = f"Predictions of {counted(len(own), 'init')} with {own[0].shots} shots and seed {own[0].seed}."
        best = _best_and_scratch(benchmark, cases)
        figures = []
        with spare_the_run(folder / name / OVERLAYS):
            if (overlays := overlays_figure(typical_cases(cases), best)) is not None:
                drawn, _ = save(overlays, folder / name, OVERLAYS)
                caption = "The worst, a middling and the best case, where predictions differ most from the reference."
                figures.append(Figure(folder / name / drawn, caption, f"Outlines of {listed(best)} on three cases."))
        sections.append(Section(f"Cases of {name}", [told], figures=figures, cases=cases))
    return sections


def _best_and_scratch(benchmark: Benchmark, cases: Sequence[Case]) -> list[str]:
    """The inits with the best means of some cases, best first, and scratch after them."""
    means = {}
    for model in models_of(cases):
        found = [mean for case in cases if (mean := mean_score(case, model)) is not None]
        if found:
            means[model] = sum(found) / len(found)
    scratch = [name for name in means if benchmark.config.inits[name].start == SCRATCH]
    others = sorted((name for name in means if name not in scratch), key=means.__getitem__, reverse=True)
    return [*others[:SHOWN], *scratch]


def _how_section(
    benchmark: Benchmark, workspaces: Mapping[str, TaskWorkspace], cells: Sequence[Mapping[str, Any]]
) -> Section:
    paragraphs = []
    for name, workspace in workspaces.items():
        if not any(cell["task"] == name for cell in cells):
            continue
        plans, cases = workspace.plans, workspace.cases
        paragraphs.append(
            f"{name}: {workspace.raw.name}, {len(cases.test)} test cases that neither plan nor training has seen, "
            f"{len(cases.validation)} to validate, up to {len(cases.pool)} to train. Plan: {plans.network.preset}, "
            f"{plans.network.decoder} decoder, grid {dimensions(plans.spacing, 'g')} mm, patch "
            f"{dimensions(plans.patch_size)} (z y x), batch {plans.training.batch_size}."
        )
    for name, init in benchmark.config.inits.items():
        what = init.encoder or (f"pretrained by {init.method}" if init.method else init.start)
        paragraphs.append(f"{name}: {what}.")
    return Section(
        "How it was made", paragraphs, [Table("Cells", list(cells[0]), [list(cell.values()) for cell in cells])]
    )
