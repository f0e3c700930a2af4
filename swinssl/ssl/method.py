"""What a pretraining method is: which views it draws, which heads it puts on the encoder, its loss.

No torch here nor at the head of a method's file, so that commands start fast.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from swinssl.core.rng import KeyedRng

if TYPE_CHECKING:
    from torch import Tensor, nn

    from swinssl.networks.swin.encoder import SwinEncoder
    from swinssl.ssl.parts.batch import Batch, StepContext
    from swinssl.ssl.parts.pretext_network import PretextNetwork

Crops = NDArray[np.float32]


@dataclass(frozen=True)
class Images:
    """The images that a run reads.

    Args:
        patch_size: voxels (z, y, x) of a crop.
        spacing: mm (z, y, x) of a voxel.
        channels: of an image.
        mean: intensity of a crop, over channels; what painters start from.
    """

    patch_size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    channels: int
    mean: float = 0.0


@dataclass(frozen=True)
class MethodOutput:
    """What a step of a method gave.

    Args:
        losses: (B,) of each sample.
        terms: (B,) parts of the loss by name, without their weights, for the log.
        measures: other numbers for the log, means over the samples.
    """

    losses: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    measures: Mapping[str, float] = field(default_factory=dict)


class Method(ABC):
    """One pretext task.

    Attributes:
        name, summary: of its row in the registry, set by `load_method`.
        Options: what a user may choose; each field becomes an option of the command.
        views: crops of a sample; two come out of a common region.
        masks: whether the encoder needs a token that stands for what is masked.
        teacher_heads: heads that a teacher has too; none means that there is no teacher.
        centres: heads whose teacher logits are centred.
        clip, clip_per: gradient clipping that the method's authors use, where a user does not choose.
        least_batch: samples without which there is nothing to learn.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    Options: ClassVar[type[BaseModel]]
    views: ClassVar[int] = 1
    masks: ClassVar[bool] = False
    teacher_heads: ClassVar[tuple[str, ...]] = ()
    centres: ClassVar[tuple[str, ...]] = ()
    clip: ClassVar[float] = 5.0
    clip_per: ClassVar[Literal["network", "tensor"]] = "network"
    least_batch: ClassVar[int] = 1

    def __init__(self, options: Any, images: Images) -> None:
        self.options, self.images = options, images

    @property
    def seen_views(self) -> int:
        """Views of a sample that the network sees; of one crop it may be several versions."""
        return self.views

    @property
    def feature_level(self) -> Literal["stage4", "merge3"]:
        """Which map at 1/16 heads on tokens read."""
        return getattr(self.options, "tap", "stage4")

    @abstractmethod
    def prepare(self, crops: Crops, rng: KeyedRng) -> dict[str, NDArray]:
        """What the network sees of one sample, and what it is to find out; runs in reader threads.

        Args:
            crops: (views, C, Z, Y, X).
            rng: of the sample; every random choice comes from it.

        Returns:
            Arrays by name, views first: `images` (V, C, Z, Y, X); `mask` (V, Z/2, Y/2, X/2) if tokens are masked;
            and whatever else `losses` needs.
        """

    @abstractmethod
    def heads(self, encoder: SwinEncoder) -> dict[str, nn.Module]:
        """New heads by name."""

    @abstractmethod
    def losses(self, student: PretextNetwork, batch: Batch, context: StepContext) -> MethodOutput:
        """The loss of each sample."""

    def reconstructed(self, student: PretextNetwork, batch: Batch) -> dict[str, Tensor]:
        """For the picture: (B * V, C, Z, Y, X) volumes by title, beside the image; none where it paints nothing."""
        return {}
