"""Write what a converter found as a raw data set in nnU-Net v2's layout; the source is only read.

A file is there whole or not at all, and dataset.json comes last, so that a conversion that was stopped resumes.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.core.terminal import track
from swinssl.core.text import sentences
from swinssl.dataset.case import refuse_unusable
from swinssl.dataset.case_listing import LABELS
from swinssl.dataset.description import DESCRIPTION_FILE
from swinssl.imageio.formats import required_ending
from swinssl.imageio.nifti_volumes import count_volumes, write_volumes

SHOWN = 5


@dataclass(frozen=True)
class SourceCase:
    """A case where it is.

    Args:
        image: one file with all channels.
        label: None for a case of the test set.
        images_folder: imagesTr or imagesTs.
    """

    id: str
    image: Path
    label: Path | None
    images_folder: str

    def targets(self, folder: Path, channels: int) -> list[Path]:
        """The files of its channels in a raw data set."""
        ending = required_ending(self.image)
        return [folder / self.images_folder / f"{self.id}_{channel:04d}{ending}" for channel in range(channels)]

    def label_target(self, folder: Path) -> Path | None:
        """The file of its label in a raw data set."""
        return None if self.label is None else folder / LABELS / f"{self.id}{required_ending(self.label)}"


@dataclass(frozen=True)
class Conversion:
    """A data set that can be written.

    Args:
        description: dataset.json in nnU-Net v2's form.
        channels: volumes of each image.
    """

    source: Path
    description: dict[str, Any]
    channels: int
    cases: tuple[SourceCase, ...]

    def check(self, folder: Path) -> None:
        """Look at everything that would make `write` fail halfway; reads headers only.

        Raises:
            UserError: an image or label is missing or has other volumes than expected, two cases have one name, or the
                folder holds another data set.
        """
        for part in ("imagesTr", "imagesTs"):
            refuse_unusable([case.id for case in self.cases if case.images_folder == part], source=self.source)
        faults = []
        for case in self.cases:
            for path, expected in ((case.image, self.channels), (case.label, 1)):
                try:
                    if path is not None and (found := count_volumes(path)) != expected:
                        faults.append(f"{path}: has {found} volumes; {expected} expected.")
                except UserError as error:
                    faults.append(str(error))
        if faults:
            shown = sentences(faults, most=SHOWN)
            raise UserError(f"{shown} Correct the files, or remove them from the list.")
        there = folder / DESCRIPTION_FILE
        if there.is_file() and self._described(there) != self.description:
            raise UserError(f"{folder}: holds another data set. Give another --dataset, or move it away.")
        if not there.is_file() and self._foreign(folder):
            raise UserError(f"{folder}: has files that are not of this conversion. Give another --dataset.")

    def done(self, folder: Path) -> tuple[SourceCase, ...]:
        """The cases that are converted."""
        return tuple(case for case in self.cases if self._is_done(case, folder))

    def write(self, folder: Path) -> None:
        """Convert what is not there yet.

        Raises:
            UserError: an image is damaged; the cases before it stay.
        """
        todo = [case for case in self.cases if not self._is_done(case, folder)]
        for case in track(todo, "converting", total=len(todo)):
            with ExitStack() as stack:  # all channels of a case appear together, after the image's checksum was right
                targets = [stack.enter_context(files.atomic_path(p)) for p in case.targets(folder, self.channels)]
                write_volumes(case.image, targets)
            if case.label is not None and (target := case.label_target(folder)) is not None:
                with files.atomic_path(target) as temporary:
                    write_volumes(case.label, [temporary])
        if not (folder / DESCRIPTION_FILE).is_file():
            files.write_json(folder / DESCRIPTION_FILE, self.description)

    def _is_done(self, case: SourceCase, folder: Path) -> bool:
        targets = [*case.targets(folder, self.channels), case.label_target(folder)]
        return all(path.is_file() for path in targets if path is not None)

    def _described(self, file: Path) -> object:
        try:
            return json.loads(files.read_text(file))
        except ValueError:
            return None

    def _foreign(self, folder: Path) -> bool:
        expected = {path for case in self.cases for path in case.targets(folder, self.channels)}
        expected |= {path for case in self.cases if (path := case.label_target(folder)) is not None}
        present = (
            [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")] if folder.exists() else []
        )
        return not expected.issuperset(present)
