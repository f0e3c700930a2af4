"""What a plan needs to know of a pretrained encoder, read from its file."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

from pydantic import ValidationError

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.core.geometry import Shape
from swinssl.core.json_model import first_fault
from swinssl.core.text import dimensions
from swinssl.core.workspace import command_words
from swinssl.networks.checkpoints.encoder_file import FIRST_KERNEL, EncoderRecord, blocks_of, read_encoder_header
from swinssl.networks.checkpoints.shipped_encoders import ENCODER_FILE, FOLDER, shipped_names, typed_as
from swinssl.networks.checkpoints.weights_file import check_content
from swinssl.networks.network_plan import PRESETS, SwinEncoderPlan
from swinssl.planning.intensity import describe
from swinssl.planning.target_spacing import show
from swinssl.preprocessing.plans import EncoderReference, Intensity, Plans


@dataclass(frozen=True)
class EncoderFacts:
    """A pretrained encoder, as far as its file describes it; None where it does not.

    Args:
        reference: what the plan keeps of it.
        preset: size of the encoder.
        encoder: its exact form.
        patch_size: (z, y, x) voxels it was trained on.
        intensity: of its pretraining.
    """

    reference: EncoderReference
    preset: str | None = None
    encoder: SwinEncoderPlan | None = None
    patch_size: Shape | None = None
    intensity: Intensity | None = None


def read_encoder_facts(path: Path) -> EncoderFacts:
    """The facts of an encoder file; no tensor is read.

    The keys are those of `EncoderRecord`, all optional. Where the size is not named it is told from the shapes.

    Raises:
        UserError: the file is missing, not safetensors, holds no Swin encoder, or its metadata cannot be read.
    """
    path = Path(path)
    check_content(path)
    record, shapes = read_encoder_header(path)
    if FIRST_KERNEL not in shapes:
        raise UserError(
            f"--init {path}: holds no Swin encoder of ours (no {FIRST_KERNEL}). Convert the checkpoint with "
            "swinssl_weights import."
        )
    if record.encoder is None and record.preset is None:
        record = record.model_copy(update={"preset": _preset_of(shapes)})
    encoder = record.described
    return EncoderFacts(
        reference=EncoderReference(
            sha256=files.sha256_of(path),
            name=encoder_name(path),
            spacing=record.spacing,
            axis_order=encoder.axis_order if encoder is not None else record.axis_order or "zyx",
            place=typed_as(path),
        ),
        preset=record.preset,
        encoder=encoder,
        patch_size=record.patch_size,
        intensity=_intensity(path, record),
    )


def learnt_otherwise(facts: EncoderFacts, plans: Plans) -> tuple[str, ...]:
    """How the images that an encoder was pretrained on differ from what a plan makes of the images, both values each.

    Only what the encoder's file says is compared.
    """
    words = []
    learnt = facts.reference.spacing
    if learnt is not None and any(
        not math.isclose(a, b, rel_tol=1e-3) for a, b in zip(learnt, plans.spacing, strict=True)
    ):
        words.append(f"spacing {show(learnt)} mm (plan: {show(plans.spacing)} mm)")
    if facts.patch_size not in (None, plans.patch_size):
        words.append(f"patch {dimensions(facts.patch_size or ())} (plan: {dimensions(plans.patch_size)})")
    others = [planned for planned in dict.fromkeys(plans.intensity) if planned != facts.intensity]
    if facts.intensity is not None and others:
        words.append(f"intensity {describe(facts.intensity)} (plan: {'; '.join(map(describe, others))})")
    return tuple(words)


def planned_encoder_path(plans: Plans, folder: Path) -> Path:
    """The file of the encoder that the plans in `folder` were made for, known by its hash.

    It is looked for where it was, and at the same place below the workspace and the working directory, so that a
    workspace that moved with its encoders is whole.

    Args:
        plans: with an encoder.
        folder: `<root>/preprocessed/<name>`.

    Raises:
        UserError: it is nowhere there, or another file has taken its place.
    """
    reference = plans.encoder
    assert reference is not None
    changed: Path | None = None
    for path in _places(reference, Path(folder).absolute().parent.parent):
        if path.is_file():
            if files.sha256_of(path) == reference.sha256:
                return path
            changed = changed or path
    what = f"the encoder {reference.name} (SHA-256 {reference.sha256[:12]})"
    place = reference.place or f"{reference.name}.safetensors"
    if changed is not None:
        found = f"and {changed} has changed since. Use it with this plan by --init {typed_as(changed)}, "
    else:
        found = f"which is not at {place} any more. Give its file with --init, "
    raise UserError(
        f"{folder}: the plan was made for {what}, {found}plan anew with {command_words('swinssl_plan', folder)} "
        "--init ENCODER, or train without it: --init scratch."
    )


def _places(reference: EncoderReference, root: Path) -> Iterator[Path]:
    """Where the file of an encoder can be, the likeliest first."""
    place = PurePath(reference.place or reference.name)
    if str(place) in shipped_names():
        yield FOLDER / f"{place}.safetensors"
    if reference.place is None:  # a plan of swinssl 0.1.0, which knows a name only
        run = root / "results" / "pretraining" / reference.name.removesuffix("_best")
        yield run / ("encoder_best.safetensors" if reference.name.endswith("_best") else ENCODER_FILE)
        place = PurePath(f"{reference.name}.safetensors")
    if place.is_absolute():
        yield Path(place)
    parts = place.parts[1:] if place.is_absolute() else place.parts
    for base in (root, Path.cwd()):
        yield from (base.joinpath(*parts[start:]) for start in range(len(parts)))


def encoder_name(path: Path) -> str:
    """What an encoder is called: its file, with its folder where the file is called like those of other runs."""
    folder, found = path.resolve().parent.name, re.fullmatch("encoder(_best)?", path.stem)
    return f"{folder}{found[1] or ''}" if found else path.stem


def _intensity(path: Path, record: EncoderRecord) -> Intensity | None:
    if record.intensity is None:
        return None
    try:
        return Intensity.model_validate(record.intensity)
    except ValidationError as error:
        raise UserError(f"{path}: its intensity: {first_fault(error)}. Export the encoder again.") from None


def _preset_of(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The preset of these tensors; the first, where several differ only in what a patch is cut to."""
    width = shapes[FIRST_KERNEL][0]
    depths = tuple(blocks_of(shapes, stage) for stage in range(4))
    found = [n for n, plan in PRESETS.items() if plan.embed_dim == width and plan.depths == depths]
    return found[0] if found else None
