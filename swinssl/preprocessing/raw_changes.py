"""Whether a raw data set has changed since it was planned and preprocessed; cheap if it has not."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from swinssl.core.errors import UserError
from swinssl.core.text import counted, listed
from swinssl.core.workspace import command_words
from swinssl.dataset.case import Case
from swinssl.dataset.raw_dataset import RawDataset
from swinssl.imageio.image_fault import ImageFault
from swinssl.imageio.voxel_stream import image_sha256
from swinssl.preprocessing.case_properties import CaseProperties, InputFile
from swinssl.preprocessing.fingerprint import FINGERPRINT_FILE, Fingerprint
from swinssl.preprocessing.plans import Plans
from swinssl.preprocessing.store import CASES, PROPERTIES

# Cases named in one line; a data set may have hundreds.
NAMED = 5


@dataclass(frozen=True)
class RawChanges:
    """The differences, by case id.

    Args:
        added: in the raw data set, not among the preprocessed cases.
        removed: among the preprocessed cases, not in the raw data set any more.
        changed: with other files, or other annotated structures, than they were preprocessed from.
        unplanned: in the raw data set and not among the cases that the plan was measured on, or the reverse.
        description: the channels or labels of dataset.json are not those of the plan.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    unplanned: tuple[str, ...] = ()
    description: bool = False

    def lines(self, folder: Path) -> list[str]:
        """One line per difference, with the remedy; empty if nothing changed."""
        preprocess, plan = (command_words(name, folder) for name in ("swinssl_preprocess", "swinssl_plan"))
        said = []
        if self.description:
            said.append(
                f"dataset.json declares other channels or labels than the plan was made for. Plan anew: {plan}, then "
                f"{preprocess}."
            )
        if self.added:
            said.append(f"not preprocessed, so not trained on: {_named(self.added)}. To add them: {preprocess}.")
        if self.changed:
            said.append(f"changed since they were preprocessed: {_named(self.changed)}. To renew them: {preprocess}.")
        if self.removed:
            where = folder / CASES
            said.append(
                f"no longer in the raw data set, but still trained on: {_named(self.removed)}. To leave them out, "
                f"delete their folders in {where}."
            )
        if self.unplanned and not self.description:
            said.append(
                f"the plan was measured on other cases, which differ by {_named(self.unplanned)}. It still holds; to "
                f"plan anew: {plan}."
            )
        return said


def raw_changes(raw: RawDataset, folder: Path) -> RawChanges:
    """Compare a raw data set with the plan and the preprocessed cases in `<root>/preprocessed/<name>`.

    A file of the same size and modification time is taken for the same; others are hashed. Cases that cannot be
    compared, since nothing is known of their files, are left out.

    Raises:
        UserError: the plans or the properties of a case cannot be read, or they are those of another data set.
    """
    folder = Path(folder)
    refuse_other_dataset(raw, folder)
    plans = Plans.read(folder)
    stored = {path.parent.name: CaseProperties.read(path) for path in sorted(folder.glob(f"{CASES}/*/{PROPERTIES}"))}
    cases = {case.id: case for case in raw.cases}
    measured = _measured(folder)
    return RawChanges(
        added=tuple(sorted(cases.keys() - stored.keys())) if stored else (),
        removed=tuple(sorted(stored.keys() - cases.keys())),
        changed=tuple(i for i in sorted(stored.keys() & cases.keys()) if _is_changed(cases[i], stored[i], plans)),
        unplanned=() if measured is None else tuple(sorted(cases.keys() ^ measured)),
        description=(raw.channel_names, raw.labels) != (plans.channel_names, plans.labels),
    )


def refuse_other_dataset(raw: RawDataset, folder: Path) -> None:
    """Refuse a folder that was planned or preprocessed from another raw data set of the same name.

    A data set counts as the same if its path is the same or it shares at least one image: it may move, be copied, grow
    and shrink.

    Args:
        folder: `<root>/preprocessed/<name>`; need not exist.

    Raises:
        UserError: `folder` belongs to another raw data set.
    """
    folder = Path(folder)
    try:
        facts = Fingerprint.read(folder / FINGERPRINT_FILE).swinssl
        source, images = facts.source, set(facts.image_sha256)
    except UserError:
        source, images = None, set()
    if source is not None and os.path.realpath(source) == os.path.realpath(raw.source):
        return
    cases = {case.id: case for case in raw.cases}
    stored = 0
    for path in folder.glob(f"{CASES}/*/{PROPERTIES}"):
        try:
            properties = CaseProperties.read(path)
        except UserError:  # of another version or damaged: it is made again in any case
            continue
        if properties.case_id in cases and _is_unchanged(cases[properties.case_id], properties):
            return
        images |= set(properties.image_sha256.values())
        stored += 1
    if not images or any(_image_is_in(images, path) for case in raw.cases for path in case.images):
        return
    its = f"the plan and {counted(stored, 'preprocessed case')}" if stored else "the plan"
    raise UserError(
        f"{folder}: holds {its} of another raw data set with this name{f', {source}' if source else ''}. It shares no "
        f"image with {raw.source}. To keep both, give another root folder with --root, or rename {raw.source.name} (a "
        f"free id and name). To replace it, delete {folder} first."
    )


def _is_unchanged(case: Case, properties: CaseProperties) -> bool:
    """Whether the first image has the recorded size and modification time; its content is not read."""
    try:
        return input_file(case.images[0]) == properties.input_files.get("image_0000")
    except (IndexError, OSError):
        return False


def _image_is_in(known: Collection[str], path: Path) -> bool:
    try:
        return image_sha256(path) in known
    except (OSError, ImageFault):
        return False


def input_file(path: Path) -> InputFile:
    """Size and modification time of an input file, to recognise an unchanged file without reading it."""
    status = path.stat()
    return InputFile(bytes=status.st_size, mtime_ns=status.st_mtime_ns)


def input_paths(case: Case) -> dict[str, Path]:
    """The files of a case by their names in `CaseProperties`."""
    images = {f"image_{channel:04d}": path for channel, path in enumerate(case.images)}
    return images if case.label is None else {**images, "label": case.label}


def annotated_in(case: Case, plans: Plans) -> tuple[str, ...] | None:
    """The annotated structures in the plans' order, so that their hash does not depend on how they were listed."""
    if case.labels_present is None:
        return None
    return tuple(name for name in plans.labels.names if name in case.labels_present)


def _is_changed(case: Case, properties: CaseProperties, plans: Plans) -> bool:
    paths = input_paths(case)
    if paths.keys() != properties.input_sha256.keys() or annotated_in(case, plans) != properties.labels_present:
        return True
    for name, path in paths.items():
        try:
            same = input_file(path) == properties.input_files.get(name)
            if not same and image_sha256(path) != properties.input_sha256[name]:
                return True
        except (OSError, ImageFault):  # deleted, or no longer an image file
            return True
    return False


def _measured(folder: Path) -> frozenset[str] | None:
    """The cases that the plan was measured on; None if there is no fingerprint."""
    try:
        return frozenset(case.id for case in Fingerprint.read(folder / FINGERPRINT_FILE).swinssl.cases)
    except UserError:
        return None


def _named(cases: tuple[str, ...]) -> str:
    return f"{counted(len(cases), 'case')} ({listed(cases, most=NAMED)})"
