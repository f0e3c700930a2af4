"""Cases dealt out so that rare structures are spread evenly: into folds, and into an order of which any start is fair.

The only chance in it is a hash of seed and name, so that every platform and every version of numpy deals alike.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass
class _Unit:
    """What stays together: a group of cases, or a case alone."""

    cases: list[str]
    structures: Counter[str]
    key: str


@dataclass
class _Fold:
    cases: list[str] = field(default_factory=list)
    wanted: dict[str, float] = field(default_factory=dict)


def stratified_folds(
    structures: Mapping[str, Collection[str]], *, folds: int, seed: int, groups: Mapping[str, str] | None = None
) -> list[tuple[str, ...]]:
    """Divide cases into `folds` parts, or as many as there are groups if those are fewer.

    Structure by structure, the rarest first, each group goes to the part that lacks the structure most. Without
    groups the sizes of the parts differ by one at most.

    Args:
        structures: by case, the structures that it has.
        groups: by case, what stays together; a case that is not in it stays alone.

    Source: iterative stratification, Sechidis et al. 2011, ECML PKDD, algorithm 1.
    """
    units = _units(structures, groups or {}, seed)
    parts = min(folds, len(units))
    left = sum((unit.structures for unit in units), Counter[str]())
    dealt = [_Fold(wanted={name: count / parts for name, count in left.items()}) for _ in range(parts)]
    while units:
        rarest = min((name for name, count in left.items() if count > 0), key=lambda n: (left[n], n), default=None)
        unit = next(unit for unit in units if rarest is None or rarest in unit.structures)
        units.remove(unit)
        fold = _neediest(dealt, unit, rarest, len(structures))
        fold.cases += unit.cases
        for name, count in unit.structures.items():
            fold.wanted[name] -= count
        left -= unit.structures
    return [tuple(sorted(fold.cases)) for fold in dealt]


def stratified_order(structures: Mapping[str, Collection[str]], *, seed: int) -> tuple[str, ...]:
    """All cases in an order whose every start has as many structures, and as near their shares, as it can.

    Args:
        structures: by case, the structures that it has.
    """
    share = {name: sum(name in own for own in structures.values()) / len(structures) for name in _names(structures)}
    left = sorted(structures, key=lambda case: _key(seed, "shots", case))
    chosen: list[str] = []
    count: Counter[str] = Counter()

    def fitness(case: str) -> tuple[int, float]:
        own = structures[case]
        new = sum(count[name] == 0 for name in own)
        apart = sum(abs(count[name] + (name in own) - share[name] * (len(chosen) + 1)) for name in share)
        return -new, apart

    while left:
        best = min(left, key=fitness)  # the first of equals, so by hash
        left.remove(best)
        chosen.append(best)
        count.update(structures[best])
    return tuple(chosen)


def _units(structures: Mapping[str, Collection[str]], groups: Mapping[str, str], seed: int) -> list[_Unit]:
    """Large ones first, since they fit nowhere later; equals in the order of their hash."""
    members: dict[tuple[str, str], list[str]] = defaultdict(list)
    for case in sorted(structures):
        members[("group", groups[case]) if case in groups else ("case", case)].append(case)
    units = [
        _Unit(cases, Counter(name for case in cases for name in set(structures[case])), _key(seed, "folds", *name))
        for name, cases in members.items()
    ]
    return sorted(units, key=lambda unit: (-len(unit.cases), unit.key))


def _neediest(folds: Sequence[_Fold], unit: _Unit, structure: str | None, cases: int) -> _Fold:
    """The fold that lacks `structure` most; among equals, and where no structure is left, the emptiest."""
    full = -(-cases // len(folds))
    large = cases % len(folds) or len(folds)  # as many folds may have the larger size

    def has_room(fold: _Fold) -> bool:
        after = len(fold.cases) + len(unit.cases)
        return after < full or (after == full and sum(len(f.cases) >= full for f in folds) < large)

    open_folds = [fold for fold in folds if has_room(fold)]
    if not open_folds or structure is None:
        return min(open_folds or folds, key=lambda fold: len(fold.cases))
    return max(open_folds, key=lambda fold: (fold.wanted[structure], -len(fold.cases)))


def _names(structures: Mapping[str, Collection[str]]) -> list[str]:
    return sorted({name for own in structures.values() for name in own})


def _key(seed: int, *parts: str) -> str:
    return hashlib.blake2b("|".join([str(seed), *parts]).encode(), digest_size=16).hexdigest()
