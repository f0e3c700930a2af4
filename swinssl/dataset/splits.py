"""Splits of a data set: cross-validation folds and few-shot subsets, stratified and nested."""

from __future__ import annotations

import errno
import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.core.text import did_you_mean, listed
from swinssl.dataset.case import normal_form

logger = logging.getLogger(__name__)

SPLITS_FILE, SHOTS_FILE = "splits_final.json", "splits_shots.json"
FOLDS = 5
# Folds are the same for all runs of a data set, so their seed is not the run's.
SPLIT_SEED = 0
ALL = "all"
FORM = 'Expected is [{"train": ["case_1", ...], "val": ["case_2", ...]}, ...], one entry a fold.'
SHOWN = 3
READ_ONLY_ERRNOS = {errno.EROFS, errno.EACCES, errno.EPERM}


@dataclass(frozen=True)
class Fold:
    """One way to divide the cases."""

    train: tuple[str, ...]
    val: tuple[str, ...]


def fold_of(
    folder: Path,
    fold: str,
    *,
    structures: Mapping[str, Collection[str]],
    groups: Mapping[str, str] | None = None,
    keep: bool = True,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The training and validation cases of a fold.

    Args:
        folder: with splits_final.json.
        keep: write the folds there if it has none (see `load_or_make_splits`).
        fold: its number, or `all`: every case trains, and none is left to validate.
        structures: by annotated case, the structures that it has.
        groups: by case, what stays on one side.

    Raises:
        UserError: there is no such fold, or the file does not fit the cases.
    """
    folds = load_or_make_splits(folder, structures=structures, groups=groups, keep=keep)
    if fold == ALL:
        return tuple(sorted(structures)), ()
    if not fold.isdecimal() or int(fold) >= len(folds):
        raise UserError(
            f"--fold {fold}: {folder / SPLITS_FILE} has the folds 0 to {len(folds) - 1}. Choose one of them, or all."
        )
    chosen = folds[int(fold)]
    return chosen.train, chosen.val


def load_or_make_splits(
    folder: Path,
    *,
    structures: Mapping[str, Collection[str]],
    groups: Mapping[str, str] | None = None,
    keep: bool = True,
) -> tuple[Fold, ...]:
    """The folds in a folder; made where there are none, and written there with `keep` if the folder can be written to.

    They are the same at each call, so a folder of somebody else's need not be written to. See `make_splits`.

    Raises:
        UserError: there is no case, or the file does not fit the cases.
    """
    path = Path(folder) / SPLITS_FILE
    if not structures:
        raise UserError(f"{folder}: no case has labels, so there is nothing to divide. Add labels, then preprocess.")
    if not files.is_missing(path):
        folds = read_splits(path)
        check_splits(path, folds, cases=structures, groups=groups)
        _mention_unused(path, folds, structures)
        return folds
    folds = make_splits(structures, groups=groups)
    if keep:
        _keep(path, [{"train": list(fold.train), "val": list(fold.val)} for fold in folds])
    return folds


def _keep(path: Path, content: Any) -> None:
    """Write what is the same at each call, unless the folder is read-only."""
    try:
        files.write_json(path, content)
    except OSError as error:
        if error.errno not in READ_ONLY_ERRNOS:
            raise
        logger.warning(
            "%s: cannot be written (%s), so these cases are drawn again at each call, from the same seed. As long as "
            "the data set stays as it is, they are the same ones.",
            path,
            error.strerror,
        )


def make_splits(
    structures: Mapping[str, Collection[str]],
    *,
    groups: Mapping[str, str] | None = None,
    folds: int = FOLDS,
    seed: int = SPLIT_SEED,
) -> tuple[Fold, ...]:
    """Folds of a cross-validation: groups whole, rare structures spread, the same on every platform.

    With fewer groups than folds, as many folds as groups. One group alone trains and validates on itself: that shows
    that training works, and nothing more.

    Args:
        structures: by case, the structures that it has.
        groups: by case, what stays on one side; a case that is not in it is a group of its own.
    """
    parts = stratified_folds(structures, folds=folds, seed=seed, groups=groups)
    if len(parts) == 1:
        return (Fold(parts[0], parts[0]),)
    return tuple(Fold(tuple(sorted({*structures} - {*part})), part) for part in parts)


def read_splits(path: Path) -> tuple[Fold, ...]:
    """The folds of a splits_final.json.

    Raises:
        UserError: missing, not JSON, or not of that form.
    """
    content = files.read_json(path, what="splits", remedy=FORM)
    if not isinstance(content, list) or not content or not all(map(_is_fold, content)):
        raise UserError(f"{path}: not of the form of splits. {FORM}")
    return tuple(Fold(*(tuple(map(normal_form, entry[side])) for side in ("train", "val"))) for entry in content)


def check_splits(
    path: Path, folds: Sequence[Fold], *, cases: Collection[str], groups: Mapping[str, str] | None = None
) -> None:
    """Refuse folds that name unknown cases, or let a case or a group train and validate.

    One case, or one group, is allowed to: there is no other way.

    Raises:
        UserError: naming the first problem.
    """
    group_of = {case: (groups or {}).get(case, f"case {case}") for case in cases}
    alone = len(set(group_of.values())) == 1
    for number, fold in enumerate(folds):
        named = f"{path}: fold {number}"
        unknown = [case for case in (*fold.train, *fold.val) if case not in group_of]
        if unknown:
            raise UserError(
                f"{named} names cases that are not in the data set: {len(unknown)} ({listed(unknown, most=SHOWN)}). "
                f"{did_you_mean(unknown[0], group_of)}Correct the file, or preprocess these cases."
            )
        twice = [case for side in (fold.train, fold.val) for case, n in Counter(side).items() if n > 1]
        if twice:
            raise UserError(f"{named} names {twice[0]} twice on one side. Name it once.")
        if not fold.train:
            raise UserError(f"{named} has no training case. {FORM}")
        if alone:
            continue
        both = sorted({*fold.train} & {*fold.val})
        if both:
            raise UserError(
                f"{named} has {both[0]} on both sides. Keep it on one side; otherwise the result is meaningless."
            )
        of_both = sorted({group_of[case] for case in fold.train} & {group_of[case] for case in fold.val})
        if of_both:
            raise UserError(
                f"{named} has cases of group {of_both[0]} on both sides. Keep each group on one side, or the result is "
                "meaningless; or correct the groups."
            )


def shots_subset(
    folder: Path,
    train: Sequence[str],
    shots: int,
    *,
    seed: int,
    fold: str,
    structures: Mapping[str, Collection[str]],
    keep: bool = True,
) -> tuple[str, ...]:
    """`shots` of a fold's training cases: nested (5 in 10 in 20), stratified, and the same at the next call.

    The order is kept in `splits_shots.json` of the folder: {"fold_0": {"seed_0": [cases in order]}}.

    Args:
        train: the fold's training cases.
        shots: how many.
        seed: of the run; another seed has another order.
        fold: number of the fold, or `all`.
        structures: by case, the structures that it has.
        keep: write the order if it is new and the folder can be written to.

    Raises:
        UserError: there are fewer cases, or the kept order is of other cases.
    """
    path = Path(folder) / SHOTS_FILE
    if not 1 <= shots <= len(train):
        raise UserError(f"--shots {shots}: fold {fold} has {len(train)} training cases. Give 1 to {len(train)}.")
    remedy = "Delete it to draw a new order; earlier runs used other subsets."
    kept: dict[str, Any] = (
        files.read_json(path, what="few-shot order", remedy=remedy) if not files.is_missing(path) else {}
    )
    if not isinstance(kept, dict) or not all(isinstance(orders, dict) for orders in kept.values()):
        raise UserError(f"{path}: not of the form of few-shot orders. {remedy}")
    orders = kept.setdefault(f"fold_{fold}", {})
    order = orders.get(f"seed_{seed}")
    if order is None:
        order = stratified_order({case: structures[case] for case in train}, seed=seed)
        orders[f"seed_{seed}"] = list(order)
        if keep:
            _keep(path, kept)
    elif not isinstance(order, list) or sorted(order) != sorted(train):
        raise UserError(f"{path}: fold {fold}, seed {seed} orders other cases than those that train now. {remedy}")
    return tuple(order[:shots])


def _is_fold(entry: object) -> bool:
    if not isinstance(entry, dict):
        return False
    sides = [entry.get("train"), entry.get("val")]
    return all(isinstance(side, list) and all(isinstance(case, str) for case in side) for side in sides)


def _mention_unused(path: Path, folds: Sequence[Fold], cases: Collection[str]) -> None:
    used = {case for fold in folds for case in (*fold.train, *fold.val)}
    unused = sorted({*cases} - used)
    if unused:
        shown = listed(unused, most=SHOWN)
        logger.warning("%s: cases that no fold has: %d (%s). Add them, or delete it.", path, len(unused), shown)


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
    share = {
        name: sum(name in present for present in structures.values()) / len(structures) for name in _names(structures)
    }
    left = sorted(structures, key=lambda case: _key(seed, "shots", case))
    chosen: list[str] = []
    count: Counter[str] = Counter()

    def rank(case: str) -> tuple[int, float]:
        present = structures[case]
        new = sum(count[name] == 0 for name in present)
        apart = sum(abs(count[name] + (name in present) - share[name] * (len(chosen) + 1)) for name in share)
        return -new, apart

    while left:
        best = min(left, key=rank)  # the first of equals, so by hash
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
    return sorted({name for names in structures.values() for name in names})


def _key(seed: int, *parts: str) -> str:
    return hashlib.blake2b("|".join([str(seed), *parts]).encode(), digest_size=16).hexdigest()
