"""What the values of one label map say: undeclared or fractional ones, empty and tiny structures, exchanged sides."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from swinssl.core.text import listed
from swinssl.dataset.case import Case
from swinssl.dataset.labels import LabelSet, is_fractional
from swinssl.imageio.volume import Volume

# Fewer voxels than this are more likely a slip of the hand than a structure.
FEW_VOXELS = 10
SHOWN = 8
# Values beyond this are counted by sorting rather than in a table.
LARGEST_TABLE = 2**20

Remark = tuple[str, str, str]


def value_counts(array: NDArray) -> dict[float, int]:
    """How many voxels have each value, rising; NaN and infinities count as NaN, last."""
    if array.dtype.kind == "f":
        finite = np.isfinite(array)
        values, numbers = np.unique(array[finite], return_counts=True)
        counts = dict(zip(values.tolist(), numbers.tolist(), strict=True))
        odd = int(array.size - finite.sum())
        return {**counts, float("nan"): odd} if odd else counts
    low, high = int(array.min()), int(array.max())
    if high - low > LARGEST_TABLE:
        values, numbers = np.unique(array, return_counts=True)
        return dict(zip(values.tolist(), numbers.tolist(), strict=True))
    table = np.zeros(high - low + 1, np.int64)
    for plane in array:  # by planes, since bincount needs eight bytes a voxel
        table += np.bincount(plane.reshape(-1).astype(np.int64) - low, minlength=len(table))
    return {low + int(i): int(table[i]) for i in np.flatnonzero(table)}


def check_label_values(
    counts: Mapping[float, int], labels: LabelSet, case: Case
) -> tuple[list[Remark], dict[str, int]]:
    """(code, message, remedy) of what is wrong, and the voxels of each structure."""
    remarks: list[Remark] = []
    if odd := sum(number for value, number in counts.items() if not np.isfinite(value)):
        message = f"NaN or infinite voxels: {odd}"
        remarks.append(("E405", message, "Replace them: by 0, or by the ignore label."))
    finite = {value: number for value, number in counts.items() if np.isfinite(value)}
    fractional = [value for value in finite if is_fractional(np.asarray(value))]
    if fractional:
        message = f"values {_listed(fractional)} are not whole numbers"
        remedy = "Was it interpolated, or does the header scale it? Resample labels by nearest neighbour; slope 1."
        remarks.append(("E404", message, remedy))
    whole = {round(value): 0 for value in finite if value not in fractional}
    for value, number in finite.items():
        if value not in fractional:
            whole[round(value)] += number
    ignore = [] if labels.ignore_value is None else [labels.ignore_value]
    declared = [0, *labels.raw_values, *ignore]
    undeclared = [value for value in whole if value not in declared]
    if undeclared:
        message = f"values {_listed(sorted(whole))}; dataset.json declares {_listed(declared)}"
        remarks.append(("E403", message, _remedy_for(undeclared, declared)))
    structures = {
        name: sum(whole.get(value, 0) for value in values if value != 0)
        for name, values in zip(labels.names, labels.values, strict=True)
    }
    remarks += _structure_remarks(structures, case, undeclared=bool(undeclared or fractional or odd))
    return remarks, structures


def side_findings(label: Volume, labels: LabelSet, structures: Mapping[str, int]) -> list[Remark]:
    """Pairs of which the left one lies to the right, as in an image that was flipped."""
    remarks: list[Remark] = []
    values = dict(zip(labels.names, labels.values, strict=True))
    for left, right in labels.laterality.pairs:
        if min(structures.get(left, 0), structures.get(right, 0)) < FEW_VOXELS:
            continue
        apart = _centre(label, values[left]) - _centre(label, values[right])
        if apart > 0:
            message = f"{left!r} lies {apart:.3g} mm to the patient's right of {right!r}"
            remedy = "Exchange the two values, or correct the orientation in the headers of image and label."
            remarks.append(("W414", message, remedy))
    return remarks


def _remedy_for(undeclared: list[int], declared: list[int]) -> str:
    if undeclared == [255] and declared == [0, 1]:
        return "Looks like a mask of 0 and 255: relabel 255 to 1, or declare 255 in dataset.json."
    if min(undeclared) < 0:
        return "Negative values cannot be declared: relabel the file."
    return f'Add {_listed(undeclared)} to "labels" in dataset.json, or relabel the file.'


def _structure_remarks(structures: Mapping[str, int], case: Case, *, undeclared: bool) -> list[Remark]:
    remarks: list[Remark] = []
    if case.labels_present is not None:
        for name, voxels in structures.items():
            present = name in case.labels_present
            if present and not voxels:
                remedy = "Keep it if the patient lacks the structure; otherwise remove it from labels_present."
                remarks.append(("W407", f"{name!r} is said to be annotated and has no voxel", remedy))
            if not present and voxels:
                remedy = "Add it to labels_present; otherwise its voxels are ignored."
                remarks.append(("W408", f"{name!r} is said not to be annotated and has voxels ({voxels})", remedy))
    elif structures and not any(structures.values()) and not undeclared:
        remedy = "Check that this is the right file. Keep it if the patient has none of the structures."
        remarks.append(("W406", "has no voxel of any structure", remedy))
    for name, voxels in structures.items():
        if 0 < voxels < FEW_VOXELS:
            message = f"{name!r} is tiny (voxels: {voxels})"
            remarks.append(("W412", message, "Check whether it was drawn by accident."))
    return remarks


def _centre(label: Volume, values: tuple[int, ...]) -> float:
    """World x of the centroid of the voxels with one of `values`, in mm; it grows to the patient's right."""
    mask = np.isin(label.array[0], values)
    index = [float(np.average(np.arange(n), weights=mask.sum(axis=other))) for n, other in _axes(mask)]
    return float((label.geometry.affine @ [*index, 1.0])[2])


def _axes(mask: NDArray) -> list[tuple[int, tuple[int, ...]]]:
    return [(n, tuple(a for a in range(3) if a != axis)) for axis, n in enumerate(mask.shape)]


def _listed(values: list[int] | list[float]) -> str:
    return listed([f"{value:.6g}" for value in values], most=SHOWN)
