"""Pretrained encoders as modules, and what there is to choose from: encoders, pretraining methods, network sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from swinssl.api.images import PathLike
from swinssl.core.devices import select_device
from swinssl.core.errors import UserError
from swinssl.core.geometry import Shape, Spacing
from swinssl.networks.checkpoints.encoder_file import FIRST_KERNEL, read_encoder_header
from swinssl.networks.checkpoints.encoder_transfer import load_encoder as fill_encoder
from swinssl.networks.checkpoints.shipped_encoders import SHIPPED, encoder_path, shipped_names
from swinssl.networks.network_plan import PRESETS, AxisOrder, SwinEncoderPlan
from swinssl.networks.swin.encoder import DIVISOR, SwinEncoder
from swinssl.planning.encoder_facts import read_encoder_facts
from swinssl.preprocessing.plans import Intensity


@dataclass(frozen=True)
class EncoderInfo:
    """A pretrained encoder, as far as its file describes it; None where it does not. Every triple is (z, y, x).

    Attributes:
        name: of the shipped encoder, or of the file.
        file: where it is.
        preset: name of its size.
        channels: of the images.
        widths: channels of the five feature maps.
        parameters: how many numbers it has.
        spacing: mm of the images that it was pretrained on.
        patch_size: voxels of the crops that it was pretrained on.
        intensity: how these were normalised; every scheme but z-score ends in [0, 1].
        window: edge of the attention windows, in tokens of the map.
        axis_order: of the arrays that its weights were trained on. The encoder turns its input and its maps itself, so
            that arrays outside it are always (z, y, x).
        modality, body_part, images, licence: of the images, for a shipped encoder.
        source: method that made it, or whose file it was made from.
    """

    name: str
    file: Path
    preset: str | None
    channels: int
    widths: tuple[int, ...]
    parameters: int
    spacing: Spacing | None
    patch_size: Shape | None
    intensity: Intensity | None
    window: int
    axis_order: AxisOrder
    source: str | None = None
    modality: str | None = None
    body_part: str | None = None
    images: str | None = None
    licence: str | None = None


@dataclass(frozen=True)
class MethodInfo:
    """A pretraining method.

    Attributes:
        name: as `pretrain` takes it.
        summary: what it does, in a sentence.
        command: that runs it.
        options: default of each option of its own.
    """

    name: str
    summary: str
    command: str
    options: dict[str, object]


@dataclass(frozen=True)
class PresetInfo:
    """A network size.

    Attributes:
        name: as `--preset` and `PlanOptions(preset=...)` take it.
        embed_dim: channels after the patch embedding.
        depths, heads: transformer blocks and attention heads of the four stages.
        window: edge of the attention windows, in tokens.
        parameters: of the encoder, for images of one channel.
    """

    name: str
    embed_dim: int
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]
    window: int
    parameters: int


class Encoder(nn.Module):
    """A pretrained Swin encoder; made by `load_encoder`, in evaluation mode.

    Attributes:
        info: what its file says of it.
        swin: the network itself.
    """

    def __init__(self, swin: SwinEncoder, info: EncoderInfo) -> None:
        super().__init__()
        self.swin, self.info = swin, info

    def forward(self, image: Tensor) -> list[Tensor]:
        """Five feature maps of images whose voxels and intensities are like those of `info`.

        Args:
            image: (B, C, Z, Y, X) float, C = `info.channels`, at `info.spacing`, normalised as `info.intensity` says;
                every edge is a multiple of 32.

        Returns:
            Maps (B, `info.widths[i]`, Z / 2**(i+1), Y / 2**(i+1), X / 2**(i+1)) for i = 0 ... 4: from half the
            resolution to a thirty-second, each normalised over its channels. Axes are those of `image`.

        Raises:
            ValueError: an edge is not a multiple of 32, or C is another number.
        """
        if image.ndim != 5 or image.shape[1] != self.info.channels or any(edge % DIVISOR for edge in image.shape[2:]):
            raise ValueError(
                f"image of the shape {tuple(image.shape)}; expected (B, {self.info.channels}, Z, Y, X) with edges that "
                f"are multiples of {DIVISOR}"
            )
        maps: list[Tensor] = self.swin(image)
        return maps


def load_encoder(name_or_path: PathLike, *, channels: int | None = None, device: str = "cpu") -> Encoder:
    """Load a pretrained encoder: its five feature maps are what its `forward` gives.

    Args:
        name_or_path: a shipped name (`list_encoders`), or a file that pretraining or `swinssl_weights import` wrote.
        channels: of the images; by default as pretrained. For another number the first layer is adapted so that the
            response to equal channels stays the same.
        device: as of `load_model`.

    Raises:
        UserError: there is no such file or name, or it holds no Swin encoder whose form is known.

    >>> import swinssl, torch
    >>> encoder = swinssl.load_encoder("tiny_smit_headneck_ct")
    >>> with torch.no_grad():
    ...     maps = encoder(torch.zeros(1, 1, 32, 64, 64))
    >>> [tuple(m.shape) for m in maps[:2]]
    [(1, 16, 16, 32, 32), (1, 32, 8, 16, 16)]
    """
    path = encoder_path(Path(name_or_path))
    plan = _plan_of(path)
    info = _info(str(name_or_path), path, plan)
    swin = SwinEncoder(plan, in_channels=channels or info.channels)
    holder = nn.Module()
    holder.encoder = swin
    report = fill_encoder(holder, path, remedy="Load the encoder from the file that pretraining wrote.")
    if report.missing:
        raise UserError(f"{path}: lacks {', '.join(report.missing)}. Give a whole encoder, or convert it again.")
    if channels is not None:
        info = replace(info, channels=channels)
    return Encoder(swin, info).eval().to(select_device(device))


def list_encoders() -> list[EncoderInfo]:
    """The encoders that come with swinssl.

    >>> import swinssl
    >>> [encoder.name for encoder in swinssl.list_encoders()]
    ['tiny_smit_headneck_ct']
    """
    return [_info(name, path, _plan_of(path)) for name in shipped_names() for path in [encoder_path(name)]]


def list_methods() -> list[MethodInfo]:
    """The pretraining methods, in the order of the commands' list.

    >>> import swinssl
    >>> [method.name for method in swinssl.list_methods()][:3]
    ['simmim', 'inpainting', 'reconstruction']
    """
    from swinssl.ssl.methods.registry import METHODS, load_method

    return [
        MethodInfo(
            name=name,
            summary=entry.summary,
            command=f"swinssl_pretrain_{name}",
            options=load_method(name).Options().model_dump(),
        )
        for name, entry in METHODS.items()
    ]


def list_presets() -> list[PresetInfo]:
    """The network sizes, the smallest first.

    >>> import swinssl
    >>> [preset.name for preset in swinssl.list_presets()]
    ['tiny', 'small', 'smit96', 'smit128', 'smits', 'smitp']
    """
    return [
        PresetInfo(
            name=name,
            embed_dim=plan.embed_dim,
            depths=plan.depths,
            heads=plan.heads,
            window=plan.window,
            parameters=_parameters(plan),
        )
        for name, plan in PRESETS.items()
    ]


def _parameters(plan: SwinEncoderPlan) -> int:
    import torch

    with torch.device("meta"):
        return sum(weight.numel() for weight in SwinEncoder(plan, in_channels=1).parameters())


def _plan_of(path: Path) -> SwinEncoderPlan:
    facts = read_encoder_facts(path)
    if facts.encoder is None:
        raise UserError(
            f"{path}: does not say which form its encoder has. Convert the checkpoint with swinssl_weights import."
        )
    return facts.encoder


def _info(name: str, path: Path, plan: SwinEncoderPlan) -> EncoderInfo:
    facts = read_encoder_facts(path)
    record, shapes = read_encoder_header(path)
    about = SHIPPED.get(path.stem) if path.stem in shipped_names() and path == encoder_path(path.stem) else None
    return EncoderInfo(
        name=name if about is not None else facts.reference.name,
        file=path,
        preset=facts.preset,
        channels=shapes[FIRST_KERNEL][1],
        widths=tuple(plan.embed_dim * 2**level for level in range(5)),
        parameters=sum(map(math.prod, shapes.values())),
        spacing=facts.reference.spacing,
        patch_size=facts.patch_size,
        intensity=facts.intensity,
        window=plan.window,
        axis_order=plan.axis_order,
        source=record.source,
        modality=None if about is None else about.modality,
        body_part=None if about is None else about.body_part,
        images=None if about is None else about.images,
        licence=None if about is None else about.licence,
    )
