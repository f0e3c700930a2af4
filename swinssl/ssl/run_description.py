"""`run.json` of a pretraining run."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from swinssl.ssl.config import PretrainingConfig
from swinssl.training.run_description import EngineRun


class PretrainingRun(EngineRun):
    """One pretraining run.

    Args:
        method: name of the pretext task.
        options: its own choices.
        datasets: names of the data sets.
        volumes: `<data set>/<case>` that crops were drawn from.
        unreadable: those that could not be read, with the reason.
        plans_sha256: of the encoder, the grid and the crop that the run rests on.
        images_per_second: samples over the whole run, all sittings.
        best_score: highest mean Dice of the frozen probe, and the epoch that it was in.
    """

    folder_option: ClassVar[str] = "--out"
    planned: ClassVar[frozenset[str]] = frozenset({"batch_size", "preset", "patch"})

    config: PretrainingConfig
    method: str
    options: dict[str, Any]
    datasets: tuple[str, ...]
    volumes: tuple[str, ...]
    unreadable: dict[str, str] = Field(default_factory=dict)
    plans_sha256: str
    images_per_second: float | None = None
    best_score: float | None = None
    best_epoch: int | None = None

    @property
    def choices(self) -> dict[str, Any]:
        return {**super().choices, "method": self.method, **self.options}

    @property
    def rests_on(self) -> dict[str, object]:
        return {"encoder, grid or crop": self.plans_sha256, "volumes": self.volumes}
