"""swinssl_cka: how alike two encoders are, block by block, and what their heads look at."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swinssl.cli.command import command
from swinssl.cli.json_report import print_json
from swinssl.cli.parameters import Device, DryRun, Json, Root
from swinssl.core.errors import UserError
from swinssl.core.terminal import print
from swinssl.core.text import dimensions
from swinssl.core.workspace import Workspace
from swinssl.evaluation.encoders.comparison_config import ComparisonConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from swinssl.cli.tables import Table
    from swinssl.evaluation.encoders.encoder_comparison import Comparison, ComparisonPlan

WHICH = (
    "An encoder file, the name of an encoder that comes with swinssl, or the folder of a trained model's fold, whose "
    "encoder is meant."
)
First = Annotated[str, typer.Argument(help=WHICH, metavar="A")]
Second = Annotated[str, typer.Argument(help="Likewise; it may have other depths and widths than A.", metavar="B")]
Data = Annotated[
    str, typer.Option("--data", help="Preprocessed data set that crops are drawn from: its id (101), name or folder.")
]
Case = Annotated[
    list[str] | None,
    typer.Option(
        "--case", help="Draw crops from this case only; may be repeated. Default: all that neither was trained on."
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="Folder for the files. Default: <root>/results/cka/A__B__DATASET."),
]


def cka(
    a: First,
    b: Second,
    data: Data,
    config: ComparisonConfig,
    case: Case = None,
    root: Root = None,
    out: Out = None,
    device: Device = "auto",
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Compare two encoders on crops that neither was trained on: CKA of all their blocks, and what their heads look at.

    CKA says how alike two layers see the same tokens: 1 alike but for rotation and scale, 0 not at all. It is
    estimated over minibatches without bias. Attention is described by its mean distance and its entropy, for every
    head. Cases whose images are in the run.json of either encoder are left out.

    Writes cka.json, cka.png, cka.svg, attention.csv and attention.png.
    """
    from swinssl.core.devices import select_device
    from swinssl.evaluation.encoders.compared_encoder import ComparedEncoder
    from swinssl.evaluation.encoders.comparison_files import ATTENTION_FILE, CKA_FILE, plan_report, report, write_files
    from swinssl.evaluation.encoders.encoder_comparison import compare, plan_comparison

    if out is not None and out.is_file():
        raise UserError(f"--out {out}: a file. Give a folder; it need not exist yet.")
    workspace = Workspace.locate(root)
    first, second = (ComparedEncoder.open(given) for given in (a, b))
    plan = plan_comparison(first, second, workspace.preprocessed(data), config=config, cases=case or ())
    folder = out or workspace.root / "results" / "cka" / _folder_name(plan)
    chosen = select_device(device)
    if dry_run:
        if json:
            print_json({"folder": folder, **plan_report(plan)})
            return
        _introduce(plan)
        print(f"nothing written (would write into {folder})")
        return
    from swinssl.evaluation.encoders.comparison_picture import draw

    if not json:
        _introduce(plan)
    comparison = compare(plan, device=chosen)
    write_files(comparison, folder)
    pictures = draw(comparison, folder)
    if json:
        print_json(report(comparison))
        return
    _print_found(comparison)
    print(f"written to {folder}: {', '.join((CKA_FILE, ATTENTION_FILE, *pictures))}")
    if pictures:
        print(f"next: look at {folder / pictures[0]}; docs/analysis.md says how to read it")


def _folder_name(plan: ComparisonPlan) -> str:
    names = (*(encoder.name for encoder in plan.encoders), plan.dataset_name)
    return "__".join(re.sub(r"[^A-Za-z0-9._-]+", "_", name) for name in names)


def _introduce(plan: ComparisonPlan) -> None:
    from swinssl.core.text import counted, listed
    from swinssl.evaluation.encoders.encoder_comparison import LETTERS

    for letter, encoder in zip(LETTERS, plan.encoders, strict=True):
        own = encoder.network.plan
        depths = " ".join(map(str, own.depths))
        known = counted(len(encoder.trained_on.hashes), "image") if encoder.trained_on.runs else "images nobody noted"
        print(f"{letter}: {encoder.name}, width {own.embed_dim}, depths {depths}; trained on {known}")
    for letter, cases in plan.left_out.items():
        if cases:
            print(f"left out, since {letter} was trained on them: {counted(len(cases), 'case')} ({listed(cases)})")
    patch = dimensions(plan.images.patch_size)
    print(
        f"{counted(len(plan.cases), 'case')} of {plan.dataset_name} that {plan.new_to_both}; "
        f"{plan.minibatches} x {counted(plan.batch_size, 'crop')} of {patch}, "
        f"{counted(plan.tokens, 'token')} of each"
    )
    for note in plan.notes:
        print(f"note: {note}")


def _print_found(comparison: Comparison) -> None:
    from swinssl.cli.tables import needed_width, print_table

    table = _table(comparison)
    # Where the window is too narrow its lines break, and no number is cut.
    print_table(table, width=needed_width(table, uncut=True))
    print("of the heads of a block, lowest and highest: mean attention distance in mm, entropy in nats")
    for name, reason in comparison.unreadable.items():
        print(f"warning: {name} could not be read and is left out: {reason}")


def _table(comparison: Comparison) -> Table:
    """A row a point of the curve; of the heads the least and the greatest value."""
    from swinssl.cli.tables import Table

    columns = ("block", "CKA", "s.e.", "mm, A", "mm, B", "nats, A", "nats, B")
    table = Table(*columns, show_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    spans = [
        dict(zip(blocks, own, strict=True))
        for blocks, own in zip(comparison.plan.blocks, comparison.attention, strict=True)
    ]
    for point in comparison.curve:
        both = (spans[0][point.first], spans[1][point.second])
        names = dict.fromkeys((point.first.name, point.second.name))
        table.add_row(
            ", ".join(names),
            *("-" if math.isnan(value) else f"{value:.3f}" for value in (point.cka, point.standard_error)),
            *(_range(own.distance_mm, 1) for own in both),
            *(_range(own.entropy, 2) for own in both),
        )
    return table


def _range(heads: NDArray, digits: int) -> str:
    low, high = (f"{value:.{digits}f}" for value in (heads.min(), heads.max()))
    return low if low == high else f"{low}-{high}"


main = command(cka)
