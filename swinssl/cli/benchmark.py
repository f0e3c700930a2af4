"""swinssl_benchmark: which pretraining to trust, by inits, tasks, shots and seeds."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swinssl.cli.command import arguments_as_typed, command, run_typed
from swinssl.cli.json_report import print_json
from swinssl.cli.parameters import Device, DryRun, Json, Root
from swinssl.cli.slurm import shared_work_script
from swinssl.core.errors import UserError
from swinssl.core.terminal import print
from swinssl.core.workspace import Workspace
from swinssl.planning.options import PlanOptions

if TYPE_CHECKING:
    from swinssl.experiments.benchmark.cells import Cell
    from swinssl.experiments.benchmark.run import Outcome
    from swinssl.experiments.benchmark.study import Benchmark
    from swinssl.experiments.benchmark.task_workspace import TaskWorkspace
    from swinssl.preprocessing.plans import Plans

Config = Annotated[Path, typer.Argument(help="TOML file; docs/benchmark-your-data.md says what may stand in it.")]
Out = Annotated[
    Path | None, typer.Option("--out", help="Folder for everything. Default: <root>/results/benchmarks/<name>.")
]
Results = Annotated[
    Path | None,
    typer.Option(
        "--results", help="Folder of the tables cells.csv and scores.csv.gz; cells in them are done. Default: --out."
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        help="Run these cells alone, with what they need: a part of their name (an init, a task, seed0) or a pattern "
        "(cells/*/smit/*); may be repeated.",
    ),
]
ReportOnly = Annotated[bool, typer.Option("--report-only", help="Run nothing; make the report of what is done.")]
Slurm = Annotated[
    int | None,
    typer.Option("--slurm", min=1, help="Print an sbatch script of so many jobs that share the cells, and stop."),
]
PeerPython = Annotated[
    Path | None, typer.Option("--peer-python", help="Python of an environment with nnunetv2, for inits of nnU-Net.")
]


def benchmark(
    config: Config,
    root: Root = None,
    out: Out = None,
    results: Results = None,
    only: Only = None,
    report_only: ReportOnly = False,
    slurm: Slurm = None,
    peer_python: PeerPython = None,
    device: Device = "auto",
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Pretrain, fine-tune and evaluate: every init on every task, with every number of shots and every seed.

    Every cell is an ordinary swinssl command with a folder of its own. What is done is not done again, a cell that was
    stopped goes on, and one that fails does not stop the others. Several processes, on one machine or many, may run
    the same benchmark at once.

    Results are two tables, cells.csv and scores.csv.gz: with a copy of them, the benchmark resumes anywhere. Writes
    <out>/report with tables, figures and report.html.
    """
    from swinssl.experiments.benchmark.cells import chosen
    from swinssl.experiments.benchmark.config import read_config
    from swinssl.experiments.benchmark.report import write_benchmark_report
    from swinssl.experiments.benchmark.run import run_cells
    from swinssl.experiments.benchmark.study import Benchmark

    read = read_config(config)
    workspace = Workspace.locate(root)
    folder = (out or workspace.root / "results" / "benchmarks" / read.name).absolute()
    run = Benchmark(
        read,
        folder,
        workspace,
        device=device,
        peer_python=peer_python and peer_python.absolute(),
        results=results and results.absolute(),
    )
    cells = chosen(run.cells, only or ())
    if slurm is not None:
        on_cpu = device == "cpu"
        print(
            shared_work_script(read.name, slurm, arguments_as_typed(), program="swinssl_benchmark", on_cpu=on_cpu),
            end="",
        )
        return
    if dry_run:
        _rehearse(run, cells, json=json)
        return
    outcome = None if report_only else run_cells(run, cells, say=lambda text: print(text, file=sys.stderr, flush=True))
    report = write_benchmark_report(run)
    if json:
        failed, left_out = (outcome.failed, outcome.left_out) if outcome else ({}, ())
        print_json({"report": report, "failed": failed, "left_out": list(left_out)})
    else:
        print(f"report: {report}")
    if outcome is not None and outcome.failed:
        raise UserError(_about_failed(outcome))


def _rehearse(run: Benchmark, cells: tuple[Cell, ...], *, json: bool) -> None:
    from swinssl.experiments.benchmark.estimate import minutes_of

    states = {cell: "done" if run.is_done(cell) else "to do" for cell in cells}
    run.check([cell for cell in cells if states[cell] != "done"])
    plans_of = functools.cache(lambda task: _plans_of(run, run.tasks[task]))
    minutes = {cell: minutes_of(run, cell, plans_of) for cell in cells}
    left = [cell for cell in cells if states[cell] != "done"]
    hours = sum(minutes[cell] or 0.0 for cell in left) / 60
    unknown = sum(minutes[cell] is None for cell in left)
    if json:
        listed = [{"cell": cell.key, "state": states[cell], "minutes": minutes[cell]} for cell in cells]
        print_json({"folder": run.folder, "cells": listed, "hours": hours, "cells_of_unknown_length": unknown})
        return
    for cell in cells:
        known = minutes[cell]
        print(f"{states[cell]:6} {'?' if known is None else f'{known:.1f}':>8} min  {cell.key}")
    rest = f", and {unknown} cells of which nobody knows yet how long they take" if unknown else ""
    print(f"nothing written (would run {len(left)} of {len(cells)} cells into {run.folder}, about {hours:.1f} h{rest})")


def _plans_of(run: Benchmark, workspace: TaskWorkspace) -> Plans:
    """The plans of a task; where there are none yet, those that would be made, which measures its images."""
    from swinssl.planning.plan_dataset import plan_dataset
    from swinssl.preprocessing.plans import PLANS_FILE

    if (workspace.preprocessed / PLANS_FILE).is_file():
        return workspace.plans
    read: list[PlanOptions] = []

    def take(options: PlanOptions) -> None:
        read.append(options)

    run_typed(take, workspace.task.plan)
    planned_for = run.config.planned_for
    encoder = None if planned_for is None else run.encoder(planned_for, run.config.seeds[0])
    init = encoder if encoder is not None and encoder.is_file() else None  # it may yet have to be pretrained
    folder, raw = workspace.preprocessed, workspace.training_raw
    return plan_dataset(raw, folder, read[0], device=run.device, init=init, write=False).plans


def _about_failed(outcome: Outcome) -> str:
    lines = [f"{key}: {reason}" for key, reason in outcome.failed.items()]
    lines += [f"{key}: left out, needs one that failed" for key in outcome.left_out]
    return f"{len(outcome.failed)} cells failed; rerun the command to try them again.\n" + "\n".join(lines)


main = command(benchmark)
