"""Measure a raw data set: every case is read once, cropped, and reduced to a few facts.

nnU-Net draws 10^8 foreground values with replacement, equally many from each case, and takes statistics of the pool.
Its expectation can be had without drawing: each case weighs the same, so mean and spread follow from the cases'
moments, extremes are exact, and percentiles follow from the cases' order statistics at evenly spaced ranks, each with
the weight of one case over their number. The same data give the same numbers to the bit, with any number of workers.
"""

from __future__ import annotations

import hashlib
import json
import logging
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.core.geometry import Shape, Spacing
from swinssl.core.pools import Crash, fitting_workers, run_jobs
from swinssl.core.rng import generator
from swinssl.core.terminal import track
from swinssl.core.text import sentences
from swinssl.dataset.channel_kind import ImageValues
from swinssl.dataset.labels import LabelSet
from swinssl.dataset.raw_dataset import Case, RawDataset
from swinssl.imageio.reader import header_contradictions, read_case
from swinssl.imageio.voxel_stream import image_sha256
from swinssl.preprocessing.fingerprint import (
    FINGERPRINT_FILE,
    FINGERPRINT_VERSION,
    CaseFacts,
    Fingerprint,
    OwnFacts,
    StructureFacts,
)
from swinssl.preprocessing.nonzero_crop import crop_box, nonzero_mask
from swinssl.preprocessing.plans import IntensityStatistics

logger = logging.getLogger(__name__)

# Ranks kept of a case: a percentile is then off by at most 1/40000 in rank. Fewer where cases are many.
MOST_RANKS, LEAST_RANKS, POOL = 20_000, 500, 8_000_000
# Beyond this many values the ranks come from a keyed sample of them; sorting 10^8 voxels would take a quarter minute.
MOST_SORTED = 4_000_000
# Below this many bytes of input, starting processes takes longer than the work.
WORTH_A_POOL = 100_000_000
SHOWN_FAILURES = 5

# By case id, the SHA-256 of each image and of the label.
FileHashes = Mapping[str, tuple[tuple[str, ...], str | None]]


@dataclass(frozen=True, eq=False)
class ChannelMoments:
    """Foreground values of one channel of one case: extremes and moments of all, and `ranks` at evenly spaced ranks."""

    low: float
    high: float
    mean: float
    mean_square: float
    ranks: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class CaseMeasure:
    """What one case contributes; `channels` is empty where it has no foreground.

    Args:
        shape: (z, y, x) voxels after the crop, canonical axes.
        spacing: mm, likewise.
        relative_size: voxels after the crop over voxels before.
    """

    facts: CaseFacts
    shape: Shape
    spacing: Spacing
    relative_size: float
    channels: tuple[ChannelMoments, ...]


def current_fingerprint(raw: RawDataset, folder: Path, *, workers: int | None = None) -> tuple[Fingerprint, bool]:
    """The fingerprint of a data set, measured anew where the one in `folder` is missing or not of these files.

    Returns:
        The fingerprint, and whether it was measured now. Nothing is written.

    Raises:
        UserError: no case, or a case that cannot be read.
    """
    path = Path(folder) / FINGERPRINT_FILE
    hashes = file_hashes(raw)
    expected = content_hash(raw, hashes)
    if path.is_file():
        try:
            stored = Fingerprint.read(path)
            if stored.swinssl.content_hash == expected:
                here = stored.swinssl.model_copy(update={"source": str(raw.source)})
                return stored.model_copy(update={"swinssl": here}), False
            logger.info("%s: the raw data set has changed since it was measured; measuring it again.", path)
        except UserError:
            logger.info("%s: not a fingerprint of this version; measuring again.", path)
    return extract_fingerprint(raw, workers=workers, hashes=hashes), True


def extract_fingerprint(
    raw: RawDataset, *, workers: int | None = None, hashes: FileHashes | None = None
) -> Fingerprint:
    """Measure every case. Of a data set without labels, which is for pretraining, those that can be read will do.

    Args:
        workers: processes; 0 works in this one, None chooses.
        hashes: `file_hashes(raw)`, if the caller has them.

    Raises:
        UserError: no case, or cases that cannot be read, which are named; without labels only where that is all.
    """
    cases = sorted(raw.cases, key=lambda case: case.id)
    if not cases:
        raise UserError(f"{raw.source}: no training case. Put images into imagesTr (and labels into labelsTr).")
    ranks = int(np.clip(POOL // len(cases), LEAST_RANKS, MOST_RANKS))
    jobs = [_Job(case, raw.labels, ranks) for case in cases]
    measures: dict[int, CaseMeasure] = {}
    failures: dict[str, str] = {}
    workers = default_workers(raw) if workers is None else workers
    results = run_jobs(_measured, jobs, workers=workers, name=lambda job: job.case.id)
    for index, result in track(results, "measuring", total=len(jobs)):
        if isinstance(result, CaseMeasure):
            measures[index] = result
        else:
            failures[cases[index].id] = f"case {cases[index].id}: {result}" if isinstance(result, Crash) else result
    if failures:
        shown = sentences([failures[name] for name in sorted(failures)], most=SHOWN_FAILURES)
        said = (
            f"{len(failures)} of {len(cases)} cases cannot be measured: {shown} "
            f"Run swinssl_check {raw.source} for the complete list, then fix or remove them."
        )
        if not measures or any(case.label is not None for case in cases):
            raise UserError(said)
        logger.warning("%s The plan uses the other cases.", said)
    return pooled([measures[i] for i in sorted(measures)], raw, hashes=hashes or file_hashes(raw))


def pooled(measures: Sequence[CaseMeasure], raw: RawDataset, *, hashes: FileHashes) -> Fingerprint:
    """The fingerprint of measured cases, in their order."""
    properties = {}
    for channel in range(len(raw.channel_names)):
        properties[str(channel)] = _pooled_channel([m.channels[channel] for m in measures if m.channels])
    return Fingerprint(
        foreground_intensity_properties_per_channel=properties,
        median_relative_size_after_cropping=float(np.median([m.relative_size for m in measures])),
        shapes_after_crop=tuple(m.shape for m in measures),
        spacings=tuple(m.spacing for m in measures),
        swinssl=OwnFacts(
            content_hash=content_hash(raw, hashes),
            dataset_name=raw.name,
            source=str(raw.source),
            image_sha256=tuple(sorted({sha256 for images, _ in hashes.values() for sha256 in images})),
            channel_names=raw.channel_names,
            labels=raw.labels,
            cases=tuple(m.facts for m in measures),
        ),
    )


def measure_case(case: Case, labels: LabelSet, *, ranks: int = MOST_RANKS) -> CaseMeasure:
    """Read one case and reduce it to its facts.

    Raises:
        UserError: a file is unreadable, the label does not fit the image or has undeclared values, or the image has
            voxels that are no numbers.
    """
    image, label = read_case(case.images, case.label)
    canonical, axes = image.canonical()
    mask = nonzero_mask(canonical.array)
    box = crop_box(mask)
    cropped, mask = canonical.array[(slice(None), *box)], mask[box]

    structures = None
    counted = mask
    if label is not None:
        try:
            codes = labels.encode(axes.apply(label.array[0])[box])
        except ValueError as error:
            raise UserError(f"{case.label}: {error}. Declare them in dataset.json or relabel the file.") from None
        structures = _structures(codes, labels, canonical.geometry.voxel_volume)
        counted = (codes > 0) & (codes != labels.ignore_code)
    z, y, x = cropped.shape[1:]
    facts = CaseFacts(
        id=case.id,
        source_shape=canonical.geometry.shape,
        zero_share=tuple(float(np.mean(channel == 0)) for channel in cropped),
        values=tuple(ImageValues.of(channel) for channel in canonical.array),
        structures=structures,
        annotated=None if case.labels_present is None else tuple(n for n in labels.names if n in case.labels_present),
        header=header_contradictions([*case.images, *([] if case.label is None else [case.label])]),
    )
    return CaseMeasure(
        facts=facts,
        shape=(z, y, x),
        spacing=canonical.geometry.spacing,
        relative_size=cropped[0].size / canonical.array[0].size,
        channels=tuple(_moments(c[counted], case.id, ranks) for c in cropped) if counted.any() else (),
    )


def file_hashes(raw: RawDataset) -> FileHashes:
    """The hashes of the files of every case."""
    return {
        case.id: (
            tuple(image_sha256(path) for path in case.images),
            None if case.label is None else image_sha256(case.label),
        )
        for case in raw.cases
    }


def content_hash(raw: RawDataset, hashes: FileHashes | None = None) -> str:
    """Hash of what a fingerprint depends on: case ids, file contents, description, version of the extraction."""
    hashes = file_hashes(raw) if hashes is None else hashes
    listed = []
    for case in sorted(raw.cases, key=lambda case: case.id):
        images, label = hashes[case.id]
        annotated = None if case.labels_present is None else sorted(case.labels_present)
        listed.append([case.id, [*images, *([] if label is None else [label])], annotated])
    parts = [FINGERPRINT_VERSION, raw.name, raw.channel_names, raw.labels.model_dump(mode="json"), listed]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def default_workers(raw: RawDataset) -> int:
    """Processes that fill the cores and fit into the free memory; 0 where starting them takes longer than the work."""
    sizes = [sum(path.stat().st_size for path in case.images if files.is_file(path)) for case in raw.cases]
    if sum(sizes) < WORTH_A_POOL:
        return 0
    # Compressed to a quarter at most times; float32, mask, sorted values: about ten bytes for each byte of int16.
    return fitting_workers(len(sizes), max(sizes) * 4 * 10)


@dataclass(frozen=True)
class _Job:
    case: Case
    labels: LabelSet
    ranks: int


def _measured(job: _Job) -> CaseMeasure | str:
    """The measure, or what went wrong: one bad case must not hide the others."""
    try:
        return measure_case(job.case, job.labels, ranks=job.ranks)
    except UserError as error:
        return str(error)
    except MemoryError:
        return f"case {job.case.id}: not enough memory. Use fewer --workers, or crop the image."
    except Exception:
        return f"case {job.case.id}: unexpected: {traceback.format_exc()}"


def _moments(values: NDArray, case_id: str, ranks: int) -> ChannelMoments:
    values = values.astype(np.float32, copy=False)
    exact = values.astype(np.float64)
    drawn = values
    if values.size > MOST_SORTED:
        draw = generator(0, f"fingerprint of {case_id}")
        drawn = values[draw.integers(values.size, size=MOST_SORTED)]
    ordered = np.sort(drawn)
    if ordered.size > ranks:
        ordered = ordered[((np.arange(ranks) + 0.5) / ranks * ordered.size).astype(np.int64)]
    return ChannelMoments(
        low=float(values.min()),
        high=float(values.max()),
        mean=float(exact.mean()),
        mean_square=float(np.mean(exact * exact)),
        ranks=ordered,
    )


def _pooled_channel(cases: Sequence[ChannelMoments]) -> IntensityStatistics:
    """Statistics of the mixture in which each case weighs the same; zeros where no case has foreground (as nnU-Net)."""
    if not cases:
        return IntensityStatistics(max=0, mean=0, median=0, min=0, percentile_00_5=0, percentile_99_5=0, std=0)
    mean = float(np.mean([c.mean for c in cases]))
    variance = float(np.mean([c.mean_square for c in cases])) - mean * mean
    values = np.concatenate([c.ranks for c in cases])
    weights = np.concatenate([np.full(c.ranks.size, 1 / c.ranks.size) for c in cases])
    order = np.argsort(values, kind="stable")
    values, weights = values[order], weights[order]
    middle = (np.cumsum(weights) - weights / 2) / weights.sum()
    low, median, high = (float(v) for v in np.interp([0.005, 0.5, 0.995], middle, values))
    return IntensityStatistics(
        max=max(c.high for c in cases),
        mean=mean,
        median=median,
        min=min(c.low for c in cases),
        percentile_00_5=low,
        percentile_99_5=high,
        std=max(variance, 0.0) ** 0.5,
    )


def _structures(codes: NDArray, labels: LabelSet, voxel_mm3: float) -> dict[str, StructureFacts]:
    counts = np.bincount(codes.reshape(-1), minlength=len(labels.raw_values) + 1)
    # The ignore code is no structure; above the declared codes there is nothing to find.
    boxes = ndimage.find_objects(np.where(codes <= len(labels.raw_values), codes, 0))
    found = {}
    for name, own in zip(labels.names, labels.structure_codes, strict=True):
        voxels = int(counts[list(own)].sum())
        if voxels == 0:
            continue
        parts = [boxes[code - 1] for code in own if counts[code]]
        around = tuple(slice(min(p[a].start for p in parts), max(p[a].stop for p in parts)) for a in range(3))
        pieces, number = ndimage.label(np.isin(codes[around], own), structure=np.ones((3, 3, 3)))
        largest = int(np.bincount(pieces.reshape(-1))[1:].max())
        found[name] = StructureFacts(
            voxels=voxels, volume_mm3=voxels * voxel_mm3, components=int(number), largest_mm3=largest * voxel_mm3
        )
    return found
