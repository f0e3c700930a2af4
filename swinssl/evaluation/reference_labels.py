"""What the values of the references mean: the labels of dataset.json, and which of them were annotated in a case."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.core.text import listed
from swinssl.dataset.case_tables import read_labels_present
from swinssl.dataset.description import DESCRIPTION_FILE, read_description
from swinssl.dataset.labels import LabelSet
from swinssl.metrics.structures import Structure


@dataclass(frozen=True)
class ReferenceLabels:
    """The labels of a data set.

    Args:
        file: its dataset.json.
        labels: structures and their values.
        present: annotated structures by case; a case that is not in it has all.
        channel_names: of the images, in order.
    """

    file: Path
    labels: LabelSet
    present: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    channel_names: tuple[str, ...] = ()

    @classmethod
    def read(cls, file: Path) -> ReferenceLabels:
        """Of a dataset.json.

        Raises:
            UserError: its labels cannot be read, or it declares none.
        """
        description, findings = read_description(file.parent)
        if not description.labels.names:
            # Channels are another matter: nothing here depends on them.
            faults = [f for f in findings if f.severity == "error" and "channel_names" not in f.message]
            told = str(file.parent / str(faults[0])) if faults else f"{file}: declares no structure to evaluate."
            raise UserError(told)
        present = read_labels_present(file.parent, description)
        return cls(file, description.labels, present, description.channel_names)

    def check_declared(self, file: Path, values: Collection[int]) -> None:
        """Refuse label maps of another data set.

        Raises:
            UserError: a value is not declared.
        """
        ignore = self.labels.ignore_value
        declared = [0, *self.labels.raw_values, *([] if ignore is None else [ignore])]
        if undeclared := sorted({*values} - {*declared}):
            raise UserError(
                f"{file}: values {listed(undeclared)}; {self.file} declares {listed(declared)}. Add them to "
                '"labels", relabel the file, or give the dataset.json that it belongs to with --dataset.'
            )

    def annotated(self, case_id: str, structures: tuple[Structure, ...]) -> tuple[Structure, ...]:
        """Those of `structures` that somebody looked for in this case."""
        present = self.present.get(case_id)
        return structures if present is None else tuple(s for s in structures if s.name in present)


def find_reference_labels(predictions: Path, references: Path, dataset: Path | None) -> ReferenceLabels | None:
    """The labels of the references.

    Args:
        predictions: folder or file.
        references: folder or file.
        dataset: a dataset.json or the folder that has it. None looks beside the references' folder, in it, and then
            in the predictions' folder.

    Returns:
        None where nothing says what the values mean.

    Raises:
        UserError: `dataset` has no dataset.json, or the one found declares nothing.
    """
    if dataset is not None:
        file = dataset / DESCRIPTION_FILE if dataset.is_dir() else dataset
        if file.name != DESCRIPTION_FILE or not file.is_file():
            raise UserError(f"--dataset {dataset}: no {DESCRIPTION_FILE} here. Give it, or the folder that has it.")
        return ReferenceLabels.read(file)
    drawn, predicted = (path.parent if path.is_file() else path for path in (references, predictions))
    for folder in (drawn.resolve().parent, drawn, predicted):
        if not files.is_missing(folder / DESCRIPTION_FILE):
            return ReferenceLabels.read(folder / DESCRIPTION_FILE)
    return None
