"""Groups of structures that are averaged together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from swinssl.core.errors import UserError
from swinssl.core.text import did_you_mean, listed

PAPER = "paper"
# arXiv 2605.18491, section 4.1, in any spelling of the structures; the gall bladder is with GI there and with the
# small organs in figure 3, which is followed here.
PAPER_GROUPS = {
    "large": r"liver|spleen|kidney",
    "GI": r"o?esophagus|stomach|pancreas|duodenum",
    "small": r"adrenal|gall",
    "vessels": r"aorta|vena.?cava|postcava|ivc",
    "pelvic": r"(^|[^l])bladder|prostate",
}


def read_groups(given: Sequence[str], structures: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Structures by group.

    Args:
        given: `NAME=STRUCTURE,STRUCTURE` each, or `paper` for the paper's organ groups.
        structures: those that there are.

    Raises:
        UserError: a group is not so written, or names a structure that is not there.
    """
    groups: dict[str, tuple[str, ...]] = {}
    for one in given:
        name, equals, listing = one.partition("=")
        if one == PAPER:
            groups |= _paper_groups(structures)
            continue
        names = tuple(part.strip() for part in listing.split(",") if part.strip())
        if not name or not equals or not names:
            raise UserError(f"--group {one}: expected NAME=STRUCTURE,STRUCTURE or {PAPER}. Write it so.")
        for structure in names:
            if structure not in structures:
                hint = did_you_mean(structure, structures)
                raise UserError(f"--group {one}: no structure {structure!r}. {hint}There are {listed(structures)}.")
        groups[name] = names
    return groups


def groups_within(groups: Mapping[str, Sequence[str]], structures: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The groups of which any structure is there, with those that are."""
    within = {name: tuple(one for one in own if one in structures) for name, own in groups.items()}
    return {name: own for name, own in within.items() if own}


def _paper_groups(structures: Sequence[str]) -> dict[str, tuple[str, ...]]:
    groups: dict[str, list[str]] = {}
    for structure in structures:
        plain = re.sub(r"gall[ _-]*bladder", "gall", structure, flags=re.IGNORECASE)
        name = next((n for n, words in PAPER_GROUPS.items() if re.search(words, plain, re.IGNORECASE)), None)
        # An adrenal gland is not the kidney that some call it after.
        name = "small" if re.search("adrenal|suprarenal", plain, re.IGNORECASE) else name
        if name is not None:
            groups.setdefault(name, []).append(structure)
    if not groups:
        raise UserError(
            f"--group {PAPER}: none of {listed(structures)} is an organ of the paper's groups. Leave it out."
        )
    return {name: tuple(groups[name]) for name in PAPER_GROUPS if name in groups}
