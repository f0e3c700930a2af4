"""swinssl_weights: published encoders as ours, ours as theirs, and what a file holds."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from swinssl.cli.command import commands
from swinssl.cli.json_report import print_json
from swinssl.cli.parameters import Json
from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.core.terminal import print
from swinssl.dataset.normalisations import normalisation_forms
from swinssl.networks.checkpoints.published_encoders import SOURCES, WHICH_MERGE_ORDER, SourceName

if TYPE_CHECKING:
    from swinssl.networks.checkpoints.encoder_file import EncoderRecord
    from swinssl.networks.checkpoints.foreign_checkpoint import Checkpoint

SAFETENSORS = (".safetensors",)
MONAI_ENDINGS = (".safetensors", ".pt", ".pth")

File = Annotated[
    Path,
    typer.Argument(help="A .pt, .pth or .safetensors file, or the name of a shipped encoder.", metavar="PATH"),
]
Encoder = Annotated[
    Path,
    typer.Argument(
        help="Encoder that swinssl wrote, the name of a shipped one, or the weights in a model folder.",
        metavar="ENCODER",
    ),
]
Whose = Annotated[
    SourceName,
    typer.Option(
        "--source",
        help="Whose file it is. monai: your own MONAI network. swinunetr: published SwinUNETR research files. "
        "smit: SMIT. swinssl: ours.",
    ),
]
MergeOrderFlag = Annotated[
    Literal["auto", "monai", "monai_legacy", "lexicographic", "smit"],
    typer.Option("--merge-order", help=f"Order of patch merging. auto: as the source tells. Else {WHICH_MERGE_ORDER}."),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="File to write, or a folder for it.")]
Branch = Annotated[
    Literal["student", "teacher"] | None,
    typer.Option("--branch", help="Which network, where a file keeps a student and a teacher."),
]
Channels = Annotated[
    int | None, typer.Option("--channels", min=1, help="Image channels to adapt it to. Training does so by itself.")
]
Window = Annotated[int | None, typer.Option("--window", min=2, help="Window edge to adapt it to, in tokens.")]
Spacing = Annotated[
    tuple[float, float, float] | None, typer.Option("--spacing", help="z y x in mm that it was pretrained on.")
]
Patch = Annotated[tuple[int, int, int] | None, typer.Option("--patch", help="z y x voxels that it was pretrained on.")]
IntensityFlag = Annotated[
    str | None,
    typer.Option("--intensity", help=f"How its images were normalised: {', '.join(normalisation_forms())}."),
]
Licence = Annotated[Path | None, typer.Option("--licence", help="Text file with the licence of the weights.")]
Whole = Annotated[
    bool, typer.Option("--whole", help="The convolutional decoder too: a whole SwinUNETR or SMIT segmentor.")
]
Tensors = Annotated[bool, typer.Option("--tensors", help="List every tensor: what was done, our name, theirs.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")]
To = Annotated[
    Literal["monai", "swinssl"],
    typer.Option("--to", help="monai: names that MONAI's SwinUNETR loads. swinssl: an encoder file of ours."),
]


def import_(
    path: File,
    source: Whose,
    out: Out,
    merge_order: MergeOrderFlag = "auto",
    branch: Branch = None,
    channels: Channels = None,
    window: Window = None,
    spacing: Spacing = None,
    patch: Patch = None,
    intensity: IntensityFlag = None,
    licence: Licence = None,
    whole: Whole = False,
    tensors: Tensors = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Turn a checkpoint into an encoder file.

    Says tensor by tensor what was taken; nothing in the checkpoint is executed. The encoder computes exactly what the
    published one does. Spacing, patch and intensity are kept for swinssl_plan --init.
    """
    from swinssl.cli.weights_report import as_json, print_encoder, print_tensors
    from swinssl.networks.checkpoints.encoder_file import EncoderRecord, write_encoder
    from swinssl.networks.checkpoints.encoder_import import import_encoder
    from swinssl.networks.checkpoints.foreign_checkpoint import open_checkpoint
    from swinssl.networks.checkpoints.segmentor_import import import_segmentor
    from swinssl.networks.checkpoints.shipped_encoders import encoder_path
    from swinssl.planning.intensity import asked_intensity

    if whole and (source == "swinssl" or channels or window):
        raise UserError("--whole: goes with a published source, and without --channels and --window.")
    for flag, triple in (("--spacing", spacing), ("--patch", patch)):
        if triple is not None and not all(0 < value < math.inf for value in triple):
            raise UserError(f"{flag} {' '.join(map(str, triple))}: must be three positive numbers, z y x.")
    place = _place(out, "segmentor" if whole else "encoder", SAFETENSORS, overwrite=overwrite)
    given = {
        "spacing": spacing,
        "patch_size": patch,
        "intensity": asked_intensity(intensity, intensity).model_dump(mode="json") if intensity else None,
        "licence": _text(licence) if licence else None,
    }
    path = encoder_path(path)
    checkpoint = open_checkpoint(path, branch=branch)
    said = _own_record(checkpoint) if source == "swinssl" else EncoderRecord()
    encoder = import_encoder(
        checkpoint,
        source,
        merge_order=None if merge_order == "auto" else merge_order,
        own_plan=said.encoder,
        in_channels=channels,
        window=window,
    )
    segmentor = import_segmentor(checkpoint, encoder) if whole else None
    origin = {"source": source, "original": path.name, "original_sha256": checkpoint.sha256}
    found = {
        "encoder": encoder.plan,
        "network": segmentor.plan if segmentor else None,
        "in_channels": encoder.in_channels,
        **({} if said.source else origin),
    }
    record = said.model_copy(update=found | {key: value for key, value in given.items() if value is not None})
    taken = segmentor or encoder
    beside = write_encoder(place, taken.tensors, record)
    if json:
        print_json({"file": place, "record": record, **as_json(taken)}, without_none=True)
        return
    print_encoder(checkpoint, encoder)
    print(taken.report)
    if tensors:
        print_tensors(taken)
    print(f"{'segmentor' if whole else 'encoder'}: {place} ({beside.name} says the same in words)")
    print(f"next: swinssl_plan DATASET --init {shlex.quote(str(place))}")


def export(path: Encoder, to: To, out: Out, overwrite: Overwrite = False, json: Json = False) -> None:
    """Write an encoder for MONAI, or as a file of ours.

    A trained model's encoder is taken out of it. With --to monai the ending of --out decides: .safetensors, or .pt,
    which torch.load(weights_only=True) reads. What MONAI computes otherwise than swinssl is said; where nothing is,
    the numbers are the same.
    """
    from swinssl.cli.weights_report import print_encoder, print_exported
    from swinssl.networks.checkpoints.encoder_export import export_to_monai, write_for_monai
    from swinssl.networks.checkpoints.encoder_file import write_encoder
    from swinssl.networks.checkpoints.encoder_import import import_encoder
    from swinssl.networks.checkpoints.foreign_checkpoint import open_checkpoint
    from swinssl.networks.checkpoints.shipped_encoders import encoder_path

    place = _place(out, "encoder", MONAI_ENDINGS if to == "monai" else SAFETENSORS, overwrite=overwrite)
    checkpoint = open_checkpoint(encoder_path(path))
    record = _own_record(checkpoint)
    encoder = import_encoder(checkpoint, "swinssl", own_plan=record.encoder)
    if to == "monai":
        exported = export_to_monai(encoder.tensors, encoder.plan)
        write_for_monai(place, exported)
        print_exported(place, exported, axis_order=encoder.plan.axis_order, json=json)
        return
    found = {"encoder": encoder.plan, "in_channels": encoder.in_channels, "network": None}
    record = record.model_copy(update=found)
    write_encoder(place, encoder.tensors, record)
    if json:
        print_json({"file": place, "record": record}, without_none=True)
    else:
        print_encoder(checkpoint, encoder)
        print(f"encoder: {place}")


def show(path: File, branch: Branch = None, json: Json = False) -> None:
    """Say what a checkpoint, or an encoder that comes with swinssl (by its name), holds.

    Whose it is, its size, what its numbers mean, and what nothing in it says.
    """
    from swinssl.cli.weights_report import as_json, print_encoder, print_record
    from swinssl.networks.checkpoints.encoder_import import import_encoder, known_merge_order, source_of
    from swinssl.networks.checkpoints.foreign_checkpoint import open_checkpoint
    from swinssl.networks.checkpoints.shipped_encoders import encoder_path

    checkpoint = open_checkpoint(encoder_path(path), branch=branch)
    source = source_of(checkpoint)
    if source is None:
        raise UserError(
            f"{path}: {len(checkpoint.tensors)} tensors in {checkpoint.container}, none with the name of a Swin "
            f"encoder's block; the first are {', '.join(list(checkpoint.tensors)[:5])}."
        )
    record = _own_record(checkpoint) if source == "swinssl" else None
    unsaid = source != "swinssl" and known_merge_order(checkpoint, source) is None
    encoder = import_encoder(
        checkpoint,
        source,
        merge_order=SOURCES[source].merge_orders[0] if unsaid else None,
        own_plan=record.encoder if record else None,
    )
    if json:
        content = {"file": str(path), "sha256": checkpoint.sha256, "source": source, "merge_order_known": not unsaid}
        print_json(content | {"encoder": encoder.plan, "record": record} | as_json(encoder), without_none=True)
        return
    print_encoder(checkpoint, encoder, source=source, unsaid=unsaid)
    print(f"  sha256 {checkpoint.sha256}")
    if record is not None:
        print_record(record)
    print(encoder.report)
    if unsaid:
        print(f"the merge order is not in the file: {WHICH_MERGE_ORDER}")
    if source != "swinssl":
        order = " --merge-order ..." if unsaid else ""
        print(f"next: swinssl_weights import {shlex.quote(str(path))} --source {source}{order} --out FOLDER")


def list_(json: Json = False) -> None:
    """List the encoders that come with swinssl.

    Every --init, and every encoder argument, takes these names.
    """
    from swinssl.cli.weights_report import print_shipped

    print_shipped(json=json)


def _place(out: Path, name: str, endings: tuple[str, ...], *, overwrite: bool) -> Path:
    """The file that `--out` means: itself if it has one of the endings, else one in a folder of that name."""
    if out.suffix in MONAI_ENDINGS and out.suffix not in endings:
        raise UserError(f"--out {out}: files of ours end in .safetensors. Choose another name, or a folder.")
    place = out if out.suffix in endings else out / f"{name}.safetensors"
    written = (place, place.with_suffix(".json")) if endings == SAFETENSORS else (place,)
    for file in written:
        if file.exists() and not overwrite:
            raise UserError(f"{file}: is there already. Choose another --out, or give --overwrite.")
    return place


def _own_record(checkpoint: Checkpoint) -> EncoderRecord:
    """What a file of ours says of itself, or the plans of the model folder that it lies in."""
    from swinssl.networks.checkpoints.encoder_file import EncoderRecord
    from swinssl.preprocessing.plans import PLANS_FILE, Plans

    record = EncoderRecord.from_metadata(checkpoint.path, checkpoint.metadata)
    folder = checkpoint.path.resolve().parent.parent
    if record.described is not None or not (folder / PLANS_FILE).is_file():
        return record.model_copy(update={"encoder": record.described})
    plans = Plans.read(folder)
    return EncoderRecord(
        encoder=plans.network.encoder,
        spacing=plans.spacing,
        patch_size=plans.patch_size,
        intensity=plans.intensity[0].model_dump(mode="json"),
    )


def _text(path: Path) -> str:
    try:
        return files.read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--licence {path}: cannot be read ({reason}). Give a text file.") from None


main = commands(
    "Published encoders as ours, ours as theirs, and what a file holds.",
    import_=import_,
    export=export,
    show=show,
    list_=list_,
)
