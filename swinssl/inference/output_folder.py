"""The output folder of predictions: checked before work begins, consistent at any moment.

<folder>/<case><ending>      label map on the grid of the input, with its ending
         <case>.npz          `probabilities`, if requested
         dataset.json        of the model, so that swinssl_evaluate knows the structures
         predict_args.json   `PredictionRecord`
         replaced/           results that had been modified when their cases were predicted again

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
    """Results of one model with one set of options: `open`, `begin`, then `store` each case."""

    def __init__(self, path: Path, record: PredictionRecord) -> None:
        self.path, self.record = path, record
        self._lock = FileLock(path / ".predict_args.lock")

    @classmethod
    def open(
        cls, path: Path, record: PredictionRecord, cases: Sequence[InputCase], *, overwrite: bool = False
    ) -> OutputFolder:
        """The folder with its existing results; writes nothing.

        Args:
            record: of the new run.
            overwrite: ignore existing results.

        Raises:
            UserError: it contains images of `cases`, files that swinssl_predict did not write, or results of another
                model or other options.
        """
        path = Path(path)
        if (in_the_way := next((p for p in (path, *path.parents) if p.is_file()), None)) is not None:
            problem = "is a file" if in_the_way == path else f"{in_the_way} is a file, not a folder"
            raise UserError(f"-o {path}: {problem}. Give a folder for the label maps.")
        if any(_same_folder(path, image.parent) for case in cases for image in case.images):
            raise UserError(f"-o {path}: contains the images. Give another folder, so that nothing is overwritten.")
        try:
            earlier = PredictionRecord.read(path)
        except UserError:
            if overwrite:  # swinssl_predict wrote the damaged record, and all results are to be replaced
                return cls(path, record)
            raise
        if earlier is None:
            names = (DATASET_FILE, *(case.result_name for case in cases))
            if foreign := [name for name in names if (path / name).exists()]:
                raise UserError(
                    f"-o {path}: has {foreign[0]}, but no {RECORD_FILE}, so swinssl_predict did not write it. Give "
                    "another folder, so that nothing is overwritten."
                )
        elif not overwrite:
            if difference := earlier.difference(record):
                raise UserError(
                    f"-o {path}: its results were made with other {difference}. Give another folder, or predict all "
                    "cases again with --overwrite."
                )
            record = record.with_cases(earlier.cases)
        return cls(path, record)

    def begin(self, model: TrainedModel) -> None:
        """Create the folder, the record and dataset.json.

        Raises:
            UserError: it cannot be written.
        """
        try:
            # The record first: a folder with other files but no record is refused as foreign.
            self._keep(self.record.cases, replace=self.record.options.overwrite)
            files.write_json(self.path / DATASET_FILE, model.description)
        except OSError as error:
            raise UserError(
                f"-o {self.path}: cannot be written ({os.strerror(error.errno or 0)}). Give another folder, change "
                "its permissions, or free some space."
            ) from None

    def result_path(self, case: InputCase) -> Path:
        """The path of a case's label map, which may not exist yet."""
        return self.path / case.result_name

    def has(self, case: InputCase) -> bool:
        """Whether the result of a case exists, is unmodified, and was made from the current input."""
        known = self.record.cases.get(case.id)
        if known is None or known.status != "done" or known.input_sha256 != input_sha256(case):
            return False
        return all(self._is_as_written(path) for path in self._results(case))

    def store(self, case: InputCase, segmentation: Segmentation, geometry: Geometry, known: CaseRecord) -> None:
        """Write the result of a case: probabilities, label map, then the record."""
        self._set_aside(case)
        if segmentation.probabilities is not None:
            with files.atomic_path(self._probabilities_path(case)) as temporary:
                np.savez_compressed(temporary, probabilities=segmentation.probabilities, affine=geometry.affine)
        write_volume(self.result_path(case), segmentation.label_map, geometry)
        hashes = {path.name: files.sha256_of(path) for path in self._results(case)}
        self.note(case, known.model_copy(update={"result_sha256": hashes}))

    def note(self, case: InputCase, known: CaseRecord) -> None:
        """Record the outcome of a case.

        Raises:
            UserError: another process now predicts into this folder with another model or other options.
        """
        self._keep({case.id: known})

    def _keep(self, cases: Mapping[str, CaseRecord], *, replace: bool = False) -> None:
        """Write the record with `cases` and, unless `replace`, with cases that other processes have recorded since."""
        self._lock.take(wait=True)
        try:
            current = None if replace else PredictionRecord.read(self.path)
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
        hashes = {name: sha256 for known in self.record.cases.values() for name, sha256 in known.result_sha256.items()}
        return path.is_file() and hashes.get(path.name) == files.sha256_of(path)

    def _set_aside(self, case: InputCase) -> None:
        """Move damaged or edited results to `replaced/`: edits are work."""
        known = self.record.cases.get(case.id)
        if known is None or known.status != "done":  # any file there was left by a killed process
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
                "%s: not as swinssl_predict wrote it (damaged, edited, or from version 0.1.0). Moved to %s; the case "
                "was predicted again.",
                path,
                target.relative_to(self.path),
            )

    def _probabilities_path(self, case: InputCase) -> Path:
        return self.path / f"{case.id}.npz"


class OutputFile(OutputFolder):
    """The label map of one case in a named file; nothing else is written except requested probabilities."""

    def __init__(self, file: Path, record: PredictionRecord) -> None:
        super().__init__(file.parent, record)
        self.file = file

    @classmethod
    def open(
        cls, path: Path, record: PredictionRecord, cases: Sequence[InputCase], *, overwrite: bool = False
    ) -> OutputFile:
        """The file, not yet written.

        Raises:
            UserError: several cases are given, the file exists (unless `overwrite`) or is an input, its folder is a
                file, or its format cannot be written.
        """
        path = Path(path)
        if len(cases) != 1:
            raise UserError(
                f"-o {path}: is a file for one case, but {len(cases)} are given. Give a folder for the label maps."
            )
        if (ending := single_file_ending(path)) != required_ending(path):
            raise UserError(f"-o {path}: needs a second file for its voxels. Give a name that ends in {ending}.")
        if (in_the_way := next((p for p in path.parents if p.is_file()), None)) is not None:
            raise UserError(f"-o {path}: {in_the_way} is a file, not a folder. Give another path.")
        if path.exists() and any(path.samefile(image) for image in cases[0].images):
            raise UserError(f"-o {path}: is the image itself. Give another name, so that nothing is overwritten.")
        if path.exists() and not overwrite:
            raise UserError(f"-o {path}: exists already. Give another name, or replace it with --overwrite.")
        return cls(path, record)

    def begin(self, model: TrainedModel) -> None:
        """Nothing is written before the result."""

    def result_path(self, case: InputCase) -> Path:
        """The file."""
        return self.file

    def has(self, case: InputCase) -> bool:
        """Always False: without a record, the input of an existing file is unknown."""
        return False

    def note(self, case: InputCase, known: CaseRecord) -> None:
        """Record the outcome in memory only."""
        self.record = self.record.with_cases({case.id: known})

    def _probabilities_path(self, case: InputCase) -> Path:
        return self.file.with_name(f"{without_ending(self.file)}.npz")


def names_a_file(path: Path) -> bool:
    """Whether `-o` names one label map rather than a folder."""
    return image_ending(path) is not None and not Path(path).is_dir()


def input_sha256(case: InputCase) -> tuple[str, ...]:
    """Content hashes of a case's images, in the order of the channels."""
    return tuple(image_sha256(path) for path in case.images)


def _same_folder(first: Path, second: Path) -> bool:
    return first.is_dir() and second.is_dir() and first.samefile(second)
