"""Start a segmentor from a pretrained encoder, and say tensor by tensor what was taken."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from swinssl.errors import UserError
from swinssl.networks.swin_encoder import SwinEncoder
from swinssl.networks.weights_file import read_weights

FIRST_KERNEL = "patch_embed.proj.weight"
# Most names that a report or a refusal lists.
NAMED = 5


@dataclass(frozen=True)
class TransferReport:
    """Names of the tensors that were taken as they are, adapted, missing from the file, or not wanted from it."""

    matched: tuple[str, ...]
    adapted: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]

    def __str__(self) -> str:
        counts = (
            f"{len(self.matched)} tensors matched, {len(self.adapted)} adapted, "
            f"{len(self.missing)} missing, {len(self.unexpected)} unexpected"
        )
        kinds = {"adapted": self.adapted, "missing": self.missing, "unexpected": self.unexpected}
        return "; ".join([counts, *(f"{kind}: {_listed(names)}" for kind, names in kinds.items() if names)])


def load_encoder(network: nn.Module, path: Path) -> TransferReport:
    """Copy the encoder of a safetensors file into `network.encoder`.

    The file holds an encoder's own tensors, or a whole segmentor's (`encoder.` before each name). Another number of
    input channels is adapted so that the response to equal channels stays the same. The transformer blocks must be
    the network's own, all of them: half an encoder that nobody asked for looks like a pretrained one and is none.

    Args:
        network: a segmentor with a Swin encoder; changed in place, and only if the file fits.

    Raises:
        UserError: the network has no Swin encoder, the file cannot be read, or its blocks are others.
    """
    encoder = getattr(network, "encoder", None)
    if not isinstance(encoder, SwinEncoder):
        raise UserError(f"--init {path}: the chosen network has no Swin encoder. Train it from scratch.")
    tensors, _ = read_weights(path)
    if any(name.startswith("encoder.") for name in tensors):
        tensors = {name.removeprefix("encoder."): t for name, t in tensors.items() if name.startswith("encoder.")}
    wanted: dict[str, Tensor] = encoder.state_dict()
    adapted: tuple[str, ...] = ()
    if _differs_in_channels(tensors.get(FIRST_KERNEL), wanted[FIRST_KERNEL]):
        tensors[FIRST_KERNEL] = _with_channels(tensors[FIRST_KERNEL], wanted[FIRST_KERNEL].shape[1])
        adapted = (FIRST_KERNEL,)
    fitting = {name for name, here in wanted.items() if name in tensors and tensors[name].shape == here.shape}
    _refuse_other_blocks(path, tensors, wanted, fitting)
    encoder.load_state_dict({name: tensors[name] if name in fitting else here for name, here in wanted.items()})
    return TransferReport(
        matched=tuple(name for name in wanted if name in fitting and name not in adapted),
        adapted=adapted,
        missing=tuple(name for name in wanted if name not in fitting),
        unexpected=tuple(sorted(set(tensors) - set(wanted))),
    )


def _refuse_other_blocks(path: Path, tensors: dict[str, Tensor], wanted: dict[str, Tensor], fitting: set[str]) -> None:
    """Raise unless the transformer blocks of the file are those of the encoder."""
    here = {name for name in wanted if ".blocks." in name}
    there = {name for name in tensors if ".blocks." in name}
    misfits = sorted(here ^ there) + sorted((here & there) - fitting)
    if not misfits:
        return
    remedy = "Choose the --preset that the file was trained with, or convert the file with swinssl_weights import."
    if not here & fitting:
        raise UserError(f"--init {path}: no transformer block fits this encoder. {remedy}")
    raise UserError(
        f"--init {path}: its transformer blocks are not this encoder's; {len(misfits)} tensors have another shape or "
        f"are in one of the two only ({_listed(misfits)}). {remedy}"
    )


def _differs_in_channels(there: Tensor | None, here: Tensor) -> bool:
    """Whether two first kernels (C, in, 2, 2, 2) differ in `in` and in nothing else."""
    if there is None or there.ndim != here.ndim or there.shape[1] == 0:
        return False
    return there.shape[1] != here.shape[1] and (there.shape[0], *there.shape[2:]) == (here.shape[0], *here.shape[2:])


def _with_channels(kernel: Tensor, channels: int) -> Tensor:
    """The first kernel (C, in, 2, 2, 2) for another number of input channels, the sum over inputs kept."""
    return kernel.sum(1, keepdim=True).repeat(1, channels, 1, 1, 1) / channels


def _listed(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(names[:NAMED]) + (" ..." if len(names) > NAMED else "")
