"""Which cases train, validate and test where few are labelled: the test is the same for every seed, training is not."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from swinssl.core.errors import UserError
from swinssl.core.rng import generator
from swinssl.dataset.splits import Fold

# Folds are made for so many seeds at once, so that a further seed does not change the file of splits.
SEEDS = 10
TRAIN, VALIDATION, TEST = 5, 5, 20


@dataclass(frozen=True)
class FewLabels:
    """The cases of a comparison.

    Args:
        test: never trained on, never validated on; in order of their names.
        folds: of each seed.
    """

    test: tuple[str, ...]
    folds: tuple[Fold, ...]

    @property
    def members(self) -> tuple[tuple[Fold, ...], ...]:
        """Of each seed, its training cases cross-validated: as many folds, each trained on all of them but one."""
        return tuple(
            tuple(Fold(tuple(other for other in fold.train if other != case), (case,)) for case in fold.train)
            for fold in self.folds
        )

    @property
    def all_folds(self) -> tuple[Fold, ...]:
        """As they are numbered in the file of splits."""
        return (*self.folds, *(member for own in self.members for member in own))

    def numbers_of_members(self, seed: int) -> range:
        """Where those of a seed are among all folds."""
        first = len(self.folds) + sum(map(len, self.members[:seed]))
        return range(first, first + len(self.members[seed]))


def divide(
    cases: Collection[str], *, train: int = TRAIN, validation: int = VALIDATION, test: int = TEST, seeds: int = SEEDS
) -> FewLabels:
    """The last `test` of the cases in a drawn order, and for each seed some of the others, drawn anew.

    The same everywhere and for ever; the order in which cases are given does not matter.

    Raises:
        UserError: there are fewer cases.
    """
    if train + validation + test > len(cases):
        raise UserError(
            f"{len(cases)} cases are too few for {train} to train, {validation} to validate and {test} to test. "
            "Give less to --val or --test."
        )
    drawn = _drawn(sorted(cases), seed=0, purpose="few labels: test cases")
    others, tested = drawn[: len(drawn) - test], drawn[len(drawn) - test :]
    folds = []
    for seed in range(seeds):
        own = _drawn(sorted(others), seed=seed, purpose="few labels: training and validation cases")
        folds.append(Fold(tuple(sorted(own[:train])), tuple(sorted(own[train : train + validation]))))
    return FewLabels(tuple(sorted(tested)), tuple(folds))


def _drawn(cases: list[str], *, seed: int, purpose: str) -> list[str]:
    return [cases[i] for i in generator(seed, purpose).permutation(len(cases))]
