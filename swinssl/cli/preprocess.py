"""swinssl_preprocess: crop, normalise, resample and store the cases of a planned data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swinssl.cli.command import command
from swinssl.cli.parameters import Dataset, DryRun, Json, Root
from swinssl.errors import UserError
from swinssl.workspace import Workspace

if TYPE_CHECKING:
    from rich.table import Table

    from swinssl.dataset.raw_dataset import RawDataset
    from swinssl.preprocessing.plans import Plans
    from swinssl.preprocessing.preprocess import PreprocessReport

Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", min=0, help="Processes; 0 works in this one. Default: the cores, if the largest case fits."
    ),
]
Part = Annotated[
    str, typer.Option("--part", help="i/n: the i-th of n parts, so that n machines share the work.", metavar="I/N")
]
CodecName = Annotated[
    str, typer.Option("--codec", help="lz4 (fastest), lz4hc or zstd (about 15 % smaller) for the stored arrays.")
]


def preprocess(
    dataset: Dataset,
    root: Root = None,
    workers: Workers = None,
    part: Part = "1/1",
    codec: CodecName = "lz4",
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Crop, normalise, resample and store every case as swinssl_plan decided.

    Cases that are current are left alone, so the same command goes on where it was stopped, mends damaged cases and
    takes new ones up.
    """
    from swinssl.dataset.raw_dataset import RawDataset
    from swinssl.preprocessing.plans import Plans

    workspace = Workspace.locate(root)
    raw = RawDataset.load(workspace.raw(dataset))
    folder = workspace.preprocessed(dataset)
    plans = Plans.read(folder)
    run(raw, plans, folder, workers=workers, part=part, codec=codec, json=json, dry_run=dry_run)


def run(
    raw: RawDataset,
    plans: Plans,
    folder: Path,
    *,
    workers: int | None,
    part: str,
    codec: str,
    json: bool,
    dry_run: bool,
) -> None:
    """Preprocess and say what came out.

    Raises:
        UserError: a flag is wrong, or a case failed.
    """
    from typing import get_args

    from swinssl.preprocessing import preprocess as library
    from swinssl.preprocessing.store import Codec

    if codec not in get_args(Codec):
        raise UserError(f"--codec {codec}: unknown. Choose one of {', '.join(get_args(Codec))}.")
    chosen = _parse_part(part)
    if dry_run:
        cases = library.part_of(raw.cases, chosen)
        stale = [case.id for case in cases if not library.is_current(case, plans, folder)]
        print(f"would preprocess {len(stale)} of {len(cases)} cases into {folder}; the others are current.")
        return
    if workers is None:
        workers = library.default_workers(raw, plans)
    report = library.preprocess_dataset(
        raw,
        plans,
        folder,
        workers=workers,
        part=chosen,
        codec=codec,  # type: ignore[arg-type]
    )
    if json:
        _print_json(report)
    else:
        _print_report(report, folder, raw.name, parts=chosen[1])
    if failed := report.with_status("failed"):
        raise UserError(
            f"{len(failed)} of {len(report.cases)} cases failed: {', '.join(case.case_id for case in failed)}. Mend "
            "them or take them out of the raw data set, then run the same command again; it skips what is done."
        )


def _parse_part(text: str) -> tuple[int, int]:
    i, _, n = text.partition("/")
    if not (i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise UserError(f"--part {text}: expected I/N with 1 <= I <= N, such as 2/4.")
    return int(i), int(n)


def _print_json(report: PreprocessReport) -> None:
    import json

    print(json.dumps(report.as_json(), indent=2))


def _print_report(report: PreprocessReport, folder: Path, name: str, *, parts: int) -> None:
    from rich.console import Console

    console = Console()
    done, current, failed = (report.with_status(status) for status in ("done", "current", "failed"))
    stored = sum(case.stored_bytes for case in report.cases) / 1e6
    if any(case.voxels_before for case in report.cases):
        console.print(_structure_table(report))
    if failed:
        console.print(_failure_table(report))
    for case, structure in report.vanished:
        print(f"warning: {case}: {structure} vanished; it is smaller than the planned spacing can show, or cropped.")
    if report.orphans:
        print(
            f"warning: {folder / 'cases'} also has {', '.join(report.orphans)}, no longer in the raw data set, and "
            "training would use them. Delete their folders unless you want that."
        )
    print(f"{len(done)} preprocessed, {len(current)} current, {len(failed)} failed; {stored:.1f} MB in {folder}")
    if not failed:
        print(f"next: {'when every part is done, ' if parts > 1 else ''}swinssl_train {name} --fold 0")


def _structure_table(report: PreprocessReport) -> Table:
    from rich.table import Table

    table = Table("structure", "cases with it", "voxels before", "voxels stored", "vanished in", title="Structures")
    for column in table.columns[1:]:
        column.justify = "right"
    names = dict.fromkeys(name for case in report.cases for name in case.voxels_before or {})
    for name in names:
        before = [(case.voxels_before or {}).get(name, 0) for case in report.cases]
        after = [(case.voxels_after or {}).get(name, 0) for case in report.cases]
        vanished = sum(b > 0 and a == 0 for b, a in zip(before, after, strict=True))
        with_it = sum(b > 0 for b in before)
        table.add_row(name, str(with_it), f"{sum(before):,}", f"{sum(after):,}", str(vanished or "-"))
    return table


def _failure_table(report: PreprocessReport) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table("case", "what failed", title="Failed cases")
    for case in report.with_status("failed"):
        table.add_row(escape(case.case_id), escape(case.message))
    return table


main = command(preprocess)
