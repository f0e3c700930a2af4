"""What the tumour sampler keeps of a case, so that its label is read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swinssl.preprocessing.store import PreprocessedCase
from swinssl.training.body import Body
from swinssl.training.tumour_windows import StartSet, lesions, tumour_free_starts
from swinssl.training.window import StartRange, Triple, kept_places, random_start, start_ranges

# A tumour-free window hangs over the volume as a tumour's would, up to the last of these shares of its edge, so that
# padding does not tell the two apart. Where that leaves none, it hangs over by the least of them that leaves any.
FREE_OVERHANGS = (0.0, 0.25, 0.5)
MATCHING_TRIES = 20


@dataclass(frozen=True, eq=False)
class TumourCase:
    """Of one case, what sampling needs; a few hundred kilobytes.

    Args:
        lesions: per tumour structure that the case has, the voxels of each lesion.
        free: the tumour-free starts, with the largest overhang.
        least_overhanging: those with the least overhang that leaves any.
        body: where the case is not bare air.
    """

    lesions: Sequence[Sequence[NDArray[np.int64]]]
    free: StartSet
    least_overhanging: StartSet
    body: Body

    @classmethod
    def of(cls, case: PreprocessedCase, codes: Sequence[Sequence[int]], patch_size: Triple) -> TumourCase:
        """Reads the case once.

        Args:
            codes: of each tumour structure that the case has.
        """
        label = case.label()
        name = case.properties.case_id
        kept = [
            [
                kept_places(lesion, f"places of lesion {structure}.{number} in {name}")
                for number, lesion in enumerate(lesions(np.isin(label, own)))
            ]
            for structure, own in enumerate(codes)
        ]
        tumour = np.isin(label, [code for own in codes for code in own])
        free = [
            tumour_free_starts(tumour, patch_size, start_ranges(case.shape, patch_size, overhang=overhang))
            for overhang in FREE_OVERHANGS
        ]
        least = next((starts for starts in free if len(starts)), free[-1])
        return cls(kept, free[-1], least, Body.of(case))

    def free_start(self, chance: np.random.Generator, ranges: Sequence[StartRange]) -> Triple:
        """A tumour-free start, in `ranges` if several tries find one there."""
        for _ in range(MATCHING_TRIES):
            start = random_start(chance, ranges)
            if start in self.free:
                return start
        return self.least_overhanging.draw(chance)
