"""swinssl_preprocess: crop, normalise, resample and store the cases of a planned data set."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swinssl.api.datasets import CODECS
from swinssl.cli.command import command
from swinssl.cli.json_report import print_json
from swinssl.cli.parameters import Dataset, DryRun, Json, Root
from swinssl.core.errors import UserError
from swinssl.core.terminal import print, print_warnings
from swinssl.core.workspace import typed_dataset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swinssl.api.datasets import PreprocessResult
    from swinssl.cli.tables import Table
    from swinssl.preprocessing.preprocess import PreprocessReport

Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", min=0, help="Processes; 0 works in this one. Default: the cores, if the largest case fits."
    ),
]
Part = Annotated[
    str,
    typer.Option("--part", help="i/n: the i-th of n parts of the cases, where n jobs share the work.", metavar="I/N"),
]
CodecName = Annotated[
    str, typer.Option("--codec", help="lz4 (fastest), lz4hc or zstd (about 15 % smaller) for the stored arrays.")
]

ClusterAddress = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        help="Let the workers of a dask scheduler do it: tls://HOST:PORT, or tcp:// with --insecure-cluster.",
        metavar="ADDRESS",
    ),
]
InsecureCluster = Annotated[
    bool, typer.Option("--insecure-cluster", help="The network is yours alone: tcp:// will do.")
]


def preprocess(
    dataset: Dataset,
    root: Root = None,
    workers: Workers = None,
    part: Part = "1/1",
    codec: CodecName = "lz4",
    cluster: ClusterAddress = None,
    insecure_cluster: InsecureCluster = False,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Crop, normalise, resample and store every case as swinssl_plan decided.

    Cases that are current are left alone. Rerun the command to resume, to repair damaged cases or to add new ones.
    Several processes, on several machines, may run it at once: no case is made twice.
    """
    from swinssl.api import datasets

    result = datasets.preprocess(
        dataset,
        root=root,
        workers=workers,
        part=check_flags(part=part, codec=codec),
        codec=codec,
        cluster=cluster,
        insecure_cluster=insecure_cluster,
        dry_run=dry_run,
    )
    if json:
        print_json(result.as_json())
    else:
        report(result)
    print_warnings(result.left_out, json=json)
    end(result, dataset=dataset, root=root, quiet=json)


def check_flags(*, part: str, codec: str) -> tuple[int, int]:
    """The parts of `--part`; wrong flags are refused before anything takes time.

    Raises:
        UserError: one of them is wrong.
    """
    parsed = _parse_part(part)
    if codec not in CODECS:
        raise UserError(f"--codec {codec}: unknown. Choose one of {', '.join(CODECS)}.")
    return parsed


def refuse_failed(failed: Sequence[str], cases: int) -> None:
    """Raise a UserError where cases failed, or would."""
    if failed:
        raise UserError(
            f"{len(failed)} of {cases} cases failed: {', '.join(failed)}. Fix them or take them out of the raw data "
            "set, then rerun the command; it skips what is done."
        )


def report(result: PreprocessResult) -> None:
    """Print the structures with their voxels, what needs attention, and the sum; of a dry run what would be done."""
    from swinssl.cli.tables import print_table

    outcome, folder = result.report, result.folder
    if result.dry_run:
        to_do, unchanged = (len(outcome.with_status(status)) for status in ("done", "current"))
        rest = f"; {unchanged} are current" if unchanged else ""
        print(f"nothing written (would preprocess {to_do} of {len(outcome.cases)} cases into {folder}{rest})")
        for case_id, reason in result.failed.items():
            print(f"would fail: {case_id}: {reason}")
        return
    done, current, failed = (outcome.with_status(status) for status in ("done", "current", "failed"))
    if any(case.voxels_before for case in outcome.cases):
        print_table(_structure_table(outcome))
    for case, structure in outcome.vanished:
        print(f"warning: {case}: {structure} vanished; it is smaller than the planned grid can show, or was cropped.")
    if outcome.orphans:
        print(
            f"warning: {folder / 'cases'} also has {', '.join(outcome.orphans)}, no longer in the raw data set; "
            "training would use them. Delete their folders unless you want that."
        )
    stored = sum(case.stored_bytes for case in outcome.cases) / 1e6
    print(f"{len(done)} preprocessed, {len(current)} current, {len(failed)} failed; {stored:.1f} MB in {folder}")


def end(result: PreprocessResult, *, dataset: str, root: Path | None, quiet: bool) -> None:
    """Say what to type next, unless `quiet` or nothing was done.

    Raises:
        UserError: a case failed.
    """
    outcome, plans = result.report, result.plans
    refuse_failed([*result.failed], len(outcome.cases))
    if quiet or result.dry_run:
        return
    if outcome.missing:
        print(f"next: the other parts; {len(outcome.missing)} cases of {dataset} are still to be preprocessed")
    elif any(case.voxels_before for case in outcome.cases):
        init = "" if plans.encoder is None else f" --init {shlex.quote(plans.encoder.place or plans.encoder.name)}"
        print(f"next: swinssl_train {typed_dataset(dataset, root)} --fold 0{init}{_name_option(result.folder)}")
    else:
        print("next: no case has labels, so these images are ready for pretraining")


def _name_option(folder: Path) -> str:
    """` --name NAME` where the training that comes next needs one."""
    from swinssl.training.start import free_name

    try:
        name = free_name(folder, folder.parents[1] / "results" / folder.name)
    except UserError:  # the training itself says what is wrong
        return ""
    return "" if name is None else f" --name {shlex.quote(name)}"


def _parse_part(text: str) -> tuple[int, int]:
    i, _, n = text.partition("/")
    if not (i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise UserError(f"--part {text}: expected I/N with 1 <= I <= N, such as 2/4.")
    return int(i), int(n)


def _structure_table(outcome: PreprocessReport) -> Table:
    from swinssl.cli.tables import Table

    columns = ("structure", "cases with it", "voxels before", "voxels stored", "vanished in")
    table = Table(*columns)
    for column in table.columns[1:]:
        column.justify = "right"
    names = dict.fromkeys(name for case in outcome.cases for name in case.voxels_before or {})
    for name in names:
        before = [(case.voxels_before or {}).get(name, 0) for case in outcome.cases]
        after = [(case.voxels_after or {}).get(name, 0) for case in outcome.cases]
        vanished = sum(b > 0 and a == 0 for b, a in zip(before, after, strict=True))
        with_it = sum(b > 0 for b in before)
        table.add_row(name, str(with_it), f"{sum(before):,}", f"{sum(after):,}", str(vanished or "-"))
    return table


main = command(preprocess)
