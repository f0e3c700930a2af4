"""nnU-Net in an environment of its own: folders, plans and one fold, trained for so many minutes (nnunet_peer.py)."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from swinssl.core import files
from swinssl.core.machine import usable_cores
from swinssl.dataset.splits import Fold
from swinssl.experiments.benchmark.commands import run

PEER = Path(__file__).with_name("nnunet_peer.py")
PLAIN = "nnUNetPlans"
# Plans other than nnU-Net's default, and the options of its planner that make them. The small ones are for a machine on
# which the others make a handful of steps: on the grid of the other side, patches as for a GPU of 0.3 GB.
SMALL = "nnUNetPlans_small"
RESENC_M = "nnUNetResEncUNetMPlans"
PLANNERS = {
    RESENC_M: ("-pl", "nnUNetPlannerResEncM"),
    SMALL: ("-overwrite_plans_name", SMALL, "-gpu_memory_target", "0.3", "-overwrite_target_spacing"),
}
# By the name under which it is compared.
PEER_PLANS = {"nnunet": PLAIN, "nnunet_resencm": RESENC_M, "nnunet_small": SMALL}
# Axis (z, y, x) that neither side mirrors where ours does not.
LEFT_RIGHT = 2
MOST_PROCESSES = 12


@dataclass(frozen=True)
class NnunetSide:
    """Where nnU-Net works.

    Args:
        python: of an environment with nnunetv2; not resolved, as a virtual environment's is a link.
        root: its folders are made here.
        raw: folder of the raw data set.
    """

    python: Path
    root: Path
    raw: Path

    @property
    def preprocessed(self) -> Path:
        """Its preprocessed data set."""
        return self.root / "preprocessed" / self.raw.name

    def prepare(
        self,
        splits: Path | None = None,
        *,
        plans: str = PLAIN,
        spacing: Sequence[float] = (),
        log: IO[str] | None = None,
    ) -> None:
        """Plan and preprocess, unless that was done, and take over the folds of `splits` (a splits_final.json), if any.

        `spacing` (z, y, x) in mm is that of the small plans.

        A fold that validates on nothing validates on what it trains on: nnU-Net needs something, and keeps its last
        weights whatever comes of it.
        """
        link = self.root / "raw" / self.raw.name
        if not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(self.raw.resolve())
        done = self.preprocessed / f"{plans}.done"
        if not done.exists():
            number = self.raw.name.removeprefix("Dataset").partition("_")[0]
            task = ["-d", int(number), "-c", "3d_fullres", "-np", 2]
            task += [*PLANNERS.get(plans, ()), *(spacing if plans == SMALL else ())]
            run([self.python.parent / "nnUNetv2_plan_and_preprocess", *task], environment=self._environment, stdout=log)
            done.touch()
        if splits is None:
            return
        folds = json.loads(splits.read_text(encoding="utf-8"))
        theirs = [{**fold, "val": fold["val"] or fold["train"]} for fold in folds]
        files.write_json(self.preprocessed / "splits_final.json", theirs)

    def train(
        self,
        *,
        minutes: float,
        fold: int = 0,
        plans: str = PLAIN,
        seed: int = 0,
        device: str = "cpu",
        keep_sides: bool = False,
        cases: Sequence[str] = (),
        split: Fold | None = None,
        images: Path | None = None,
        name: str = "",
        log: IO[str] | None = None,
    ) -> dict[str, Any]:
        """Train a fold and predict; what was done before is only read. Arguments are those of nnunet_peer.py.

        Args:
            split: the cases, instead of those of the fold; `name` then tells it from other splits.

        Returns:
            `predictions` (the folder), `minutes`, `steps` and what else it says.
        """
        out = self.root / f"{plans}_{name}fold{fold}_minutes{minutes:g}.json"
        if not out.exists():
            options = ["--minutes", minutes, "--fold", fold, "--plans", plans, "--seed", seed, "--device", device]
            options += ["--keep-sides"] if keep_sides else []
            options += ["--cases", *cases] if cases else []
            options += ["--images", images] if images else []
            if split is not None:
                chosen = out.with_suffix(".split.json")
                files.write_json(chosen, {"train": list(split.train), "val": list(split.val)})
                options += ["--split", chosen, "--name", name]
            run([self.python, PEER, self.raw.name, out, *options], environment=self._environment, stdout=log)
        return json.loads(out.read_text(encoding="utf-8"))

    @property
    def _environment(self) -> dict[str, str]:
        folders = {f"nnUNet_{name}": str(self.root / name) for name in ("raw", "preprocessed", "results")}
        processes = min(usable_cores(), MOST_PROCESSES)
        return {**os.environ, **folders, "nnUNet_n_proc_DA": str(processes), "nnUNet_compile": "f"}
