"""What is wrong with the files of one case: every image and label is read whole."""

from __future__ import annotations

import hashlib
import itertools
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swinssl.core.errors import UserError
from swinssl.core.text import dimensions
from swinssl.dataset.case import Case
from swinssl.dataset.channel_kind import FILL_HU, ImageValues, named_ct
from swinssl.dataset.checks.finding import Finding
from swinssl.dataset.checks.label_check import check_label_values, side_findings, value_counts
from swinssl.dataset.labels import LabelSet
from swinssl.imageio.formats import known_endings
from swinssl.imageio.image_fault import ImageFault
from swinssl.imageio.reader import VALUES_REMEDY, header_remarks, read_label, unusable_voxels
from swinssl.imageio.same_grid import GRID_TOLERANCE_VOXELS, compare_grids, resample_remedy
from swinssl.imageio.volume import Geometry, Volume

FAULT_CODES = {
    **{"missing": "E201", "unreadable": "E201", "empty": "E202", "not_an_image": "E203", "truncated": "E204"},
    **{"corrupt": "E205", "not_3d": "E206", "voxel_type": "E207", "affine": "E208", "surplus": "E209"},
    **{"too_large": "E210", "grids": "E302", "values": "E301"},
}
REMARK_CODES = {"unplaced": "W201", "forms": "W202", "sizes": "W211", "units": "N203", "patient": "N204"}
# Finer than any clinical scanner, coarser than any; a body, and the smallest crop of one.
SPACING_MM, EXTENT_MM = (0.05, 20.0), (5.0, 2500.0)
# Scanners store 16 bits, and even metal stays below this.
HIGHEST_HU = 32767
SHEAR_COSINE = 1e-3


@dataclass(frozen=True)
class CheckedCase:
    """What was found in one case, and what is compared with other cases.

    Args:
        image_hash: of all voxels on canonical axes; None where an image could not be read.
        label_hash: likewise; None where there is no label, or an empty one.
        structures: voxels of each structure that the label has; None where there is no readable label.
        voxel_mm: cube root of a voxel's volume.
        values: intensities by channel, of those that can be read and are not constant.
    """

    case_id: str
    findings: tuple[Finding, ...] = ()
    image_hash: str | None = None
    label_hash: str | None = None
    structures: dict[str, int] | None = None
    voxel_mm: float | None = None
    values: Mapping[int, ImageValues] = field(default_factory=dict)


@dataclass(frozen=True)
class CaseCheck:
    """What is needed to check one case.

    Args:
        labels: None where dataset.json does not say what values mean.
    """

    folder: Path
    case: Case
    channel_names: tuple[str, ...]
    labels: LabelSet | None

    def run(self) -> CheckedCase:
        """Check it; whatever happens becomes a finding."""
        checker = _Checker(self)
        try:
            return checker.checked()
        except MemoryError:
            found = "does not fit into memory"
            checker.report("E210", self.case.images[0], found, "Use fewer --workers, or crop the image.")
        except Exception:  # one odd file must not hide the other cases
            found = f"cannot be checked: {traceback.format_exc(limit=-1).strip()}"
            checker.report("E203", self.case.images[0], found, "Please report this as a bug.")
        return CheckedCase(self.case.id, tuple(checker.findings))


def check_case(job: CaseCheck) -> CheckedCase:
    """Check one case; importable by name for processes."""
    return job.run()


@dataclass
class _Checker:
    job: CaseCheck
    findings: list[Finding] = field(default_factory=list)
    values: dict[int, ImageValues] = field(default_factory=dict)

    def report(self, code: str, path: Path, message: str, remedy: str) -> None:
        folder = self.job.folder
        file = (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()
        self.findings.append(Finding(code, file, message, remedy))

    def checked(self) -> CheckedCase:
        case = self.job.case
        image_hash, geometry = self.image()
        label_hash = structures = None
        if case.label is not None and (label := self.read(case.label)) is not None:
            label_hash, structures = self.label(case.label, label, geometry)
        return CheckedCase(
            case_id=case.id,
            findings=tuple(self.findings),
            image_hash=image_hash,
            label_hash=label_hash,
            structures=structures,
            voxel_mm=None if geometry is None else geometry.voxel_volume ** (1 / 3),
            values=self.values,
        )

    def read(self, path: Path) -> Volume | None:
        """The file's volume after looking at its header; None where it cannot be read."""
        try:
            for remark in header_remarks(path):
                self.report(REMARK_CODES[remark.kind], path, remark.message, remark.remedy)
            volume = read_label(path)
        except ImageFault as fault:
            if fault.kind != "missing" or fault.path != path:  # that one is known from the listing
                remedy = fault.remedy.replace("msd FOLDER", f"msd {self.job.folder}")
                self.report(FAULT_CODES[fault.kind], fault.path, fault.found, remedy)
            return None
        except UserError:  # the ending
            remedy = f"Convert it to one of {', '.join(known_endings())}."
            self.report("E203", path, f"does not end as an image does ({path.suffix or 'no ending'})", remedy)
            return None
        if volume.geometry.shear > SHEAR_COSINE:
            remedy = "No action needed; many other programs refuse such images. Resample it if they have to read it."
            self.report("N205", path, "its axes are not at right angles", remedy)
        return volume

    # --- images

    def image(self) -> tuple[str | None, Geometry | None]:
        """The hash of all channels, and the grid of the first that can be read."""
        digest, readable, first = hashlib.blake2b(digest_size=16), True, None
        names = itertools.chain(self.job.channel_names, itertools.repeat(""))
        for channel, (path, name) in enumerate(zip(self.job.case.images, names, strict=False)):
            volume = self.read(path)
            if volume is None:
                readable = False
                continue
            if first is None:
                first = (path, volume.geometry)
                self.size(path, volume.geometry)
            else:
                self.grids(path, volume.geometry, *first, codes=("E302", "E302", "W302"))
            self.intensities(path, volume.array[0], channel, name)
            _hash(volume, digest)
        return digest.hexdigest() if readable else None, None if first is None else first[1]

    def size(self, path: Path, geometry: Geometry) -> None:
        extent = [n * mm for n, mm in zip(geometry.shape, geometry.spacing, strict=True)]
        for what, values, (low, high) in (("spacing", geometry.spacing, SPACING_MM), ("extent", extent, EXTENT_MM)):
            if min(values) < low or max(values) > high:
                listed = dimensions(values, ".4g")
                message = f"a {what} of {listed} mm (z, y, x) is implausible for a patient"
                self.report("W307", path, message, "Check the unit and the spacing in the header.")
                return

    def intensities(self, path: Path, array: NDArray, channel: int, name: str) -> None:
        if (message := unusable_voxels(array)) is not None:
            self.report("E301", path, message, VALUES_REMEDY)
            return
        low, high = float(array.min()), float(array.max())
        if low == high:
            self.report("W303", path, f"every voxel is {low:g}", "Export the image again, or remove the case.")
            return
        self.values[channel] = ImageValues.of(array)
        if not named_ct(name):
            return
        values = f"values go from {low:g} to {high:g}"
        if low < FILL_HU:
            remedy = "Set voxels outside the field of view to -1024."
            self.report("W305", path, f"{values}: a fill value far below air shifts the statistics", remedy)
        if high > HIGHEST_HU:
            remedy = "Inspect the brightest voxels; set all that are not tissue to -1024, or export the image again."
            self.report("W305", path, f"{values}: no CT has more than {HIGHEST_HU} HU", remedy)

    def grids(
        self, path: Path, geometry: Geometry, reference_path: Path, reference: Geometry, *, codes: tuple[str, str, str]
    ) -> None:
        """Compare two grids; `codes` are for another shape, far apart, and slightly apart."""
        comparison = compare_grids(geometry, reference)
        if not comparison.noticeable:
            return
        other_shape, far, slightly = codes
        message, remedy = comparison.describe(reference_path.name), resample_remedy(reference_path)
        if comparison.same:
            remedy += f" Up to {GRID_TOLERANCE_VOXELS:g} voxels count as one grid."
            self.report(slightly, path, message, remedy)
        else:
            self.report(far if comparison.shape == comparison.reference_shape else other_shape, path, message, remedy)

    # --- label

    def label(self, path: Path, label: Volume, geometry: Geometry | None) -> tuple[str | None, dict[str, int] | None]:
        """The hash of a label that has something in it, and the voxels of its structures."""
        case, labels = self.job.case, self.job.labels
        if geometry is not None:
            self.grids(path, label.geometry, case.images[0], geometry, codes=("E401", "E402", "W402"))
        counts = value_counts(label.array[0])
        if labels is None:
            return None, None
        findings, structures = check_label_values(counts, labels, case)
        for code, message, remedy in (*findings, *side_findings(label, labels, structures)):
            self.report(code, path, message, remedy)
        if not any(structures.values()):
            return None, structures
        digest = hashlib.blake2b(digest_size=16)
        _hash(label, digest)
        return digest.hexdigest(), structures


def _hash(volume: Volume, digest: hashlib.blake2b) -> None:
    """Voxels as they lie in the patient and as float32, so that another storage order or type is the same image."""
    canonical, _ = volume.canonical()
    digest.update(repr(canonical.array.shape).encode())
    with np.errstate(over="ignore"):  # E301 names such voxels
        for plane in _planes(canonical.array):
            digest.update(np.ascontiguousarray(plane, np.float32).data)


def _planes(array: NDArray) -> Iterator[NDArray]:
    return itertools.chain.from_iterable(array)
