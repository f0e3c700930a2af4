"""Which patch a training step sees: organs class by class, tumours and their absence one to one.

A draw depends on (seed, its index over the whole run) and on the cases, so that ranks, readers and resumed runs agree.
docs/sampling-and-augmentation.md has the reasons and the measurements.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinssl.core.errors import UserError
from swinssl.core.geometry import Shape
from swinssl.core.rng import KeyedRng, generator
from swinssl.core.text import dimensions
from swinssl.dataset.labels import LabelSet
from swinssl.preprocessing.plans import Plans
from swinssl.preprocessing.store import PreprocessedCase
from swinssl.training.sampling.foreground_map import ForegroundMap
from swinssl.training.sampling.tumour_windows import FREE_OVERHANGS, TumourCase, WindowStarts, least_tumour_starts
from swinssl.training.sampling.window import StartRange, kept_places, random_start, start_ranges, start_showing

logger = logging.getLogger(__name__)

# A tumour's window may hang over the volume as far as it must for the tumour to be at every place equally often.
TUMOUR_OVERHANG = 1.0
# One organ draw in three looks anywhere; nnU-Net looks anywhere in two of three, with far fewer classes on its mind.
ANYWHERE_ONE_IN = 3


@dataclass(frozen=True)
class Patch:
    """A window of the plan's patch size.

    Args:
        case_id: the case that it lies in.
        start: its first voxel (z, y, x) on the stored grid; negative, or too near the end, where it hangs over.
        shows_tumour: whether tumour was asked for or its absence, where sampling is about that; augmentation keeps it.
    """

    case_id: str
    start: Shape
    shows_tumour: bool | None = None


def make_sampler(cases: Mapping[str, PreprocessedCase], plans: Plans) -> OrganSampler | TumourSampler:
    """The sampler that the plans ask for, over the annotated ones of `cases`.

    Raises:
        UserError: no case is annotated, or none has a voxel of what is to be sampled.
    """
    annotated = {case_id: cases[case_id] for case_id in sorted(cases) if cases[case_id].properties.annotated}
    if not annotated:
        raise UserError(
            f"{plans.dataset_name}: none of the {len(cases)} training cases has a label. Put label files into labelsTr "
            "and run swinssl_preprocess again."
        )
    return (TumourSampler if plans.training.sampling == "tumour" else OrganSampler)(annotated, plans)


class OrganSampler:
    """A structure first, then a case that has it, then a voxel of it, at a random place inside the patch.

    A rare structure is thus seen as often as a common one. Of every three draws, one (at random) is a window anywhere
    in any case. Windows hang over the volume only where it is smaller than the patch.
    """

    def __init__(self, cases: Mapping[str, PreprocessedCase], plans: Plans) -> None:
        self._cases = cases
        self._patch_size = plans.patch_size
        self._codes = dict(zip(plans.labels.names, plans.labels.structure_codes, strict=True))
        self._having = {name: [i for i, case in cases.items() if _has(case, name)] for name in plans.labels.names}
        self._structures = [name for name, having in self._having.items() if having]
        if not self._structures:
            raise UserError(_nothing_to_sample(plans, plans.labels.names))
        self._places: dict[tuple[str, str], NDArray[np.int64]] = {}
        self._foreground_maps: dict[str, ForegroundMap] = {}

    def locate(self, rng: KeyedRng, *, batch_size: int) -> Patch:
        """The patch of one draw.

        Args:
            batch_size: samples a step over all ranks; with it the draw knows its index over the run.
        """
        triple, position = divmod(rng.step * batch_size + rng.sample, ANYWHERE_ONE_IN)
        patch_rng = rng("patch")
        if position == generator(rng.seed, "which draw looks anywhere", triple).integers(ANYWHERE_ONE_IN):
            return self._anywhere(patch_rng)
        name = _choice(patch_rng, self._structures)
        case_id = _choice(patch_rng, self._having[name])
        shape = self._cases[case_id].shape
        voxel = np.unravel_index(_choice(patch_rng, self._places_of(case_id, name)), shape)
        ranges = start_ranges(shape, self._patch_size, overhang=0)
        return Patch(case_id, start_showing(patch_rng, voxel, patch_size=self._patch_size, ranges=ranges))

    def _anywhere(self, rng: np.random.Generator) -> Patch:
        case_id = _choice(rng, list(self._cases))
        ranges = start_ranges(self._cases[case_id].shape, self._patch_size, overhang=0)
        if case_id not in self._foreground_maps:
            self._foreground_maps[case_id] = ForegroundMap.of(self._cases[case_id])
        foreground_map = self._foreground_maps[case_id]
        return Patch(case_id, foreground_map.showing(functools.partial(random_start, rng, ranges), self._patch_size))

    def _places_of(self, case_id: str, name: str) -> NDArray[np.int64]:
        key = (case_id, name)
        if key not in self._places:
            found = [self._cases[case_id].locations(code) for code in self._codes[name]]
            self._places[key] = kept_places(np.concatenate(found), f"places of {name} in {case_id}")
        return self._places[key]


class TumourSampler:
    """Patches with tumour and patches without it, one of each in every pair of draws.

    With: a case that has tumour, a tumour structure of it, a lesion of that, a voxel of the lesion, at a uniformly
    random place inside the patch; small lesions come as often as large ones. Without: a case, then one of its windows
    that show no tumour voxel and hang over the volume as a patch with tumour does, all of these equally likely but for
    those that show bare air.
    """

    def __init__(self, cases: Mapping[str, PreprocessedCase], plans: Plans) -> None:
        self._names = tumour_structures(plans.labels)
        self._codes = dict(zip(plans.labels.names, plans.labels.structure_codes, strict=True))
        self._all_codes = tumour_codes(plans.labels)
        self._cases = cases
        self._patch_size = plans.patch_size
        self._with = [i for i, case in cases.items() if any(_has(case, name) for name in self._names)]
        # Where a tumour structure was not annotated, nobody knows which windows are free of it.
        self._known = [i for i, case in cases.items() if all(_annotates(case, name) for name in self._names)]
        if not self._with:
            raise UserError(_nothing_to_sample(plans, self._names))
        if not self._known:
            self._known = list(cases)
            logger.warning(
                "No training case has all of %s annotated; patches 'without tumour' are free of what is annotated.",
                ", ".join(self._names),
            )
        self._facts: dict[str, TumourCase] = {}
        self._least: dict[str, WindowStarts] = {}
        self._lock = threading.Lock()

    def locate(self, rng: KeyedRng, *, batch_size: int) -> Patch:
        """The patch of one draw.

        Args:
            batch_size: samples a step over all ranks; with it the draw knows its index over the run.
        """
        patch_rng = rng("patch")
        if shows_tumour(rng, batch_size=batch_size):
            return self._with_tumour(patch_rng)
        return self._without_tumour(patch_rng)

    def _with_tumour(self, rng: np.random.Generator) -> Patch:
        case_id = _choice(rng, self._with)
        lesion = _choice(rng, _choice(rng, self._facts_of(case_id).lesions))
        shape = self._cases[case_id].shape
        voxel = np.unravel_index(_choice(rng, lesion), shape)
        ranges = start_ranges(shape, self._patch_size, overhang=TUMOUR_OVERHANG)
        start = start_showing(rng, voxel, patch_size=self._patch_size, ranges=ranges)
        return Patch(case_id, start, shows_tumour=True)

    def _without_tumour(self, rng: np.random.Generator) -> Patch:
        # The first case of a random order that has such a window is uniform among all that have one, and the others'
        # labels need not be read to know.
        for index in rng.permutation(len(self._known)):
            facts = self._facts_of(self._known[index])
            if len(facts.min_overhang):
                ranges = self._as_a_tumour_overhangs(rng, self._cases[self._known[index]].shape)
                draw = functools.partial(facts.free_start, rng, ranges)
                return Patch(
                    self._known[index], facts.foreground_map.showing(draw, self._patch_size), shows_tumour=False
                )
        case_id = _choice(rng, list(self._least_tumour()))
        return Patch(case_id, self._least[case_id].draw(rng))

    def _as_a_tumour_overhangs(self, rng: np.random.Generator, shape: Shape) -> tuple[StartRange, ...]:
        """The starts in a volume of `shape` at which a window hangs over as that of a newly drawn tumour does."""
        tumour = self._with_tumour(rng)
        inside = start_ranges(self._cases[tumour.case_id].shape, self._patch_size, overhang=0)
        own, widest = (start_ranges(shape, self._patch_size, overhang=o) for o in (0, FREE_OVERHANGS[-1]))
        matching = []
        for start, (low, high), (first, last), (lowest, highest) in zip(tumour.start, inside, own, widest, strict=True):
            if start < low:
                first = last = max(first - (low - start), lowest)
            elif start > high:
                first = last = min(last + (start - high), highest)
            matching.append((first, last))
        return tuple(matching)

    def _facts_of(self, case_id: str) -> TumourCase:
        if case_id not in self._facts:  # two readers may both find out; they find the same
            codes = [self._codes[name] for name in self._names if _has(self._cases[case_id], name)]
            self._facts[case_id] = TumourCase.of(self._cases[case_id], codes, self._patch_size)
        return self._facts[case_id]

    def _least_tumour(self) -> Mapping[str, WindowStarts]:
        """Of the cases that share the least tumour in a window, those windows; found once, and said once."""
        with self._lock:
            if not self._least:
                found = {}
                for case_id in self._known:
                    case = self._cases[case_id]
                    ranges = start_ranges(case.shape, self._patch_size, overhang=FREE_OVERHANGS[-1])
                    tumour = np.isin(case.label(), self._all_codes)
                    found[case_id] = least_tumour_starts(tumour, self._patch_size, ranges)
                least = min(count for count, _ in found.values())
                self._least = {i: starts for i, (count, starts) in found.items() if count == least}
                logger.warning(
                    "No window of %s voxels is free of tumour in any training case; patches 'without tumour' show the "
                    "least of it there is, %d voxels. A smaller --patch leaves room beside the tumour.",
                    dimensions(self._patch_size),
                    least,
                )
            return self._least


def tumour_structures(labels: LabelSet) -> tuple[str, ...]:
    """The structures that 1:1 sampling is about: those whose names say tumour, or all where none does."""
    named = tuple(name for name, tumour in zip(labels.names, labels.tumour_like, strict=True) if tumour)
    return named or labels.names


def tumour_codes(labels: LabelSet) -> tuple[int, ...]:
    """The label codes of those structures."""
    chosen = tumour_structures(labels)
    own = (codes for name, codes in zip(labels.names, labels.structure_codes, strict=True) if name in chosen)
    return tuple(sorted({code for codes in own for code in codes}))


def shows_tumour(rng: KeyedRng, *, batch_size: int) -> bool:
    """Whether this draw of a run with 1:1 sampling is the one of its pair that shows tumour."""
    pair, position = divmod(rng.step * batch_size + rng.sample, 2)
    return bool(position == generator(rng.seed, "which of the pair shows tumour", pair).integers(2))


def _has(case: PreprocessedCase, structure: str) -> bool:
    return _annotates(case, structure) and case.properties.voxels_after.get(structure, 0) > 0


def _annotates(case: PreprocessedCase, structure: str) -> bool:
    present = case.properties.labels_present
    return present is None or structure in present


def _choice(rng: np.random.Generator, items: Any) -> Any:
    """One item of a sequence or array, each as likely as any other."""
    return items[int(rng.integers(len(items)))]


def _nothing_to_sample(plans: Plans, names: Sequence[str]) -> str:
    return (
        f"{plans.dataset_name}: no training case has a voxel of {', '.join(names)} after preprocessing. Check the "
        "labels with swinssl_check, or choose a finer --spacing."
    )
