"""swinssl_plan: measure a raw data set and decide how it is preprocessed and trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swinssl.cli.command import command
from swinssl.cli.json_report import print_json
from swinssl.cli.parameters import Dataset, Device, DryRun, Json, Root
from swinssl.preprocessing.plan_options import PlanOptions
from swinssl.terminal import print
from swinssl.workspace import Workspace, typed_dataset

if TYPE_CHECKING:
    from swinssl.cli.tables import Table
    from swinssl.preprocessing.plan_dataset import PlannedDataset

Init = Annotated[
    Path | None,
    typer.Option("--init", help="Pretrained encoder (safetensors) to plan for: its grid, patch size and network."),
]
Explain = Annotated[bool, typer.Option("--explain", help="Print every decision with its reason.")]
Workers = Annotated[
    int | None, typer.Option("--workers", min=0, help="Processes that measure; 0 works in this one. Default: chosen.")
]


def plan(
    dataset: Dataset,
    options: PlanOptions,
    init: Init = None,
    device: Device = "auto",
    explain: Explain = False,
    root: Root = None,
    workers: Workers = None,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Measure a raw data set and plan its preprocessing and training.

    Writes dataset_fingerprint.json and swinsslPlans.json to <root>/preprocessed/<name>. All triples are z y x.
    """
    from swinssl.dataset.raw_dataset import RawDataset
    from swinssl.preprocessing.plan_dataset import plan_dataset

    workspace = Workspace.locate(root)
    raw = RawDataset.load(workspace.raw(dataset))
    folder = workspace.preprocessed(dataset)
    planned = plan_dataset(raw, folder, options, device=device, init=init, workers=workers, write=not dry_run)
    if json:
        print_json(
            {
                "plans": planned.plans,
                "changed": planned.changed,
                "measured": planned.measured,
                "warnings": planned.fingerprint.header_warnings,
            }
        )
        return
    report(planned, folder, explain=explain, written=not dry_run)
    if not dry_run:
        print(f"next: swinssl_preprocess {typed_dataset(dataset, root)}")


def report(planned: PlannedDataset, folder: Path, *, explain: bool, written: bool = True) -> None:
    """Print what was measured and decided, where it is, and what differs from the plans that were there."""
    from swinssl.cli.tables import print_table
    from swinssl.preprocessing.plan_explanation import notes, summary
    from swinssl.preprocessing.plans import PLANS_FILE

    plans, cases = planned.plans, planned.fingerprint.swinssl.cases
    how = "measured" if planned.measured else "measured before, unchanged"
    print(f"{plans.dataset_name}: {len(cases)} cases {how}; recipe {plans.recipe}")
    if explain:
        print_table(_table(planned))
    else:
        for line in summary(plans):
            print("  " + line)
        print("  --explain says why")
    for warning in planned.fingerprint.header_warnings:
        print(f"warning: {warning}")
    for note in notes(plans):
        print(f"note: {note}")
    if planned.changed:
        redo = " and preprocessed cases are stale" if planned.needs_preprocessing else ""
        print(f"changed since the last plan: {', '.join(planned.changed)}{redo}")
    print(f"plans: {folder / PLANS_FILE}" if written else f"nothing written (would be {folder / PLANS_FILE})")


def _table(planned: PlannedDataset) -> Table:
    from swinssl.cli.tables import Table
    from swinssl.preprocessing.plan_explanation import explanation

    table = Table("decision", "value", "why", row_styles=["", "dim"])
    table.columns[0].no_wrap = True
    table.columns[1].min_width = 18
    table.columns[2].ratio = 1
    for row in explanation(planned.plans):
        table.add_row(*row)
    return table


main = command(plan)
