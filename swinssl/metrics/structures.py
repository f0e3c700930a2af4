"""The structures that are measured, with their values in the arrays."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from swinssl.core.errors import UserError
from swinssl.core.text import did_you_mean, listed
from swinssl.dataset.labels import LabelSet


@dataclass(frozen=True)
class Structure:
    """One structure.

    Args:
        name: in dataset.json, or the value if it has no name.
        values: of its voxels in the compared arrays; several for a region.
        key: in nnU-Net's summary.json: "1", or "(1, 2)" for a region.
        lesions: whether its connected components are counted as lesions (tumour, metastasis, target).
    """

    name: str
    values: tuple[int, ...]
    key: str
    lesions: bool = False

    @classmethod
    def of_value(cls, value: int) -> Structure:
        """A structure that is known only by its value."""
        return cls(str(value), (value,), str(value))


def raw_structures(labels: LabelSet) -> tuple[Structure, ...]:
    """The structures of raw label maps; lesions are counted if the name says tumour, lesion or target."""
    return tuple(
        Structure(name, values, _key(values), lesions=tumour)
        for name, values, tumour in zip(labels.names, labels.values, labels.tumour_like, strict=True)
    )


def coded_structures(labels: LabelSet) -> tuple[Structure, ...]:
    """The structures of arrays of label codes, as used by the store and the network."""
    return tuple(
        Structure(raw.name, codes, raw.key, raw.lesions)
        for raw, codes in zip(raw_structures(labels), labels.structure_codes, strict=True)
    )


def with_lesions(structures: Sequence[Structure], names: Collection[str]) -> tuple[Structure, ...]:
    """The structures; lesions are also counted in those named.

    Raises:
        UserError: a name is unknown.
    """
    known = [structure.name for structure in structures]
    for name in names:
        if name not in known:
            raise UserError(
                f"--lesions {name}: no such structure. {did_you_mean(name, known)}There are {listed(known)}."
            )
    return tuple(replace(one, lesions=one.lesions or one.name in names) for one in structures)


def _key(values: tuple[int, ...]) -> str:
    return str(values[0]) if len(values) == 1 else str(values)
