"""The `labels` of dataset.json as a `LabelSet`, in nnU-Net v2's form or v1's, with what is wrong or unusual in them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from swinssl.core.text import listed
from swinssl.dataset.labels import HIGHEST_VALUE, LabelSet

BACKGROUND, IGNORE = "background", "ignore"
# Names under which value 0 is meant to be background.
BACKGROUND_NAMES = {BACKGROUND, "bg", "back", "clear", "none", "nothing", "void", "other", "rest", "unlabelled"} | {
    *("unlabeled", "exterior", "outside", "air", "clear label")
}
EXAMPLE = '"labels": {"background": 0, "liver": 1, "tumour": 2}'
FORM = f"Write whole numbers by name, such as {EXAMPLE}."

Remark = tuple[str, str, str]


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
        return DeclaredLabels(None, (("E103", f'"labels" is {json.dumps(declared)}', FORM),))
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
            ("E103", f'"labels": {name!r} is {json.dumps(value)}, not a whole number or a list of them', FORM)
        )
        return None
    whole = [number for number in numbers if number is not None]
    if not all(0 <= number <= HIGHEST_VALUE for number in whole):
        remarks.append(("E104", f'"labels": {name!r} is {value}; values go from 0 to {HIGHEST_VALUE}', FORM))
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
            remarks.append(("E104", message, f"Number the structures from 1, such as {EXAMPLE}."))
    for name in lists:
        if name.strip().lower() == BACKGROUND and name not in zero:
            message = f'"labels": {name!r} has the value {lists[name][0]}; background is 0'
            remarks.append(("E104", message, f"Number it 0, such as {EXAMPLE}."))
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
