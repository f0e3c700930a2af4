"""dataset.json: what a raw data set says about itself. The only reader of its keys.

Besides nnU-Net v2's form this reads v1's and the Medical Segmentation Decathlon's, and lets pass what has one meaning
only; what it let pass is a note, what it could not is an error. docs/check.md lists both.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swinssl.core import files
from swinssl.core.text import nearest
from swinssl.dataset.case import normal_form
from swinssl.dataset.checks.finding import Finding
from swinssl.dataset.labels import LabelSet, declared_labels, labels_as_json
from swinssl.imageio.formats import known_endings

DESCRIPTION_FILE = "dataset.json"
# Ours beside nnU-Net's own; all others pass unread.
KEYS = (
    *("channel_names", "modality", "labels", "numTraining", "file_ending", "regions_class_order", "dataset"),
    *("training", "labels_present", "groups", "group_pattern"),
)
REQUIRED = ("channel_names", "labels")
NO_LABELS = LabelSet(names=(), values=())
EXAMPLE = '{"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "file_ending": ".nii.gz"}'


@dataclass(frozen=True)
class ListedCase:
    """A case as `dataset` or `training` lists it: paths as written, relative to the data set's folder."""

    images: tuple[str, ...]
    label: str | None


@dataclass(frozen=True)
class Description:
    """What dataset.json says.

    Args:
        channel_names: in order; empty where it does not say.
        labels: structures and their values.
        file_ending: in small letters with its dot; None where it does not say.
        num_training: `numTraining`.
        cases: the `dataset` key: cases with their files, which replace a listing of the folders.
        training: the v1 `training` list, by case id.
        labels_present: annotated structures by case.
        groups: group by case.
        group_pattern: searched in a case id; its first group, else the whole match, is the case's group.
        content: the file as it is.
    """

    channel_names: tuple[str, ...] = ()
    labels: LabelSet = NO_LABELS
    file_ending: str | None = None
    num_training: int | None = None
    cases: Mapping[str, ListedCase] | None = None
    training: Mapping[str, ListedCase] = field(default_factory=dict)
    labels_present: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    group_pattern: re.Pattern[str] | None = None
    content: Mapping[str, Any] = field(default_factory=dict)

    def as_v2(self, *, channel_names: tuple[str, ...], cases: int, file_ending: str) -> dict[str, Any]:
        """nnU-Net v2's form of it, with what had to be found out; unread keys of the file are kept."""
        kept = {key: value for key, value in self.content.items() if key not in KEYS}
        own = {key: self.content[key] for key in ("labels_present", "groups", "group_pattern") if key in self.content}
        return {
            "channel_names": {str(i): name for i, name in enumerate(channel_names)},
            **labels_as_json(self.labels),
            "numTraining": cases,
            "file_ending": file_ending,
            **own,
            **kept,
        }


def read_description(folder: Path) -> tuple[Description, list[Finding]]:
    """The description of a raw data set, and what is wrong or unusual in it.

    A key that cannot be read counts as missing, so that everything else can still be looked at. No file is a
    description that says nothing.
    """
    path = Path(folder) / DESCRIPTION_FILE
    try:
        text = files.read_text(path)
        content = files.parse_json(text)
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}, not an object")
    except FileNotFoundError:
        return Description(), []
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        message = f"is not readable as JSON: {reason}"
        return Description(), [Finding("E101", DESCRIPTION_FILE, message, f"Correct it. It looks like {EXAMPLE}")]
    parser = _Parser(content)
    for key in _repeated_keys(text):
        message = f'has the key "{key}" twice in one place; only one of the two can count'
        parser.report("E103", message, "Remove or rename one of them.")
    return parser.description(), parser.findings


def _repeated_keys(text: str) -> list[str]:
    repeated: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        counts = Counter(key for key, _ in pairs)
        repeated.extend(key for key, count in counts.items() if count > 1)
        return dict(pairs)

    json.loads(text, object_pairs_hook=note)
    return repeated


class _Parser:
    """Reads the keys one by one and notes what is wrong with them."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content
        self.findings: list[Finding] = []

    def description(self) -> Description:
        self.misspelt()
        return Description(
            channel_names=self.channel_names(),
            labels=self.labels(),
            file_ending=self.file_ending(),
            num_training=self.num_training(),
            cases=self.cases(),
            training=self.training(),
            labels_present=self.labels_present(),
            groups=self.groups(),
            group_pattern=self.group_pattern(),
            content=self.content,
        )

    def report(self, code: str, message: str, remedy: str) -> None:
        self.findings.append(Finding(code, DESCRIPTION_FILE, message, remedy))

    def older(self, message: str) -> None:
        self.report("N101", message, "No action needed; nnU-Net v2 itself expects the newer form.")

    def misspelt(self) -> None:
        for key in self.content:
            near = None if key in KEYS else nearest(key, KEYS)
            if near is None or near in REQUIRED or near in self.content:  # a missing required key speaks for itself
                continue
            if _skeleton(key) == _skeleton(near):
                self.report("W105", f'has a key "{key}", which is not read', f'Did you mean "{near}"? Rename it.')

    def required(self, key: str, example: str) -> None:
        unread = [name for name in self.content if name not in KEYS]
        near = nearest(key, unread)
        remedy = f"Add it, such as {example}" if near is None else f'Rename "{near}" to "{key}", such as {example}'
        self.report("E102", f'has no "{key}"', f"{remedy}.")

    def channel_names(self) -> tuple[str, ...]:
        key = "channel_names"
        if key not in self.content and "modality" in self.content:
            key = "modality"
            self.older('calls the channels "modality" (nnU-Net v1)')
        example = '"channel_names": {"0": "CT"}'
        if key not in self.content:
            self.required(key, example)
            return ()
        value = self.content[key]
        if isinstance(value, list):
            self.older(f'lists "{key}" without numbers')
            value = {str(i): name for i, name in enumerate(value)}
        names = _channels_in_order(value)
        if names is None:
            found = f'"{key}" is {json.dumps(value)}; expected are names by number, counted from "0"'
            self.report("E103", found, f"Write it such as {example}.")
            return ()
        if list(value) != [str(i) for i in range(len(names))]:
            order = ", ".join(f"{i:04d} is {name}" for i, name in enumerate(names))
            self.older(f'does not number "{key}" from "0" on; read as: {order}')
        return names

    def labels(self) -> LabelSet:
        if "labels" not in self.content:
            self.required("labels", '"labels": {"background": 0, "liver": 1}')
            return NO_LABELS
        declared = declared_labels(self.content["labels"], self.content.get("regions_class_order"))
        for code, message, remedy in declared.remarks:
            self.report(code, message, remedy)
        return declared.labels or NO_LABELS

    def file_ending(self) -> str | None:
        value = self.content.get("file_ending")
        if value is None:
            return None
        ending = f".{str(value).lower().lstrip('.')}"
        if ending not in known_endings():
            found = f'"file_ending" is {json.dumps(value)}; swinssl reads {", ".join(known_endings())}'
            self.report("E103", found, "Convert the images, or correct the ending.")
            return None
        return ending

    def num_training(self) -> int | None:
        value = self.content.get("numTraining")
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        self.report("W101", f'"numTraining" is {json.dumps(value)}, not a number', "Write the number of cases.")
        return None

    def cases(self) -> dict[str, ListedCase] | None:
        value = self.content.get("dataset")
        if value is None:
            return None
        form = '{"case_1": {"images": ["imagesTr/case_1_0000.nii.gz"], "label": "labelsTr/case_1.nii.gz"}}'
        if not isinstance(value, dict):
            self.report("E103", '"dataset" is not an object', f"Write it such as {form}.")
            return None
        found = {}
        for case_id, entry in value.items():
            images = entry.get("images") if isinstance(entry, dict) else None
            label = entry.get("label") if isinstance(entry, dict) else None
            if not _texts(images) or not images or not isinstance(label, str | None):
                message = f'"dataset": the case {case_id!r} has no list "images" of paths, or a "label" that is no path'
                self.report("E103", message, f"Write it such as {form}.")
            else:
                found[normal_form(case_id)] = ListedCase(tuple(images), label)
        return found

    def training(self) -> dict[str, ListedCase]:
        """v1's list; image paths in it have no channel number, even where the files have."""
        value = self.content.get("training", [])
        found = {}
        for entry in value if isinstance(value, list) else []:
            image, label = (entry.get("image"), entry.get("label")) if isinstance(entry, dict) else (entry, None)
            if isinstance(image, str) and isinstance(label, str | None):
                found[image] = ListedCase((image,), label)
        return found

    def labels_present(self) -> dict[str, tuple[str, ...]]:
        value = self.content.get("labels_present", {})
        form = '"labels_present": {"case_1": ["liver", "spleen"]}'
        if not isinstance(value, dict) or not all(_texts(names) for names in value.values()):
            self.report("E103", '"labels_present" is not a list of structures by case', f"Write it such as {form}.")
            return {}
        return {normal_form(case_id): tuple(names) for case_id, names in value.items()}

    def groups(self) -> dict[str, str]:
        value = self.content.get("groups", {})
        if not isinstance(value, dict):
            self.report("E103", '"groups" is not a group by case', 'Write "groups": {"case_1": "patient_1"}.')
            return {}
        return {normal_form(case_id): str(group) for case_id, group in value.items()}

    def group_pattern(self) -> re.Pattern[str] | None:
        value = self.content.get("group_pattern")
        if value is None:
            return None
        try:
            return re.compile(value)
        except (re.error, TypeError) as error:
            example = r'"group_pattern": "^(patient\\d+)_"'
            found = f'"group_pattern" is {json.dumps(value)}, not a regular expression ({error})'
            self.report("E103", found, f"Write it such as {example}.")
            return None


def _channels_in_order(value: object) -> tuple[str, ...] | None:
    """The names of channels, by their numbers where all are numbered, else in their order, as nnU-Net reads them.

    Returns:
        None where they are no names.
    """
    if not isinstance(value, dict) or not value:
        return None
    if not any(map(_is_number, value)) and all(map(_is_number, value.values())):  # numbers by name
        value = {str(number): name for name, number in value.items()} if len({*value.values()}) == len(value) else {}
    names = {str(key).strip(): name for key, name in value.items() if isinstance(name, str) and name.strip()}
    if len(names) != len(value) or not names:
        return None
    numbered = all(map(_is_number, names))
    return tuple(names[key].strip() for key in (sorted(names, key=int) if numbered else names))


def _is_number(value: object) -> bool:
    return not isinstance(value, bool) and re.fullmatch(r"\s*[0-9]+\s*", str(value)) is not None


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _skeleton(key: str) -> str:
    """Letters without s: singular and plural, with any separators and capitals, are the same."""
    return re.sub(r"[^a-z]|s", "", key.lower())
