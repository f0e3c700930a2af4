"""How swinssl_weights shows an encoder: its form, what its numbers mean, and every tensor."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swinssl.cli.json_report import print_json
from swinssl.core.terminal import print
from swinssl.core.text import counted, dimensions
from swinssl.networks.network_plan import AxisOrder, SwinEncoderPlan

if TYPE_CHECKING:
    from swinssl.networks.checkpoints.encoder_export import MonaiEncoder
    from swinssl.networks.checkpoints.encoder_file import EncoderRecord
    from swinssl.networks.checkpoints.encoder_import import ImportedEncoder
    from swinssl.networks.checkpoints.foreign_checkpoint import Checkpoint
    from swinssl.networks.checkpoints.segmentor_import import ImportedSegmentor


def print_encoder(checkpoint: Checkpoint, encoder: ImportedEncoder, *, source: str = "", unsaid: bool = False) -> None:
    """Form and meaning of an encoder; `unsaid` where nothing tells its merge order."""
    plan = encoder.plan
    whose = f" of --source {source}" if source else ""
    parameters = sum(tensor.numel() for tensor in encoder.tensors.values())
    print(f"{checkpoint.path.name}: Swin encoder{whose} at {checkpoint.container}, {parameters:,} parameters")
    print(
        f"  width {plan.embed_dim}, depths {_row(plan.depths)}, heads {_row(plan.heads)}, window {plan.window}, "
        f"{counted(encoder.in_channels, 'image channel')}"
    )
    print(f"  {_meaning(plan, unsaid=unsaid)}")


def print_record(record: EncoderRecord) -> None:
    """What a file says of its encoder beyond its form; of the licence the first line."""
    said = record.model_dump(mode="json", exclude_none=True, exclude={"encoder", "network", "in_channels"})
    for name, value in said.items():
        print(f"  {name.replace('_', ' ')}: {str(value).strip().splitlines()[0]}")


def print_tensors(taken: ImportedEncoder | ImportedSegmentor) -> None:
    """A table of every tensor in the file: what was done with it."""
    from swinssl.cli.tables import Table, print_table

    table = Table("", "tensor", "in the file", "shape", show_edge=False)
    for column in table.columns[1:3]:
        column.overflow = "fold"
    content = as_json(taken)
    for row in content["tensors"]:
        table.add_row(row["verdict"], row["name"], row["original"] or "", _row(row["shape"]))
    for kind in ("unexpected", "left_out"):
        for name in content[kind]:
            table.add_row(kind.replace("_", " "), "", name, "")
    print_table(table)


def print_exported(place: Path, encoder: MonaiEncoder, *, axis_order: AxisOrder, json: bool) -> None:
    """How MONAI loads the file, and whether it computes the same numbers."""
    if json:
        content = {"arguments": encoder.arguments, "differences": encoder.differences, "left_out": encoder.left_out}
        print_json({"file": place, "axis_order": axis_order, **content}, without_none=True)
        return
    typed = ", ".join(f"{name}={value!r}" for name, value in encoder.arguments.items())
    print(f"{place}: {len(encoder.tensors)} tensors for SwinUNETR(out_channels=..., {typed})")
    print(f"  trained on arrays ({', '.join(axis_order)}): give it such")
    for words in encoder.differences:
        print(f"  differs: {words}")
    if not encoder.differences:
        print("  MONAI computes the same numbers")
    print("next: network.load_state_dict(tensors, strict=False); only the decoder's are missing")


def print_shipped(*, json: bool) -> None:
    """The encoders that come with the package: what they are, what they learnt, whose images those were."""
    import math

    from swinssl.networks.checkpoints.encoder_file import read_encoder_header
    from swinssl.networks.checkpoints.shipped_encoders import SHIPPED, encoder_path, shipped_names
    from swinssl.planning.intensity import describe
    from swinssl.planning.target_spacing import show
    from swinssl.preprocessing.plans import Intensity

    rows: list[dict[str, Any]] = []
    for name in shipped_names():
        record, shapes = read_encoder_header(encoder_path(name))
        about = SHIPPED[name]
        rows.append(
            {
                "name": name,
                "modality": about.modality,
                "body_part": about.body_part,
                "images": about.images,
                "licence": about.licence,
                "method": record.source,
                "preset": record.preset,
                "spacing": record.spacing,
                "patch_size": record.patch_size,
                "intensity": record.intensity,
                "parameters": sum(map(math.prod, shapes.values())),
                "file": encoder_path(name),
            }
        )
    if json:
        print_json(rows)
        return
    for row, about in zip(rows, (SHIPPED[name] for name in shipped_names()), strict=True):
        print(f"{row['name']}: {row['preset']}, {row['parameters']:,} parameters, {row['method']}")
        print(f"  pretrained on {about.trained_on}: {about.images} ({about.licence} licence)")
        print(
            f"  spacing {show(row['spacing'])} mm, patch {dimensions(row['patch_size'])}, "
            f"intensity {describe(Intensity.model_validate(row['intensity']))}"
        )
    if rows:
        print(f"next: swinssl_plan DATASET --init {rows[0]['name']}")


def as_json(taken: ImportedEncoder | ImportedSegmentor) -> dict[str, Any]:
    """The report: every tensor, and the names of what was not taken."""
    report = taken.report
    return {
        "tensors": [
            {
                "name": name,
                "original": taken.names.get(name),
                "shape": list(tensor.shape),
                "verdict": "adapted" if name in report.adapted else "matched",
            }
            for name, tensor in taken.tensors.items()
        ],
        "missing": report.missing,
        "unexpected": report.unexpected,
        "left_out": report.left_out,
    }


def _meaning(plan: SwinEncoderPlan, *, unsaid: bool) -> str:
    skips = {"stage": "the stages' outputs", "merge": "the patch embedding and the merged maps"}[plan.skip_taps]
    said = [
        f"arrays ({', '.join(plan.axis_order)})",
        f"merge order {'unknown' if unsaid else plan.merge_order}",
        f"skips: {skips}, {'learned' if plan.skip_norm == 'affine' else 'plain'} norm",
        f"{'with' if plan.qkv_bias else 'no'} qkv bias, {'with' if plan.patch_norm else 'no'} patch norm",
    ]
    return "; ".join(said)


def _row(numbers: Iterable[int]) -> str:
    return " ".join(map(str, numbers))
