"""What is measured: the structures of a data set, with the values that they have in the arrays."""

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
        name: its name in dataset.json, or its value where there is none.
        values: values of its voxels in the arrays that are compared; several for a region.
        key: how nnU-Net's summary.json calls it: "1", or "(1, 2)" for a region.
        lesions: its connected parts count one by one: a tumour, a metastasis, a target.
    """

    name: str
    values: tuple[int, ...]
    key: str
    lesions: bool = False

    @classmethod
    def of_value(cls, value: int) -> Structure:
        """A structure of which nothing is known but its value."""
        return cls(str(value), (value,), str(value))


def raw_structures(labels: LabelSet) -> tuple[Structure, ...]:
    """The structures of label maps as users have them; lesions count where the name says tumour, lesion or target."""
    return tuple(
        Structure(name, values, _key(values), lesions=tumour)
        for name, values, tumour in zip(labels.names, labels.values, labels.tumour_like, strict=True)
    )


def coded_structures(labels: LabelSet) -> tuple[Structure, ...]:
    """The same for arrays of codes, as the store and the network have them."""
    return tuple(
        Structure(raw.name, codes, raw.key, raw.lesions)
        for raw, codes in zip(raw_structures(labels), labels.structure_codes, strict=True)
    )


def with_lesions(structures: Sequence[Structure], names: Collection[str]) -> tuple[Structure, ...]:
    """The structures, with lesions counted in those of these names too.

    Raises:
        UserError: there is no structure of that name.
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
