"""Start a segmentor from a pretrained encoder, and say tensor by tensor what was taken."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from swinssl.core.errors import UserError
from swinssl.core.text import listed
from swinssl.networks.checkpoints.encoder_file import EncoderRecord, encoder_part
from swinssl.networks.checkpoints.weight_adaptation import FIRST_KERNEL, adapt
from swinssl.networks.checkpoints.weights_file import read_weights, refuse_unusable
from swinssl.networks.network_plan import SwinEncoderPlan
from swinssl.networks.swin.encoder import SwinEncoder

# What the tensors do not show, and the numbers depend on.
UNSEEN = ("merge_order", "axis_order", "skip_taps", "shrink_window", "legacy_bias_index", "mask_padding")
REMEDY = (
    "Plan for this encoder (swinssl_plan DATASET --init ENCODER, without --preset), or convert the file with "
    "swinssl_weights import."
)
# Most names that a report or a refusal lists.
NAMED = 5


@dataclass(frozen=True)
class TransferReport:
    """Names of the tensors that were taken as they are, adapted, missing from the file, or not wanted from it.

    Left out is what often stands beside an encoder and is none of it: a decoder, heads, buffers.
    """

    matched: tuple[str, ...]
    adapted: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        counts = (
            f"{len(self.matched)} tensors matched, {len(self.adapted)} adapted, "
            f"{len(self.missing)} missing, {len(self.unexpected)} unexpected"
        )
        kinds = {"adapted": self.adapted, "missing": self.missing, "unexpected": self.unexpected}
        others = [f"{len(self.left_out)} of other parts left out"] if self.left_out else []
        return "; ".join([counts, *others, *(f"{kind}: {listed(names)}" for kind, names in kinds.items() if names)])


def load_encoder(network: nn.Module, path: Path, *, remedy: str = REMEDY) -> TransferReport:
    """Copy the encoder of a safetensors file into `network.encoder`.

    The file holds an encoder's own tensors, or a whole segmentor's (`encoder.` before each name). Another number of
    input channels is adapted so that the response to equal channels stays the same, another window by interpolation.
    The transformer blocks must be the network's own, all of them: half an encoder that nobody asked for looks like a
    pretrained one and is none.

    Args:
        network: a segmentor with a Swin encoder; changed in place, and only if the file fits.
        remedy: what the user does where it does not.

    Raises:
        UserError: the network has no Swin encoder, the file cannot be read, its blocks are others, or they were
            trained in a network that computes otherwise.
    """
    encoder = getattr(network, "encoder", None)
    if not isinstance(encoder, SwinEncoder):
        raise UserError(f"--init {path}: the chosen network has no Swin encoder. Train it from scratch.")
    tensors, metadata = read_weights(path)
    there = EncoderRecord.from_metadata(path, metadata).encoder
    if there is not None:
        _refuse_other_arithmetic(path, there, encoder.plan, remedy)
    wanted: dict[str, Tensor] = encoder.state_dict()
    own = encoder_part(tensors)
    another = "The encoder is damaged, or its pretraining failed: give another one, or an earlier checkpoint."
    refuse_unusable(path, {name: own[name] for name in wanted if name in own}, remedy=another)
    tensors, adapted = adapt(own, in_channels=wanted[FIRST_KERNEL].shape[1], window=encoder.plan.window)
    fitting = {name for name, here in wanted.items() if name in tensors and tensors[name].shape == here.shape}
    _refuse_other_blocks(path, tensors, wanted, fitting, remedy)
    encoder.load_state_dict({name: tensors[name] if name in fitting else here for name, here in wanted.items()})
    return TransferReport(
        matched=tuple(name for name in wanted if name in fitting and name not in adapted),
        adapted=tuple(name for name in adapted if name in fitting),
        missing=tuple(name for name in wanted if name not in fitting),
        unexpected=tuple(sorted(set(tensors) - set(wanted))),
    )


def _refuse_other_arithmetic(path: Path, there: SwinEncoderPlan, here: SwinEncoderPlan, remedy: str) -> None:
    """Raise where the file's numbers would mean something else in this network, though every shape agrees."""
    others = [name for name in UNSEEN if getattr(there, name) != getattr(here, name)]
    if others:
        said = ", ".join(f"{name} {getattr(there, name)} (plan: {getattr(here, name)})" for name in others)
        raise UserError(
            f"--init {path}: was trained with {said}; here its weights would compute something else. {remedy}"
        )
    if there.window != here.window:
        refuse_window_change(path, there)


def refuse_window_change(path: Path, plan: SwinEncoderPlan) -> None:
    """Raise where an encoder's bias tables are no function of the offset.

    MONAI reads the table of a shrunken window at rows that belong to other offsets, so training made of it something
    that cannot be interpolated.
    """
    if plan.legacy_bias_index:
        raise UserError(
            f"{path}: keep window {plan.window}. Its bias tables were trained with MONAI's index, which in shrunken "
            "windows is not that of the geometry, so they cannot be interpolated for another window."
        )


def _refuse_other_blocks(
    path: Path, tensors: dict[str, Tensor], wanted: dict[str, Tensor], fitting: set[str], remedy: str
) -> None:
    """Raise unless the transformer blocks of the file are those of the encoder."""
    here = {name for name in wanted if ".blocks." in name}
    there = {name for name in tensors if ".blocks." in name}
    misfits = sorted(here ^ there) + sorted((here & there) - fitting)
    if not misfits:
        return
    if not here & fitting:
        raise UserError(f"--init {path}: no transformer block fits this encoder. {remedy}")
    raise UserError(
        f"--init {path}: its transformer blocks are not this encoder's; {len(misfits)} tensors have another shape or "
        f"are in one of the two only ({listed(misfits, most=NAMED)}). {remedy}"
    )
