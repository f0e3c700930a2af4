"""swinssl_plan: measure a raw data set and decide how it is preprocessed and trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swinssl.cli.command import command
from swinssl.cli.json_report import print_json
from swinssl.cli.parameters import Dataset, Device, DryRun, Json, Root
from swinssl.core.terminal import print, print_warnings
from swinssl.core.workspace import Workspace, command_words, typed_dataset
from swinssl.networks.checkpoints.shipped_encoders import shipped_suggestions
from swinssl.planning.options import PlanOptions

if TYPE_CHECKING:
    from swinssl.api.datasets import PlanResult
    from swinssl.cli.tables import Table
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
    from swinssl.api import datasets

    if explain and is_planned(dataset, options, init=init, device=device, root=root):
        explain_existing(dataset, root=root, json=json)
        return
    result = datasets.plan(
        dataset, options=options, init=init, device=device, root=root, workers=workers, dry_run=dry_run
    )
    planned = result.planned
    if json:
        print_json(
            {
                "plans": planned.plans,
                "changed": planned.changed,
                "changes": planned.changes,
                "stale_cases": result.stale_cases,
                "stale_models": result.stale_models,
                "measured": planned.measured,
                "warnings": planned.fingerprint.header_warnings,
            }
        )
        print_warnings(result.left_out, json=True)
        return
    report(result, explain=explain)
    print_warnings(result.left_out)
    if not dry_run:
        print(f"next: swinssl_preprocess {typed_dataset(dataset, root)}")


def is_planned(dataset: str, options: PlanOptions, *, init: str | None, device: str, root: Path | None) -> bool:
    """Whether there are plans and no option that would change them."""
    from swinssl.preprocessing.plans import PLANS_FILE

    folder = Workspace.locate(root).preprocessed(dataset)
    return (options, init, device) == (PlanOptions(), None, "auto") and (folder / PLANS_FILE).is_file()


def explain_existing(dataset: str, *, root: Path | None, json: bool = False) -> Plans:
    """Explain the plans of a data set and say where the raw data have changed since; writes nothing.

    Raises:
        UserError: the plans cannot be read.
    """
    from swinssl.api import datasets
    from swinssl.preprocessing.plans import PLANS_FILE

    existing = datasets.read_plan(dataset, root=root)
    plans, stale = existing.plans, existing.raw_changes
    if json:
        print_json({"plans": plans, "changed": [], "measured": False, "warnings": stale})
        return plans
    print(f"{plans.dataset_name}: the existing plan, unchanged; recipe {plans.recipe}")
    _print_table(plans)
    for doubt in plans.warnings:
        print(doubt)
    for line in stale:
        print(f"warning: {line}")
    print(f"plans: {existing.folder / PLANS_FILE} (leave --explain out to plan anew)")
    return plans


def report(result: PlanResult, *, explain: bool, command: str = "swinssl_plan") -> None:
    """Print what was measured and decided, where it is, and what differs from the plans that were there.

    Args:
        command: that planned.
    """
    from swinssl.planning.explanation import summary
    from swinssl.preprocessing.plans import PLANS_FILE

    planned, folder = result.planned, result.folder
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
    _report_changes(result)
    in_hu = all(kind == "hounsfield" for kind in plans.channel_kinds)
    if plans.encoder is None and plans.network.has_swin_encoder and planned.fingerprint.annotated and in_hu:
        for suggestion in shipped_suggestions("CT", command=command_words(command, folder)):
            print(f"encoder: {suggestion}")
    print(f"plans: {folder / PLANS_FILE}" if result.written else f"nothing written (would be {folder / PLANS_FILE})")


def _report_changes(result: PlanResult) -> None:
    """What differs from the plans that were there, and what is stale through that."""
    if not result.planned.changed:
        return
    print("changed since the last plan:")
    for name, before, after in result.changes:
        print(f"  {name}: {before} -> {after}")
    if result.stale_cases:
        print(f"stale: {result.stale_cases} preprocessed cases; swinssl_preprocess makes them anew")
    if models := result.stale_models:
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
