"""swinssl_plan_and_preprocess: from a raw data set to what training reads, in one command."""

from __future__ import annotations

from swinssl.cli import plan as plan_command
from swinssl.cli import preprocess as preprocess_command
from swinssl.cli.command import command
from swinssl.cli.json_report import print_json
from swinssl.cli.parameters import Dataset, Device, DryRun, Json, Root
from swinssl.core.terminal import print_warnings
from swinssl.core.workspace import Workspace
from swinssl.planning.options import PlanOptions


def plan_and_preprocess(
    dataset: Dataset,
    options: PlanOptions,
    init: plan_command.Init = None,
    device: Device = "auto",
    explain: plan_command.Explain = False,
    root: Root = None,
    workers: preprocess_command.Workers = None,
    part: preprocess_command.Part = "1/1",
    codec: preprocess_command.CodecName = "lz4",
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Measure a raw data set, plan it, and preprocess its cases: swinssl_plan, then swinssl_preprocess.

    A second run measures and preprocesses only what has changed. All triples are z y x.

    --explain without an option that would change the plan explains the plan that is there, keeps it, and preprocesses
    the cases that are missing or stale.
    """
    from swinssl.core.pools import import_early
    from swinssl.dataset.raw_dataset import RawDataset
    from swinssl.planning.plan_dataset import plan_dataset

    if workers != 0:
        import_early(*preprocess_command.WORKER_MODULES)
    preprocess_command.check_flags(part=part, codec=codec)
    workspace = Workspace.locate(root)
    raw = RawDataset.load(workspace.raw(dataset))
    folder = workspace.preprocessed(dataset)
    if explain and not json and plan_command.is_planned(folder, options, init=init, device=device):
        plans = plan_command.explain_existing(folder, workspace, dataset)
    else:
        planned = plan_dataset(raw, folder, options, device=device, init=init, workers=workers, write=not dry_run)
        plans = planned.plans
        if not json:
            plan_command.report(planned, folder, workspace.results(dataset), explain=explain, written=not dry_run)
    if dry_run:
        rehearsal = preprocess_command.rehearse(raw, plans, folder, workers=workers, part=part)
        if json:
            print_json({"plans": plans, "preprocessing": rehearsal.as_json()})
        else:
            rehearsal.report()
        print_warnings(raw.left_out, json=json)
        preprocess_command.refuse_failed([*rehearsal.failed], len(rehearsal.cases))
        return
    outcome = preprocess_command.run(raw, plans, folder, workers=workers, part=part, codec=codec)
    if json:
        print_json({"plans": plans, "preprocessing": outcome.as_json()})
    else:
        preprocess_command.report(outcome, folder)
    print_warnings(raw.left_out, json=json)
    preprocess_command.end(outcome, plans, dataset=dataset, root=root, quiet=json)


main = command(plan_and_preprocess)
