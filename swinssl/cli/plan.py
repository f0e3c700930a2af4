"""swinssl_plan: measure a raw data set and decide how it is preprocessed and trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swinssl.cli.command import command
from swinssl.cli.json_report import print_json
from swinssl.cli.parameters import Dataset, Device, DryRun, Json, Root
from swinssl.core.errors import UserError
from swinssl.core.terminal import print, print_warnings
from swinssl.core.workspace import Workspace, command_words, typed_dataset
from swinssl.networks.checkpoints.shipped_encoders import shipped_suggestions
from swinssl.planning.options import PlanOptions

if TYPE_CHECKING:
    from swinssl.cli.tables import Table
    from swinssl.planning.plan_dataset import PlannedDataset
    from swinssl.preprocessing.plans import Plans

Init = Annotated[
    str | None,
    typer.Option(
        "--init",
        help="Pretrained encoder to plan for (its grid, patch size and network) and to train from: a file or a shipped "
        "name (swinssl_weights list); scratch: none. Default: that of the plan that is there, if any.",
    ),
]
Explain = Annotated[
    bool, typer.Option("--explain", help="Print every decision with its reason; alone, of the plan that is there.")
]
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

    --explain without an option that would change the plan explains the plan that is there and changes nothing.
    """
    from swinssl.dataset.raw_dataset import RawDataset
    from swinssl.planning.plan_dataset import plan_dataset

    workspace = Workspace.locate(root)
    folder = workspace.preprocessed(dataset)
    if explain and is_planned(folder, options, init=init, device=device):
        explain_existing(folder, workspace, dataset, json=json)
        return
    raw = RawDataset.load(workspace.raw(dataset))
    planned = plan_dataset(raw, folder, options, device=device, init=init, workers=workers, write=not dry_run)
    results = workspace.results(dataset)
    if json:
        print_json(
            {
                "plans": planned.plans,
                "changed": planned.changed,
                "changes": planned.changes,
                "stale_cases": planned.stale_cases(folder),
                "stale_models": planned.stale_models(results),
                "measured": planned.measured,
                "warnings": planned.fingerprint.header_warnings,
            }
        )
        print_warnings(raw.left_out, json=True)
        return
    report(planned, folder, results, explain=explain, written=not dry_run)
    print_warnings(raw.left_out)
    if not dry_run:
        print(f"next: swinssl_preprocess {typed_dataset(dataset, root)}")


def is_planned(folder: Path, options: PlanOptions, *, init: str | None, device: str) -> bool:
    """Whether there are plans and no option that would change them."""
    from swinssl.preprocessing.plans import PLANS_FILE

    return (options, init, device) == (PlanOptions(), None, "auto") and (folder / PLANS_FILE).is_file()


def explain_existing(folder: Path, workspace: Workspace, dataset: str, *, json: bool = False) -> Plans:
    """Explain the plans in `folder` and say where the raw data have changed since; writes nothing.

    Raises:
        UserError: the plans cannot be read.
    """
    from swinssl.preprocessing.plans import PLANS_FILE, Plans

    plans = Plans.read(folder)
    stale = changes_of_raw(folder, workspace, dataset)
    if json:
        print_json({"plans": plans, "changed": [], "measured": False, "warnings": stale})
        return plans
    print(f"{plans.dataset_name}: the existing plan, unchanged; recipe {plans.recipe}")
    _print_table(plans)
    for doubt in plans.warnings:
        print(doubt)
    for line in stale:
        print(f"warning: {line}")
    print(f"plans: {folder / PLANS_FILE} (leave --explain out to plan anew)")
    return plans


def changes_of_raw(folder: Path, workspace: Workspace, dataset: str) -> list[str]:
    """How the raw data set differs from what was planned and preprocessed, a line each; none where it is not there."""
    from swinssl.dataset.raw_dataset import RawDataset
    from swinssl.preprocessing.raw_changes import raw_changes

    try:
        raw = RawDataset.load(workspace.raw(dataset))
    except UserError:  # the preprocessed data set came without it
        return []
    return raw_changes(raw, folder).lines(folder)


def report(planned: PlannedDataset, folder: Path, results: Path, *, explain: bool, written: bool = True) -> None:
    """Print what was measured and decided, where it is, and what differs from the plans that were there."""
    from swinssl.planning.explanation import summary
    from swinssl.preprocessing.plans import PLANS_FILE

    plans, cases = planned.plans, planned.fingerprint.swinssl.cases
    how = "measured" if planned.measured else "measured before, unchanged"
    print(f"{plans.dataset_name}: {len(cases)} cases {how}; recipe {plans.recipe}")
    if explain:
        _print_table(plans)
    else:
        for line in summary(plans):
            print("  " + line)
        print("  --explain says why")
    for warning in planned.fingerprint.header_warnings:
        print(f"warning: {warning}")
    for doubt in plans.warnings:
        print(doubt)
    if planned.encoder_kept and plans.encoder is not None:
        print(f"encoder: {plans.encoder.name}, as in the plan before (--init scratch plans without an encoder)")
    _report_changes(planned, folder, results)
    in_hu = all(kind == "hounsfield" for kind in plans.channel_kinds)
    if plans.encoder is None and plans.network.has_swin_encoder and planned.fingerprint.annotated and in_hu:
        for suggestion in shipped_suggestions("CT", command=command_words("swinssl_plan", folder)):
            print(f"encoder: {suggestion}")
    print(f"plans: {folder / PLANS_FILE}" if written else f"nothing written (would be {folder / PLANS_FILE})")


def _report_changes(planned: PlannedDataset, folder: Path, results: Path) -> None:
    """What differs from the plans that were there, and what is stale through that."""
    if not planned.changed:
        return
    print("changed since the last plan:")
    for name, before, after in planned.changes:
        print(f"  {name}: {before} -> {after}")
    if stale := planned.stale_cases(folder):
        print(f"stale: {stale} preprocessed cases; swinssl_preprocess makes them anew")
    if models := planned.stale_models(results):
        print(
            f"trained with the earlier plan: {', '.join(models)}. They predict as before; more folds need the earlier "
            "plan, and a new training another --name or --restart"
        )


def _print_table(plans: Plans) -> None:
    from swinssl.cli.tables import print_table

    print_table(_table(plans))


def _table(plans: Plans) -> Table:
    from swinssl.cli.tables import Table
    from swinssl.planning.explanation import explanation

    table = Table("decision", "value", "why", row_styles=["", "dim"])
    table.columns[0].no_wrap = True
    table.columns[1].min_width = 18
    table.columns[2].ratio = 1
    for row in explanation(plans):
        table.add_row(*row)
    return table


main = command(plan)
