"""Networks with their plans: segment a volume as read, a stored case, or an image on the plan's grid."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from numpy.typing import NDArray
from torch import nn

from swinssl.core.devices import use_bf16
from swinssl.core.errors import UserError
from swinssl.core.geometry import Shape
from swinssl.core.machine import free_memory
from swinssl.imageio.volume import Volume
from swinssl.inference.argmax import decide, winners
from swinssl.inference.export import Segmentation, export
from swinssl.inference.postprocessing import postprocess
from swinssl.inference.sliding_window import Slab, SlidingWindow
from swinssl.inference.source_grid import SourceGrid
from swinssl.networks.folded_norm import with_folded_norms
from swinssl.preprocessing.plans import Plans
from swinssl.preprocessing.prepared_volume import prepare

logger = logging.getLogger(__name__)


# Fraction of the free memory for the sums over windows; images and label maps of two cases need the rest.
SUMS_SHARE = 0.5
# Windows per forward pass. One keeps a CPU busy; a GPU needs several, and fewer are used if they do not fit.
GPU_BATCH = 4


@dataclass(frozen=True, eq=False)
class Predictor:
    """Segments with one network or with the mean of several.

    Args:
        windows: the networks and their sliding window.
        plans: how volumes are prepared and what the networks' outputs mean.
        sum_bytes: memory limit for the sums over windows; a volume that needs more is processed in strips, which gives
            the same result and takes longer. None sets no limit.
        postprocessing: groups of structures that keep only their largest component, in order (`TrainedModel.predictor`
            gives those for which the training measured a gain). It applies to label maps on the grid of a file, not to
            probabilities or label maps on the plan's grid.
    """

    windows: SlidingWindow
    plans: Plans
    sum_bytes: int | None = None
    postprocessing: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def of(
        cls,
        networks: Sequence[nn.Module],
        plans: Plans,
        *,
        device: torch.device,
        overlap: float = 0.5,
        mirror: bool = False,
        postprocessing: tuple[tuple[str, ...], ...] = (),
        bf16: bool | None = None,
    ) -> Predictor:
        """A predictor with networks that are on `device` and in evaluation mode.

        On a CPU the sums may take half of the memory that is free now. A GPU raises an error when it runs out.

        Args:
            overlap: minimum fraction of a window that its neighbour shares, in [0, 0.9].
            mirror: average over mirror images along the plans' `mirror_axes`.
            postprocessing: as in the class; `TrainedModel.predictor` passes that of the model.
            bf16: compute in bfloat16; by default if the hardware has instructions for it.
        """
        windows = SlidingWindow(
            [with_folded_norms(network) for network in networks],
            plans.patch_size,
            device,
            overlap=overlap,
            mirror_axes=plans.training.mirror_axes if mirror else (),
            batch_size=1 if device.type == "cpu" else GPU_BATCH,
            bf16=use_bf16(device, "auto") if bf16 is None else bf16,
        )
        limit = int(SUMS_SHARE * free_memory()) if device.type == "cpu" else None
        return cls(windows, plans, limit, postprocessing)

    def window_count(self, shape: Shape) -> int:
        """Number of windows for a volume of `shape` voxels on the plan's grid."""
        return self.windows.count(shape, strips=self._strips(shape))

    def predict(
        self, volume: Volume, *, probabilities: bool = False, on_windows: Callable[[int], None] | None = None
    ) -> Segmentation:
        """Segment a volume as read; the result is on its grid.

        Args:
            volume: (C, Z, Y, X), finite, channels in the order of the plans.
            probabilities: also return probabilities.
            on_windows: called with the number of windows just computed.
        """
        prepared = prepare(volume, self.plans)
        source_grid = SourceGrid.of(prepared)
        return self.segment(prepared.image, source_grid, probabilities=probabilities, on_windows=on_windows)

    def segment(
        self,
        image: NDArray,
        source_grid: SourceGrid,
        *,
        probabilities: bool = False,
        on_windows: Callable[[int], None] | None = None,
    ) -> Segmentation:
        """Segment an image on the plan's grid, (C, Z, Y, X) float32; the result is on the grid of its file."""
        slabs = self._slabs(image, on_windows=on_windows)
        segmentation = export(slabs, source_grid, self.plans.labels, probabilities=probabilities)
        postprocess(segmentation.label_map, self.postprocessing, self.plans.labels)
        return segmentation

    def segment_on_grid(self, image: NDArray) -> NDArray:
        """Segment an image on the plan's grid; the result is on the same grid.

        Args:
            image: (C, Z, Y, X) float32, as stored.

        Returns:
            (Z, Y, X) index of the winning structure (0 background, i + 1 structure i of `labels.names`) for exclusive
            labels; (R, Z, Y, X) booleans for regions.
        """
        labels = self.plans.labels
        decided: torch.Tensor | None = None
        for slab in self._slabs(image):
            codes = decide(slab.logits, labels)
            if decided is None:
                decided = torch.empty(image.shape[1:], dtype=codes.dtype, device=codes.device)
            slab.place_in(decided).copy_(codes)
        assert decided is not None
        return winners(decided, labels)

    def _slabs(self, image: NDArray, *, on_windows: Callable[[int], None] | None = None) -> Iterator[Slab]:
        shape: Shape = image.shape[1:]
        strips = self._strips(shape)
        if strips > 1:
            whole, in_strips = self.windows.count(shape), self.window_count(shape)
            logger.info(
                "The sums over windows need %.1f GB, and %.1f GB are available: processing %d strips, with %.0f %% "
                "more windows.",
                self.windows.sum_bytes(shape, self.plans.labels.num_outputs) / 1e9,
                (self.sum_bytes or 0) / 1e9,
                strips,
                100 * (in_strips / whole - 1),
            )
        return map(_finite, self.windows.slabs(image, strips=strips, on_windows=on_windows))

    def _strips(self, shape: Shape) -> int:
        if self.sum_bytes is None:
            return 1
        return math.ceil(self.windows.sum_bytes(shape, self.plans.labels.num_outputs) / max(1, self.sum_bytes))


def _finite(slab: Slab) -> Slab:
    """The slab, unless it contains a NaN or infinite logit: the argmax of such logits would silently be background."""
    if not bool(torch.isfinite(slab.logits.sum())):  # one pass; useful logits are far too small to overflow the sum
        raise UserError(
            "the network's output contains NaN or infinite values. Check the model with swinssl_model verify; if it "
            "refuses the model, train it again."
        )
    return slab
