"""The losses: one table, from which the choices of `--loss`, its help and the checks derive.

No torch here, so that commands start fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

# Terms that take the form -log(index) or 1 - index, which `--dice` chooses.
INDEX_TERMS = {"dice", "tversky"}


@dataclass(frozen=True)
class Loss:
    """One value of `--loss`.

    Args:
        purpose: what it is, in a few words, for help texts and messages.
        terms: functions of `losses.terms` that are added up.
    """

    purpose: str
    terms: tuple[str, ...]

    @property
    def has_dice_form(self) -> bool:
        """Whether `--dice` changes it."""
        return not INDEX_TERMS.isdisjoint(self.terms)


LOSSES: Mapping[str, Loss] = {
    "dice_ce": Loss("soft Dice + cross-entropy", ("cross_entropy", "dice")),
    "dice_focal": Loss("soft Dice + focal loss", ("focal", "dice")),
    "tversky_ce": Loss("Tversky (misses weigh more than false alarms) + cross-entropy", ("cross_entropy", "tversky")),
    "generalised_dice_ce": Loss(
        "generalised Dice (structures weigh by 1 / volume^2) + cross-entropy", ("cross_entropy", "generalised_dice")
    ),
    "ce": Loss("cross-entropy alone", ("cross_entropy",)),
}
DEFAULT = "dice_ce"
HELP = f"Loss: {'; '.join(f'{name}, {row.purpose}' for name, row in LOSSES.items())}."


def loss_in_words(name: str, *, activation: str, form: str) -> str:
    """A loss as `--dry-run` shows it; arguments as of `segmentation_loss`."""
    row = LOSSES[name]
    over = "exclusive labels" if activation == "softmax" else "regions"
    index = {"log": "-log(index)", "linear": "1 - index"}[form]
    return f"{name}: {row.purpose}, over {over}{f', {index}' if row.has_dice_form else ''}"


if TYPE_CHECKING:
    LossName = str
else:  # the choices that commands show derive from it
    LossName = Literal[tuple(LOSSES)]
