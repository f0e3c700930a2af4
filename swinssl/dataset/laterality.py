"""Which structures are left or right: from their names, in the words of the conventions that data sets use.

An image mirrored from left to right shows a right kidney where a left one was. Training on it is right only where no
structure is told apart by its side.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

LOBES = "TG-263, lobes of the lungs"
# One convention per row: words for left, and words for right. A word of one row is the partner of that row's alone.
SIDE_WORDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "English, TotalSegmentator": (("left", "lft", "lt", "l"), ("right", "rgt", "rt", "r")),
    "FreeSurfer": (("lh",), ("rh",)),
    LOBES: (("lul", "lll"), ("rul", "rml", "rll")),
    "German, Dutch": (
        ("links", "linke", "linker", "linkes", "linken", "li", "lks"),
        ("rechts", "rechte", "rechter", "rechtes", "rechten", "re", "rts"),
    ),
    "French": (("gauche", "gauches", "gche", "g"), ("droite", "droites", "droit", "droits", "drt", "d")),
    "Spanish": (
        ("izquierda", "izquierdas", "izquierdo", "izquierdos", "izq", "izda", "izdo", "izqda", "izqdo", "i"),
        ("derecha", "derechas", "derecho", "derechos", "der", "dcha", "dcho", "drcha", "drcho", "d"),
    ),
    "Portuguese": (("esquerda", "esquerdo", "esq"), ("direita", "direito", "dir")),
    "Italian": (("sinistra", "sinistro", "sx"), ("destra", "destro", "dx")),
    "Latin": (("sinister", "sinistrum", "sin", "os"), ("dexter", "dextra", "dextrum", "dex", "od")),
}
# Words that mean a side even where no structure has the other one.
CERTAIN = {word for row in SIDE_WORDS.values() for side in row for word in side if len(word) > 4} | {"left", "lh", "rh"}
# The last or first word of a TG-263 name.
LETTERS = {"l", "r"}
# Also found as the beginning or the end of a word: lparotid, leftkidney, Nierelinks.
PART_OF_WORD = CERTAIN | LETTERS | {"lt", "rt"}
# Words that contain the name of a side by chance; L and R after these count vertebrae.
OTHER_WORDS = {"bright", "upright", "cleft", "leftover", "birthright", "outright", "droits"}
COUNTED = {"vertebra", "vertebrae", "vertebral", "vb", "spine", "level", "type", "grade"}


@dataclass(frozen=True)
class Laterality:
    """Structures that are told apart by their side.

    Args:
        pairs: (left, right) structures whose names differ in the side alone.
        single: structures of one side whose partner is not declared. Mirrored, the partner looks like the structure,
            and is labelled background.
    """

    pairs: tuple[tuple[str, str], ...] = ()
    single: tuple[str, ...] = ()

    @classmethod
    def of(cls, names: Sequence[str]) -> Laterality:
        """What the names of all structures of a data set say."""
        sides: dict[tuple[str, tuple[str, ...]], tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
        for name in names:
            for convention, side, rest in _readings(name):
                members = sides[convention, rest][side]
                if name not in members:
                    members.append(name)
        pairs = {(left[0], right[0]): None for left, right in sides.values() if left and right and left[0] != right[0]}
        paired = {name for pair in pairs for name in pair}
        single = tuple(name for name in names if name not in paired and _names_a_side(name))
        ordered = sorted(pairs, key=lambda pair: [names.index(name) for name in pair])
        return cls(tuple(ordered), single)

    def __bool__(self) -> bool:
        return bool(self.pairs or self.single)

    def __str__(self) -> str:
        """Why structures are lateral, with examples."""
        if self.pairs:
            more = f" and {len(self.pairs) - 1} more pairs" if len(self.pairs) > 1 else ""
            return f"{' and '.join(self.pairs[0])}{more} differ in their side alone"
        if self.single:
            more = f" and {len(self.single) - 1} more" if len(self.single) > 1 else ""
            return f"{self.single[0]}{more} is on one side, and its mirror image would look like the other side's"
        return "no structure's name says left or right"


def _words(name: str) -> list[str]:
    """Small letters without accents; a number stays with the letters before it (L1, C7)."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})", " ", plain)
    return re.findall(r"[a-z]+\d*|\d+", apart.lower())


def _readings(name: str) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    """(convention, 0 left or 1 right, name without the side) of every way to find one side in a name."""
    words = _words(name)
    for convention, row in SIDE_WORDS.items():
        for side, own in enumerate(row):
            for place, word in enumerate(words):
                before, after = tuple(words[:place]), tuple(words[place + 1 :])
                if word in own:
                    # The lobes of TG-263 keep what they have in common: LLL and RLL are lower lobes.
                    kept = (word[1:],) if convention == LOBES else ()
                    yield convention, side, (*before, *kept, *after)
                for form in own:
                    if form not in PART_OF_WORD or word in OTHER_WORDS or len(word) - len(form) < 2:
                        continue
                    if word.startswith(form):
                        yield convention, side, (*before, word.removeprefix(form), *after)
                    if word.endswith(form):
                        yield convention, side, (*before, word.removesuffix(form), *after)


def _names_a_side(name: str) -> bool:
    """Whether a name means one side by itself; a name with both sides (kidneys_left_right) means neither."""
    words = [word for word in _words(name) if word not in OTHER_WORDS]
    if not words:
        return False
    ends = {words[0], words[-1]} & LETTERS if len(words) > 1 and not COUNTED & {*words} else set()
    found: set[int] = set()
    for convention, row in SIDE_WORDS.items():
        for side, own in enumerate(row):
            certain = {form for form in own if form in CERTAIN or convention == LOBES}
            parts = any(
                word.startswith(form) or word.endswith(form)
                for word in words
                for form in certain
                if len(form) > 3 and len(word) - len(form) > 1
            )
            if {*words} & certain or parts or ends & {*own}:
                found.add(side)
    return len(found) == 1
