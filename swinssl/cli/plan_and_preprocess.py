"""swinssl_plan_and_preprocess: from a raw data set to what training reads, in one command."""

from __future__ import annotations

from swinssl.cli import plan as plan_command
from swinssl.cli import preprocess as preprocess_command
from swinssl.cli.command import command
from swinssl.cli.json_report import print_json
from swinssl.cli.parameters import Dataset, Device, DryRun, Json, Root
from swinssl.core.terminal import print_warnings
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
    from swinssl.api import datasets
    from swinssl.core.pools import import_early

    if workers != 0:
        import_early(*datasets.WORKER_MODULES)
    parts = preprocess_command.check_flags(part=part, codec=codec)
    if explain and not json and plan_command.is_planned(dataset, options, init=init, device=device, root=root):
        plans = plan_command.explain_existing(dataset, root=root)
    else:
        planned = datasets.plan(
            dataset, options=options, init=init, device=device, root=root, workers=workers, dry_run=dry_run
        )
        plans = planned.plans
        if not json:
            plan_command.report(planned, explain=explain, command="swinssl_plan_and_preprocess")
    result = datasets.preprocess(
        dataset, root=root, workers=workers, part=parts, codec=codec, plans=plans, dry_run=dry_run
    )
    if json:
        print_json({"plans": plans, "preprocessing": result.as_json()})
    else:
        preprocess_command.report(result)
    print_warnings(result.left_out, json=json)
    preprocess_command.end(result, dataset=dataset, root=root, quiet=json)


main = command(plan_and_preprocess)
