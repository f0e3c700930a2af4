"""The interface of a pretraining method: its views, its heads on the encoder, its loss.

Neither this module nor a method's file imports torch at its top level, so that commands start fast.
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
    """Form of the images that a run reads.

    Args:
        patch_size: (z, y, x) voxels of a crop.
        spacing: (z, y, x) in mm.
        channels: number of image channels.
        mean: mean intensity over crops and channels; reconstruction heads start from it.
    """

    patch_size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    channels: int
    mean: float = 0.0


@dataclass(frozen=True)
class MethodOutput:
    """Result of a method's step.

    Args:
        losses: (B,) loss of each sample.
        terms: (B,) unweighted terms of the loss, by name, for the log.
        measures: other numbers for the log, each a mean over the samples.
    """

    losses: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    measures: Mapping[str, float] = field(default_factory=dict)


class Method(ABC):
    """One pretext task.

    Attributes:
        name, summary: from its row in the registry; `load_method` sets them.
        Options: options of the command, one per field.
        views: number of crops per sample; two crops come from a common region.
        masks: whether the encoder gets a mask token.
        teacher_heads: heads that the teacher also has; empty without a teacher.
        centres: heads whose teacher logits are centred.
        clip, clip_per: default gradient clipping, as the method's authors use it.
        least_batch: smallest number of samples that the loss can compare.
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
        """Number of images per sample that the network sees: crops, or several versions of one crop."""
        return self.views

    @property
    def feature_level(self) -> Literal["stage4", "merge3"]:
        """The map at 1/16 whose tokens the heads read."""
        return getattr(self.options, "tap", "stage4")

    @abstractmethod
    def prepare(self, crops: Crops, rng: KeyedRng) -> dict[str, NDArray]:
        """The inputs and targets of one sample; runs in reader threads.

        Args:
            crops: (views, C, Z, Y, X).
            rng: the sample's keyed generator; take every random choice from it.

        Returns:
            Arrays by name, views first: `images` (V, C, Z, Y, X); `mask` (V, Z/2, Y/2, X/2) if tokens are masked;
            and whatever else `losses` needs.
        """

    @abstractmethod
    def heads(self, encoder: SwinEncoder) -> dict[str, nn.Module]:
        """New heads for `encoder`, by name."""

    @abstractmethod
    def losses(self, student: PretextNetwork, batch: Batch, context: StepContext) -> MethodOutput:
        """The loss of each sample; called with gradient, under autocast."""

    def reconstructed(self, student: PretextNetwork, batch: Batch) -> dict[str, Tensor]:
        """Volumes (B * V, C, Z, Y, X) by title, for the picture beside the image; empty without reconstruction."""
        return {}
