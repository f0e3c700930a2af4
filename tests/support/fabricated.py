"""Fingerprints of data sets that do not exist, for tests of the planner."""

from __future__ import annotations

from collections.abc import Sequence

from swinssl.core.geometry import Spacing
from swinssl.dataset.labels import LabelSet
from swinssl.preprocessing.fingerprint import CaseFacts, Fingerprint, OwnFacts, StructureFacts
from swinssl.preprocessing.plans import IntensityStatistics

HU = IntensityStatistics(max=3071, mean=60, median=70, min=-1024, percentile_00_5=-120, percentile_99_5=260, std=90)
ARBITRARY = IntensityStatistics(
    max=4000, mean=400, median=380, min=0, percentile_00_5=20, percentile_99_5=1500, std=200
)


def fabricated(
    cases: int,
    spacing: Spacing | Sequence[Spacing],
    shape: tuple[int, int, int],
    *,
    channels: tuple[str, ...] = ("CT",),
    structures: dict[str, float] | None = None,
    pieces: int = 1,
    missing: int = 0,
    intensity: IntensityStatistics = HU,
    relative_size: float = 1.0,
    regions: bool = False,
) -> Fingerprint:
    """A data set of equal cases.

    Args:
        spacing: of all cases, or one a case.
        structures: volume in mm3 of each structure, in `pieces` equal pieces; {} has no labels.
        missing: cases at the end that lack every structure.
    """
    spacings = [spacing] * cases if isinstance(spacing[0], (int, float)) else list(spacing)
    volumes = {"organ": 20_000.0} if structures is None else structures
    facts = {
        name: StructureFacts(voxels=1000, volume_mm3=volume, components=pieces, largest_mm3=volume / pieces)
        for name, volume in volumes.items()
    }
    labels = LabelSet(
        names=tuple(volumes),
        values=tuple((i + 1,) for i in range(len(volumes))),
        regions=regions,
        region_order=tuple(i + 1 for i in range(len(volumes))) if regions else (),
    )
    return Fingerprint(
        foreground_intensity_properties_per_channel={str(i): intensity for i in range(len(channels))},
        median_relative_size_after_cropping=relative_size,
        shapes_after_crop=[shape] * cases,
        spacings=spacings,
        swinssl=OwnFacts(
            content_hash="",
            dataset_name="Dataset999_Fabricated",
            channel_names=channels,
            labels=labels,
            cases=tuple(
                CaseFacts(
                    id=f"case_{i:03d}",
                    source_shape=shape,
                    zero_share=(0.0,) * len(channels),
                    structures=({} if i >= cases - missing else facts) if volumes else None,
                )
                for i in range(cases)
            ),
        ),
    )
