"""Which cases a raw data set has: from the names of its files, or from a list in dataset.json."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from swinssl.core import files
from swinssl.core.text import did_you_mean, nearest
from swinssl.dataset.case import CHANNEL, FIRST_CHANNEL, Case, case_name, id_findings, split_channels
from swinssl.dataset.checks.finding import Finding
from swinssl.dataset.description import DESCRIPTION_FILE, Description, ListedCase
from swinssl.imageio.formats import dicom_hint, image_ending, is_companion, is_dicom, known_endings, without_ending

IMAGES, LABELS = "imagesTr", "labelsTr"
# What systems leave behind everywhere; names that begin with a dot are passed over as well.
LEFTOVERS = {"thumbs.db", "desktop.ini", "__macosx"}


@dataclass(frozen=True)
class Listing:
    """The cases, sorted by id, and what their files' names say.

    Args:
        channels: number of channels: as described, else as most cases have.
        file_ending: of the images.
    """

    cases: tuple[Case, ...]
    channels: int
    file_ending: str
    findings: tuple[Finding, ...]


def list_cases(folder: Path, description: Description) -> Listing:
    """Find the cases of a raw data set; no image is opened.

    The `dataset` key of dataset.json stands first, then imagesTr and labelsTr, then v1's `training` list.
    """
    lister = _Lister(folder, description)
    if description.cases is not None:
        cases = lister.listed(description.cases)
    elif (folder / IMAGES).is_dir() or not description.training:
        cases = lister.found()
    else:
        cases = lister.listed({case_name(image): case for image, case in description.training.items()})
    cases.sort(key=lambda case: case.id)
    lister.findings += id_findings([case.id for case in cases])
    lister.check_files(cases)
    if not cases and (dicom := dicom_hint(folder)) is not None:
        lister.report("E110", folder, "has no image that swinssl reads", dicom)
    elif not cases:
        lister.report("E110", IMAGES, "has no image", "Put images there, named CASE_0000.nii.gz for the first channel.")
    channels = len(description.channel_names) or max((len(case.images) for case in cases), default=1)
    ending = description.file_ending or usual_ending(cases)
    return Listing(tuple(cases), channels, ending, tuple(lister.findings))


def usual_ending(cases: Sequence[Case]) -> str:
    """Of the cases' images; the first in `known_endings()` that occurs where there are several."""
    used = {image_ending(path) for case in cases for path in case.images}
    return next((ending for ending in known_endings() if ending in used), known_endings()[0])


def resolve_listed(written: str, folder: Path) -> Path:
    """A path as listed: absolute, or relative to `folder`.

    Variables of the environment count where they lead to something. Else they stay as written, so that no message
    shows what they hold.
    """
    expanded = folder / os.path.expandvars(os.path.expanduser(written))  # noqa: PTH111 (keeps an unknown ~user)
    return expanded if "$" not in written or os.path.lexists(expanded) else folder / written


class _Lister:
    """Collects findings on the way."""

    def __init__(self, folder: Path, description: Description) -> None:
        self.folder = folder
        self.description = description
        self.channels = len(description.channel_names)
        self.findings: list[Finding] = []

    def report(self, code: str, file: str | Path, message: str, remedy: str) -> None:
        self.findings.append(Finding(code, self.relative(file), message, remedy))

    def relative(self, path: str | Path) -> str:
        path = Path(path)
        return (path.relative_to(self.folder) if path.is_relative_to(self.folder) else path).as_posix()

    # --- cases listed in dataset.json

    def listed(self, entries: Mapping[str, ListedCase]) -> list[Case]:
        cases = [
            Case(
                id=case_id,
                images=tuple(self.resolved(path) for path in entry.images),
                label=None if entry.label is None else self.resolved(entry.label),
            )
            for case_id, entry in entries.items()
        ]
        for case in cases:
            self.check_channels(case.id, case.images[0], dict(enumerate(case.images)))
        return cases

    def resolved(self, written: str) -> Path:
        return resolve_listed(written, self.folder)

    # --- cases found by the names of files

    def found(self) -> list[Case]:
        labels = self.by_stem(self.image_files(self.folder / LABELS), "label")
        images = self.by_stem(self.with_ending(self.image_files(self.folder / IMAGES)), "image")
        grouped = split_channels(list(images), channels=self.channels, labels=labels)
        if not self.channels:
            self.channels = max((max(c or 0 for c in channels) + 1 for channels in grouped.values()), default=1)
        if self.channels > 1 and grouped and all({*found} == {None} for found in grouped.values()):
            return self.in_one_file(images, labels)
        cases = [self.case(case_id, channels, images, labels) for case_id, channels in sorted(grouped.items())]
        self.check_labels([case.id for case in cases], labels)
        self.check_training([case.id for case in cases])
        unnumbered = [case.images[0] for case in cases if case_name(case.images[0]) == case.id]
        if unnumbered and self.channels == 1:
            message = f"images without the channel number (_0000) in their names: {len(unnumbered)}"
            remedy = "No action needed; nnU-Net itself expects CASE_0000 as the name."
            self.report("N102", unnumbered[0] if len(unnumbered) == 1 else IMAGES, message, remedy)
        return cases

    def image_files(self, folder: Path) -> list[Path]:
        if not folder.is_dir():
            return []
        found = []
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") or path.name.lower() in LEFTOVERS:
                continue
            if path.is_dir():
                self.report("W102", path, "is a folder; it is ignored", "Put its images beside it, or move it.")
            elif image_ending(path) is None and not is_companion(path):
                if is_dicom(path):
                    remedy = "Convert each series to NIfTI, for example with dcm2niix."
                    self.report("W102", path, "is DICOM, which swinssl does not read; it is ignored", remedy)
                    continue
                remedy = f"Convert it to one of {', '.join(known_endings())}, or move it elsewhere."
                self.report("W102", path, "is not an image that swinssl reads; it is ignored", remedy)
            elif image_ending(path) is not None:
                found.append(path)
        capitals = [path for path in found if not path.name.endswith(known_endings())]
        if capitals:
            message = f"file endings in upper case: {len(capitals)}, such as {capitals[0].name}"
            self.report("N106", folder, message, "No action needed; nnU-Net itself expects small letters.")
        return found

    def with_ending(self, paths: list[Path]) -> list[Path]:
        """The files of the declared ending; all, if none is declared."""
        endings = {ending for path in paths if (ending := image_ending(path))}
        declared = self.description.file_ending
        if declared is None:
            if len(endings) > 1:
                message = f"has images ending in {', '.join(sorted(endings))}; all are read"
                self.report("W104", IMAGES, message, "Convert them to one format, or set file_ending in dataset.json.")
            return paths
        left_out = [path for path in paths if image_ending(path) != declared]
        if left_out:
            message = (
                f"images ignored, since they do not end in {declared}: {len(left_out)}, such as {left_out[0].name}"
            )
            self.report("W104", IMAGES, message, "Convert them, or correct file_ending in dataset.json.")
        return [path for path in paths if image_ending(path) == declared]

    def by_stem(self, paths: Sequence[Path], what: str) -> dict[str, Path]:
        """Files by their name without ending; two of one name are reported, the first is taken."""
        found: dict[str, Path] = {}
        for path in paths:
            other = found.setdefault(case_name(path), path)
            if other != path:
                message = f"is the same {what} as {other.name} by its name"
                self.report("E112", path, message, "Remove one of them.")
        return found

    def in_one_file(self, images: Mapping[str, Path], labels: Mapping[str, Path]) -> list[Case]:
        """Cases of which no file has a channel number, although there are several channels: 4D images."""
        first = next(iter(images.values()))
        message = f"has one file per case, such as {first.name}; dataset.json declares {self.channels} channels"
        remedy = (
            f"If they are 4D images, as in the Medical Segmentation Decathlon, `swinssl_convert msd {self.folder}` "
            "splits them. Otherwise name the files CASE_0000, CASE_0001 and so on, by channel."
        )
        self.report("E115", IMAGES, message, remedy)
        return [Case(name, (path,), labels.get(name)) for name, path in sorted(images.items())]

    def case(
        self, case_id: str, channels: Mapping[int | None, str], images: Mapping[str, Path], labels: Mapping[str, Path]
    ) -> Case:
        numbered = {channel or 0: images[stem] for channel, stem in channels.items() if channel is not None}
        if None in channels and 0 in numbered:
            message = f"is the same image as {numbered[0].name} by its name"
            self.report("E112", images[channels[None]], message, "Remove one of them.")
        elif None in channels:
            numbered[0] = images[channels[None]]
        first = numbered[min(numbered)]
        ending = first.name[len(without_ending(first)) :]
        for channel in range(self.channels):  # a missing one where it should be, to be missed there
            numbered.setdefault(channel, self.folder / IMAGES / f"{case_id}_{channel:04d}{ending}")
        self.check_channels(case_id, first, numbered)
        label = labels.get(case_id)
        if label is None and labels:
            label = self.folder / LABELS / f"{case_id}{ending}"
        return Case(case_id, tuple(numbered[channel] for channel in sorted(numbered)), label)

    # --- what does not fit

    def check_channels(self, case_id: str, first: Path, numbered: Mapping[int, Path]) -> None:
        if not self.channels:
            return
        surplus = sorted(channel for channel in numbered if channel >= self.channels)
        if surplus:
            named = ", ".join(numbered[channel].name for channel in surplus)
            message = f"case {case_id} has a channel too many ({named}); dataset.json declares {self.channels}"
            self.report("E108", numbered[surplus[0]], message, "Remove it, or declare it in channel_names.")
        elif CHANNEL.fullmatch(case_name(first)) is None and self.channels > 1 and self.description.cases is None:
            message = f"has no channel number; dataset.json declares {self.channels} channels"
            self.report("E108", first, message, f"Name it {case_id}_0000, _0001 and so on, by its channel.")

    def check_labels(self, ids: Sequence[str], labels: Mapping[str, Path]) -> None:
        names = self.description.labels.names
        if names and ids and not labels:
            message = f"has no label, but dataset.json declares {len(names)} structures"
            self.report("W107", LABELS, message, "Put labels there; without them the images serve for pretraining.")
        for stem, path in labels.items():
            if stem not in ids:
                near = nearest(stem, [case_id for case_id in ids if case_id not in labels])
                rename = f" Rename it {near}{image_ending(path)}, if it belongs to that case." if near else ""
                self.report("W103", path, "has no image", f"Add the image, or remove the label.{rename}")

    def check_training(self, ids: Sequence[str]) -> None:
        listed = [case_name(image) for image in self.description.training]
        missing = [name for name in listed if name not in ids and name.removesuffix(FIRST_CHANNEL) not in ids]
        if missing:
            message = f'"training" lists images that {IMAGES} does not have: {len(missing)}, such as {missing[0]}'
            self.report("E106", DESCRIPTION_FILE, message, "Add them, or remove them from the list.")

    def check_files(self, cases: Sequence[Case]) -> None:
        used = {path for case in cases for path in (*case.images, case.label)}
        for case in cases:
            for path in case.images:
                if files.is_missing(path):
                    self.report("E106", path, f"no such file (an image of {case.id})", self.where(path, used))
            if (label := case.label) is not None and files.is_missing(label):
                self.report("E107", label, f"no such file (the label of {case.id})", self.where(label, used))

    def where(self, missing: Path, used: set[Path | None]) -> str:
        if "$" in str(missing):
            return "Set the variable in its path, or correct dataset.json."
        siblings = {*missing.parent.iterdir()} - used if os.path.isdir(missing.parent) else set()  # noqa: PTH112
        near = did_you_mean(missing.name, sorted(path.name for path in siblings))
        return f"{near}Put the file there, or remove the case."
