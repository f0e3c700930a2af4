"""The folder that label maps go to: refused before work begins if it should not be written to, whole at any moment.

<folder>/<case><ending>      label map on the grid of the input, with its ending
         <case>.npz          `probabilities`, where they were asked for
         dataset.json        of the model, so that swinssl_evaluate knows the structures
         predict_args.json   `PredictionRecord`
         replaced/           results that were not as they had been written when their cases were predicted again

Several processes may write to one folder with the same model and options.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.core.locks import FileLock
from swinssl.imageio.formats import image_ending, required_ending, single_file_ending, without_ending
from swinssl.imageio.volume import Geometry
from swinssl.imageio.voxel_stream import image_sha256
from swinssl.imageio.writer import write_volume
from swinssl.inference.export import Segmentation
from swinssl.inference.input_cases import InputCase
from swinssl.inference.prediction_record import RECORD_FILE, CaseRecord, PredictionRecord
from swinssl.inference.trained_model import DATASET_FILE, TrainedModel

logger = logging.getLogger(__name__)

REPLACED = "replaced"


class OutputFolder:
    """Results of one model with one set of options; `open` it, `begin`, then `store` case by case."""

    def __init__(self, path: Path, record: PredictionRecord) -> None:
        self.path, self.record = path, record
        self._lock = FileLock(path / ".predict_args.lock")

    @classmethod
    def open(
        cls, path: Path, record: PredictionRecord, cases: Sequence[InputCase], *, overwrite: bool = False
    ) -> OutputFolder:
        """The folder, with what it has already; writes nothing.

        Args:
            record: of the run that is to begin.
            overwrite: forget what the folder has.

        Raises:
            UserError: images of `cases` are in it, it has files that swinssl_predict did not write, or results that
                were made otherwise.
        """
        path = Path(path)
        if (in_the_way := next((p for p in (path, *path.parents) if p.is_file()), None)) is not None:
            what = "is a file" if in_the_way == path else f"{in_the_way} is a file, so nothing can lie in it"
            raise UserError(f"-o {path}: {what}. Give a folder for the label maps.")
        if any(_same_folder(path, image.parent) for case in cases for image in case.images):
            raise UserError(f"-o {path}: the images are in it. Give another folder, so that nothing is overwritten.")
        try:
            earlier = PredictionRecord.read(path)
        except UserError:
            if overwrite:  # a damaged record is one of ours, and all of it is to be forgotten
                return cls(path, record)
            raise
        if earlier is None:
            theirs = [name for name in (DATASET_FILE, *(case.result_name for case in cases)) if (path / name).exists()]
            if theirs:
                raise UserError(
                    f"-o {path}: has {theirs[0]}, but no {RECORD_FILE}, so swinssl_predict did not write it. Give "
                    "another folder, so that nothing is overwritten."
                )
        elif not overwrite:
            if difference := earlier.difference(record):
                raise UserError(
                    f"-o {path}: its results were made with other {difference}. Give another folder, or --overwrite "
                    "to predict anew."
                )
            record = record.with_cases(earlier.cases)
        return cls(path, record)

    def begin(self, model: TrainedModel) -> None:
        """Make the folder and write what is known before the first case.

        Raises:
            UserError: it cannot be written.
        """
        try:
            # First the record: a folder that has other files only is taken for somebody else's.
            self._keep(self.record.cases, anew=self.record.options.overwrite)
            files.write_json(self.path / DATASET_FILE, model.description)
        except OSError as error:
            raise UserError(
                f"-o {self.path}: cannot be written ({os.strerror(error.errno or 0)}). Give another folder, change "
                "its permissions, or free some space."
            ) from None

    def result_path(self, case: InputCase) -> Path:
        """Where the label map of a case is, or will be."""
        return self.path / case.result_name

    def has(self, case: InputCase) -> bool:
        """Whether the result of a case is there, whole, and made from the input as it is now."""
        known = self.record.cases.get(case.id)
        if known is None or known.status != "done" or known.input_sha256 != input_sha256(case):
            return False
        return all(self._is_as_written(path) for path in self._results(case))

    def store(self, case: InputCase, segmentation: Segmentation, geometry: Geometry, known: CaseRecord) -> None:
        """Write the result of a case: probabilities, label map, and that it is done, in this order."""
        self._set_aside(case)
        if segmentation.probabilities is not None:
            with files.atomic_path(self._probabilities_path(case)) as temporary:
                np.savez_compressed(temporary, probabilities=segmentation.probabilities, affine=geometry.affine)
        write_volume(self.result_path(case), segmentation.label_map, geometry)
        hashes = {path.name: files.sha256_of(path) for path in self._results(case)}
        self.note(case, known.model_copy(update={"result_sha256": hashes}))

    def note(self, case: InputCase, known: CaseRecord) -> None:
        """Keep what became of a case.

        Raises:
            UserError: another process has begun to predict otherwise in this folder.
        """
        self._keep({case.id: known})

    def _keep(self, cases: Mapping[str, CaseRecord], *, anew: bool = False) -> None:
        """Write the record with `cases`, and unless `anew` with what other processes have noted since it was read."""
        self._lock.take(wait=True)
        try:
            current = None if anew else PredictionRecord.read(self.path)
            if current is not None:
                if difference := current.difference(self.record):
                    raise UserError(
                        f"-o {self.path}: another swinssl_predict now writes here with other {difference}. Give "
                        "another folder."
                    )
                self.record = self.record.with_cases(current.cases)
            self.record = self.record.with_cases(cases)
            self.record.write(self.path)
        finally:
            self._lock.release(remove=True)

    def _results(self, case: InputCase) -> tuple[Path, ...]:
        probabilities = (self._probabilities_path(case),) if self.record.options.save_probabilities else ()
        return (*probabilities, self.result_path(case))

    def _is_as_written(self, path: Path) -> bool:
        hashes = {name: own for known in self.record.cases.values() for name, own in known.result_sha256.items()}
        return path.is_file() and hashes.get(path.name) == files.sha256_of(path)

    def _set_aside(self, case: InputCase) -> None:
        """Move results away that were damaged or edited since they were written: an edited one is somebody's work."""
        known = self.record.cases.get(case.id)
        if known is None or known.status != "done":  # what is there, a killed process has left
            return
        for path in self._results(case):
            if not path.is_file() or self._is_as_written(path):
                continue
            number = 1
            while (target := self.path / REPLACED / f"{number}_{path.name}").exists():
                number += 1
            target.parent.mkdir(exist_ok=True)
            path.rename(target)
            logger.warning(
                "%s: not as swinssl_predict wrote it (damaged, edited, or by version 0.1.0). It is now %s; the case "
                "was predicted anew.",
                path,
                target.relative_to(self.path),
            )

    def _probabilities_path(self, case: InputCase) -> Path:
        return self.path / f"{case.id}.npz"


class OutputFile(OutputFolder):
    """The label map of one case in a file that the user named; nothing else is written but asked-for probabilities."""

    def __init__(self, file: Path, record: PredictionRecord) -> None:
        super().__init__(file.parent, record)
        self.file = file

    @classmethod
    def open(
        cls, path: Path, record: PredictionRecord, cases: Sequence[InputCase], *, overwrite: bool = False
    ) -> OutputFile:
        """The file, not yet written.

        Raises:
            UserError: several cases are given, the file is there (unless `overwrite`) or is an input, its folder is a
                file, or its ending cannot be written.
        """
        path = Path(path)
        if len(cases) != 1:
            raise UserError(
                f"-o {path}: a file for one case; {len(cases)} are given. Give a folder for the label maps."
            )
        if (ending := single_file_ending(path)) != required_ending(path):
            raise UserError(f"-o {path}: needs a second file for its voxels. Give a name that ends in {ending}.")
        if (in_the_way := next((p for p in path.parents if p.is_file()), None)) is not None:
            raise UserError(f"-o {path}: {in_the_way} is a file, so nothing can lie in it. Give another place.")
        if path.exists() and any(path.samefile(image) for image in cases[0].images):
            raise UserError(f"-o {path}: is the image itself. Give another name, so that nothing is overwritten.")
        if path.exists() and not overwrite:
            raise UserError(f"-o {path}: is there already. Give another name, or --overwrite to replace it.")
        return cls(path, record)

    def begin(self, model: TrainedModel) -> None:
        """Nothing is written before the result."""

    def result_path(self, case: InputCase) -> Path:
        """The file."""
        return self.file

    def has(self, case: InputCase) -> bool:
        """Never: without a record nothing tells what a file was made from."""
        return False

    def note(self, case: InputCase, known: CaseRecord) -> None:
        """Keep it in memory."""
        self.record = self.record.with_cases({case.id: known})

    def _probabilities_path(self, case: InputCase) -> Path:
        return self.file.with_name(f"{without_ending(self.file)}.npz")


def names_a_file(path: Path) -> bool:
    """Whether `-o` means one label map rather than a folder of them."""
    return image_ending(path) is not None and not Path(path).is_dir()


def input_sha256(case: InputCase) -> tuple[str, ...]:
    """Content hashes of a case's images, in the order of the channels."""
    return tuple(image_sha256(path) for path in case.images)


def _same_folder(first: Path, second: Path) -> bool:
    return first.is_dir() and second.is_dir() and first.samefile(second)
