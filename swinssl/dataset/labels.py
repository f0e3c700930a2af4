"""What the values of a label map mean: exclusive labels or regions, ignore label, stored codes, and dataset.json."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from swinssl.core.text import listed
from swinssl.dataset.laterality import Laterality

# Scaling in float32 misses a whole number by this much at most, interpolation by far more.
WHOLE_WITHIN = 1e-3
# What every integer type of an image file holds but the widest; far beyond any label.
LARGEST_LABEL = 2**31
# Undeclared values that a message lists.
SHOWN = 5
# Names that say that a structure is a lesion or a target.
TUMOUR_WORDS = re.compile(
    r"tumou?r|lesion|cancer|carcinoma|metasta|nodule|neoplas|\bgtv|\bctv|\bptv|\bmass\b|\btarget\b|infarct|stroke", re.I
)
# uint16 codes with their reserved ones, and a lookup table that stays small.
HIGHEST_VALUE = 65_000
RawValue = Annotated[int, Field(ge=0, le=HIGHEST_VALUE)]

BACKGROUND, IGNORE = "background", "ignore"
# Names under which value 0 is meant to be background.
BACKGROUND_NAMES = {BACKGROUND, "bg", "back", "clear", "none", "nothing", "void", "other", "rest", "unlabelled"} | {
    *("unlabeled", "exterior", "outside", "air", "clear label")
}
LABELS_EXAMPLE = '"labels": {"background": 0, "liver": 1, "tumour": 2}'
LABELS_FORM = f"Write whole numbers by name, such as {LABELS_EXAMPLE}."

Remark = tuple[str, str, str]


class LabelSet(BaseModel):
    """The structures of a data set.

    Three codings, and who uses which:
        raw value: what stands in the user's files; any non-negative integers.
        code: what the store and the network's targets hold; 0 background, 1..n the declared foreground values in
            rising order (so that consecutive raw values are their own codes), `ignore_code` and `outside_code` above.
        output channel: softmax over background and structures, or one sigmoid channel a region.

    Args:
        names: structures in declaration order, without background and ignore.
        values: raw values of each structure; one value each unless `regions`.
        regions: structures may overlap (nnU-Net's lists of values); one sigmoid channel each.
        region_order: raw value that each region writes into a label map, later ones over earlier ones.
        ignore_value: raw value of unannotated voxels, or None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: tuple[str, ...]
    values: tuple[tuple[RawValue, ...], ...]
    regions: bool = False
    region_order: tuple[RawValue, ...] = ()
    ignore_value: RawValue | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if fault := _fault(self):
            raise ValueError(fault)
        return self

    @cached_property
    def raw_values(self) -> tuple[int, ...]:
        """Declared foreground raw values, rising; the one at index i has code i + 1."""
        return tuple(sorted({value for values in self.values for value in values} - {0}))

    @property
    def code_dtype(self) -> np.dtype:
        """uint8 where the codes and the two reserved ones fit, else uint16."""
        return np.dtype(np.uint8 if len(self.raw_values) < 254 else np.uint16)

    @property
    def ignore_code(self) -> int:
        """Code of voxels that nobody annotated: no loss, no metric."""
        return int(np.iinfo(self.code_dtype).max) - 1

    @property
    def outside_code(self) -> int:
        """Code of voxels outside the image's non-zero mask or beyond its border: background for loss and metric."""
        return int(np.iinfo(self.code_dtype).max)

    @property
    def num_outputs(self) -> int:
        """Channels of the network's output: structures and background (softmax), or regions (sigmoid)."""
        return len(self.names) + (0 if self.regions else 1)

    @cached_property
    def structure_codes(self) -> tuple[tuple[int, ...], ...]:
        """Codes of each structure, in the order of `names`."""
        code = {value: index + 1 for index, value in enumerate(self.raw_values)}
        return tuple(tuple(sorted(code[v] for v in values if v != 0)) for values in self.values)

    def encode(self, raw: NDArray) -> NDArray:
        """Codes of a raw label array.

        Raises:
            ValueError: a value is not declared, or not a whole number.
        """
        integers = np.asarray(raw)
        if integers.dtype.kind == "f":
            integers = whole_labels(integers)
        declared = [0, *self.raw_values, *([] if self.ignore_value is None else [self.ignore_value])]
        highest = max(declared)
        table = np.full(highest + 1, self.outside_code, dtype=self.code_dtype)  # which no declared value has
        table[0] = 0
        table[list(self.raw_values)] = np.arange(1, len(self.raw_values) + 1)
        if self.ignore_value is not None:
            table[self.ignore_value] = self.ignore_code
        if integers.size and (integers.min() < 0 or integers.max() > highest):
            raise _undeclared(integers[(integers < 0) | (integers > highest)], declared)
        codes = table[integers]
        if codes.size and codes.max() == self.outside_code:
            raise _undeclared(integers[codes == self.outside_code], declared)
        return codes

    def decode(self, codes: NDArray) -> NDArray:
        """Raw values of a code array: the inverse of `encode`; outside the mask is background."""
        table = np.zeros(self.outside_code + 1, dtype=np.int64)
        table[1 : len(self.raw_values) + 1] = self.raw_values
        table[self.ignore_code] = self.ignore_value or 0
        return table.astype(np.min_scalar_type(int(table.max())))[codes]

    def output_to_raw(self, segmentation: NDArray) -> NDArray:
        """Raw label map of the network's decision.

        Args:
            segmentation: (Z, Y, X) index of the winning structure (0 background, i + 1 structure i of `names`) for
                exclusive labels; (R, Z, Y, X) booleans for regions.
        """
        if not self.regions:
            table = np.array([0, *(values[0] for values in self.values)])
            return table.astype(np.min_scalar_type(int(table.max())))[segmentation]
        out = np.zeros(segmentation.shape[1:], dtype=np.min_scalar_type(max(self.region_order, default=0)))
        for mask, value in zip(segmentation, self.region_order, strict=True):
            out[mask.astype(bool)] = value
        return out

    @cached_property
    def laterality(self) -> Laterality:
        """The structures that are told apart by their side: mirroring left to right would confuse them."""
        return Laterality.of(self.names)

    @property
    def tumour_like(self) -> tuple[bool, ...]:
        """Per structure, whether its name says tumour, lesion or target volume."""
        return tuple(bool(TUMOUR_WORDS.search(name.replace("_", " "))) for name in self.names)


def _fault(labels: LabelSet) -> str | None:
    """What no data set can mean; None where all is well."""
    if len(labels.names) != len(labels.values):
        return f"{len(labels.names)} names for {len(labels.values)} lists of values"
    if twice := sorted({name for name in labels.names if labels.names.count(name) > 1}):
        return f"the name {twice[0]!r} is there twice"
    for name, values in zip(labels.names, labels.values, strict=True):
        if not values or (not labels.regions and len(values) != 1):
            return f"{name!r} has the values {values}; expected {'at least one' if labels.regions else 'exactly one'}"
        if labels.ignore_value is not None and labels.ignore_value in values:
            return f"{name!r} has the value {labels.ignore_value}, which is that of ignore"
        if not labels.regions and values == (0,):
            return f"{name!r} has the value 0, which is the background's"
    if labels.ignore_value == 0:
        return "ignore has the value 0, which is the background's"
    single = [values[0] for values in labels.values if not labels.regions]
    if len({*single}) < len(single):
        return f"two structures have one value: {', '.join(map(str, sorted(single)))}"
    if labels.regions and len(labels.region_order) != len(labels.names):
        return f"region_order has {len(labels.region_order)} values for {len(labels.names)} regions"
    return None


def _undeclared(values: NDArray, declared: Sequence[int]) -> ValueError:
    unknown = listed(np.unique(values).tolist(), most=SHOWN)
    return ValueError(f"values {unknown} are not declared; declared are {', '.join(map(str, declared))}")


def is_fractional(values: NDArray) -> NDArray[np.bool_]:
    """Where finite values are not whole numbers: the one rule of check, plan, preprocess and evaluate."""
    with np.errstate(invalid="ignore"):  # of infinities
        return np.abs(values - np.rint(values)) > WHOLE_WITHIN


def whole_labels(values: NDArray) -> NDArray[np.int64]:
    """Floating-point values of a label map as the whole numbers that they mean.

    Raises:
        ValueError: a value is fractional, NaN, infinite, or beyond any label.
    """
    if not np.isfinite(values).all():
        raise ValueError("values that are NaN or infinite")
    fractional = is_fractional(values)
    if fractional.any():
        shown = listed([f"{value:.6g}" for value in np.unique(values[fractional]).tolist()], most=SHOWN)
        raise ValueError(f"values {shown} are not whole numbers; the map was interpolated or scaled")
    if values.size and max(-values.min(), values.max()) > LARGEST_LABEL:
        raise ValueError(f"values from {values.min():.6g} to {values.max():.6g} cannot be labels")
    return np.rint(values).astype(np.int64)


@dataclass(frozen=True)
class DeclaredLabels:
    """What was declared.

    Args:
        labels: None where it cannot be read.
        remarks: (code, message, remedy) of findings.
    """

    labels: LabelSet | None
    remarks: tuple[Remark, ...]


def declared_labels(declared: object, region_order: object = None) -> DeclaredLabels:
    """Read `labels` and `regions_class_order`."""
    remarks: list[Remark] = []
    if not isinstance(declared, dict) or not declared:
        return DeclaredLabels(None, (("E103", f'"labels" is {json.dumps(declared)}', LABELS_FORM),))
    by_name = _by_name(declared, remarks)
    values = {name: _values(name, value, remarks) for name, value in by_name.items()}
    if any(code.startswith("E") for code, *_ in remarks):
        return DeclaredLabels(None, tuple(remarks))
    lists = {name: listed for name, listed in values.items() if listed is not None}
    ignore = lists.pop(IGNORE, None)
    structures = _without_background(lists, remarks)
    regions = any(len(listed) > 1 for listed in structures.values())
    order = _region_order(region_order, structures, remarks) if regions else ()
    _check_values(structures, ignore, regions, remarks)
    if any(code.startswith("E") for code, *_ in remarks):
        return DeclaredLabels(None, tuple(remarks))
    labels = LabelSet(
        names=tuple(structures),
        values=tuple(structures.values()),
        regions=regions,
        region_order=order,
        ignore_value=None if ignore is None else ignore[0],
    )
    return DeclaredLabels(labels, tuple(remarks))


def labels_as_json(labels: LabelSet) -> dict[str, Any]:
    """`labels` and, for regions, `regions_class_order`, as nnU-Net v2 writes them."""
    listed: dict[str, Any] = {BACKGROUND: 0}
    for name, values in zip(labels.names, labels.values, strict=True):
        listed[name] = list(values) if len(values) > 1 else values[0]
    if labels.ignore_value is not None:
        listed[IGNORE] = labels.ignore_value
    return {"labels": listed, **({"regions_class_order": list(labels.region_order)} if labels.regions else {})}


def _by_name(declared: dict[str, Any], remarks: list[Remark]) -> dict[str, Any]:
    """Values by name; v1 has names by value."""
    if not all(str(key).strip().isdecimal() and isinstance(name, str) for key, name in declared.items()):
        return declared
    if all(name.strip().isdecimal() for name in declared.values()):  # {"1": "1"}: names that are numbers
        return declared
    remedy = "Nothing to do; nnU-Net v2 itself wants values by name."
    remarks.append(("N101", 'lists "labels" as names by value (nnU-Net v1)', remedy))
    named: dict[str, Any] = {}
    for value, name in declared.items():
        if name in named:
            remarks.append(("E104", f'"labels" has the name {name!r} twice', "Give every value a name of its own."))
        named[name] = int(value)
    return named


def _values(name: str, value: object, remarks: list[Remark]) -> tuple[int, ...] | None:
    listed = value if isinstance(value, list) else [value]
    numbers = [_whole(item) for item in listed]
    if not name.strip() or not numbers or None in numbers:
        remarks.append(
            ("E103", f'"labels": {name!r} is {json.dumps(value)}, not a whole number or a list of them', LABELS_FORM)
        )
        return None
    whole = [number for number in numbers if number is not None]
    if not all(0 <= number <= HIGHEST_VALUE for number in whole):
        remarks.append(("E104", f'"labels": {name!r} is {value}; values go from 0 to {HIGHEST_VALUE}', LABELS_FORM))
        return None
    return tuple(dict.fromkeys(whole))


def _whole(item: object) -> int | None:
    if isinstance(item, str) and item.strip().isdecimal():
        return int(item)
    if isinstance(item, bool) or not (isinstance(item, int) or (isinstance(item, float) and item.is_integer())):
        return None
    return int(item)


def _without_background(lists: dict[str, tuple[int, ...]], remarks: list[Remark]) -> dict[str, tuple[int, ...]]:
    zero = [name for name, values in lists.items() if values == (0,)]
    if not zero:
        remedy = 'No action needed; nnU-Net itself expects "background": 0.'
        remarks.append(("N104", '"labels" declares no background; 0 is taken for it', remedy))
    for name in zero:
        if name.strip().lower() not in BACKGROUND_NAMES:
            message = f'"labels": {name!r} has the value 0, which is background'
            remarks.append(("E104", message, f"Number the structures from 1, such as {LABELS_EXAMPLE}."))
    for name in lists:
        if name.strip().lower() == BACKGROUND and name not in zero:
            message = f'"labels": {name!r} has the value {lists[name][0]}; background is 0'
            remarks.append(("E104", message, f"Number it 0, such as {LABELS_EXAMPLE}."))
    return {name: values for name, values in lists.items() if name not in zero}


def _check_values(
    structures: dict[str, tuple[int, ...]], ignore: tuple[int, ...] | None, regions: bool, remarks: list[Remark]
) -> None:
    used: dict[int, str] = {}
    for name, values in structures.items():
        for value in values if not regions else ():
            if value in used:
                message = f'"labels": {used[value]!r} and {name!r} both have the value {value}'
                remarks.append(("E104", message, "Give every structure a value of its own."))
            used[value] = name
        if regions and 0 in values:
            remarks.append(("E104", f'"labels": {name!r} lists 0, which is background', "Take 0 out of the list."))
    declared = sorted({value for values in structures.values() for value in values} - {0})
    if ignore is not None:
        if len(ignore) > 1 or ignore[0] == 0 or ignore[0] in declared:
            message = f'"labels": "ignore" is {list(ignore)}; expected is one value that nothing else has'
            remarks.append(("E104", message, "Give it the highest value plus 1."))
        elif declared and ignore[0] < declared[-1]:
            remedy = "No action needed; nnU-Net itself expects it highest."
            remarks.append(("N105", f'"ignore" is {ignore[0]}, below {declared[-1]}', remedy))
        declared = sorted({*declared, ignore[0]})
    if declared and declared != list(range(1, declared[-1] + 1)):
        missing = sorted(set(range(1, declared[-1])) - set(declared))
        remedy = "No action needed if this is intended; nnU-Net itself expects 0, 1, 2 and so on."
        remarks.append(("N103", f"label values have gaps ({listed(missing, most=5)} not declared)", remedy))


def _region_order(order: object, structures: dict[str, tuple[int, ...]], remarks: list[Remark]) -> tuple[int, ...]:
    names = ", ".join(structures)
    declared = {value for values in structures.values() for value in values}
    remedy = (
        f'Add "regions_class_order": one value for each of {names}, in that order. It is what a voxel of that region '
        "gets; later ones overwrite earlier ones, so list inner regions last."
    )
    numbers = [_whole(item) for item in order] if isinstance(order, list) else []
    if len(numbers) != len(structures) or None in numbers or not set(numbers) <= declared:
        found = f'"regions_class_order" is {json.dumps(order)}' if order is not None else 'has no "regions_class_order"'
        message = f"{found}; {len(structures)} regions need as many of the values {sorted(declared)}"
        remarks.append(("E105", message, remedy))
        return ()
    return tuple(number for number in numbers if number is not None)
