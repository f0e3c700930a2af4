"""Plan a raw data set: measure it (or find that it is measured), decide, and leave both where preprocessing looks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swinssl.core.errors import UserError
from swinssl.dataset.raw_dataset import RawDataset
from swinssl.networks.checkpoints.shipped_encoders import encoder_path
from swinssl.planning.encoder_facts import read_encoder_facts
from swinssl.planning.explanation import differences
from swinssl.planning.options import PlanOptions
from swinssl.planning.planner import make_plans
from swinssl.planning.target_machine import target_machine
from swinssl.preprocessing.fingerprint import FINGERPRINT_FILE, Fingerprint
from swinssl.preprocessing.fingerprint_extraction import current_fingerprint
from swinssl.preprocessing.plans import PLANS_FILE, Plans
from swinssl.preprocessing.store import CASES, PROPERTIES

# Not decisions: they follow from others, or only speak of them.
NOT_COMPARED = {"version", "reasons", "cost", "intensity_statistics", "training_spacings", "training_extent_mm"}


@dataclass(frozen=True)
class PlannedDataset:
    """What came out.

    Args:
        measured: the fingerprint was measured now, not found.
        before: the plans that were there, if any.
    """

    fingerprint: Fingerprint
    plans: Plans
    measured: bool
    before: Plans | None

    @property
    def changed(self) -> tuple[str, ...]:
        """Names of the decisions that differ from the plans that were there."""
        if self.before is None:
            return ()
        old, new = (_decisions(plans) for plans in (self.before, self.plans))
        return tuple(name for name in new if old[name] != new[name])

    @property
    def changes(self) -> list[tuple[str, str, str]]:
        """(decision, old value, new value) in words."""
        return [] if self.before is None else differences(self.before, self.plans)

    @property
    def needs_preprocessing(self) -> bool:
        """Whether cases that were preprocessed with the plans that were there are stale."""
        return self.before is not None and self.before.preprocessing_key != self.plans.preprocessing_key

    def stale_cases(self, folder: Path) -> int:
        """How many preprocessed cases in `folder` are made anew by the next preprocessing."""
        return sum(1 for _ in folder.glob(f"{CASES}/*/{PROPERTIES}")) if self.needs_preprocessing else 0

    def stale_models(self, results: Path) -> list[str]:
        """Names of the models in `results` that prepare images, or build the network, otherwise than the plan has it.

        Only those that the plans that were there fitted.
        """
        if self.before is None:
            return []
        old, new = _of_models(self.before), _of_models(self.plans)
        changed = [name for name in new if old[name] != new[name]]
        stale = []
        for path in sorted(results.glob(f"*/{PLANS_FILE}")):
            model = _plans_there(path.parent)
            its = None if model is None else _of_models(model)
            if its is not None and any(its[name] != new[name] for name in changed):
                stale.append(path.parent.name)
        return stale


def plan_dataset(
    raw: RawDataset,
    folder: Path,
    options: PlanOptions,
    *,
    device: str = "auto",
    init: Path | None = None,
    workers: int | None = None,
    write: bool = True,
) -> PlannedDataset:
    """Fingerprint and plans of a raw data set, written to `folder` unless `write` is off.

    Args:
        folder: `<root>/preprocessed/<name>`.
        device: where training will run, as in `--device`; `options.gpu_memory` stands above it.
        init: file of the pretrained encoder to plan for.
        workers: processes that measure; 0 works in this one, None chooses.

    Raises:
        UserError: an option, a case, the encoder's file or the device is not usable.
    """
    folder = Path(folder)
    # What can fail at once comes before the measuring, which can take minutes.
    encoder = None if init is None else read_encoder_facts(encoder_path(init))
    with ThreadPoolExecutor(1) as beside:  # where torch has to tell, which takes a second to import
        machine = beside.submit(target_machine, device, gpu_memory=options.gpu_memory)
        if device != "auto":  # it may not be there
            machine.result()
        fingerprint, measured = current_fingerprint(raw, folder, workers=workers)
    plans = make_plans(fingerprint, options, machine=machine.result(), encoder=encoder)
    before = _plans_there(folder)
    if write:
        if measured:
            fingerprint.write(folder / FINGERPRINT_FILE)
        plans.write(folder / PLANS_FILE)
        raw.copy_description(folder)
    return PlannedDataset(fingerprint, plans, measured, before)


def _decisions(plans: Plans) -> dict[str, Any]:
    decisions = plans.model_dump(mode="json", exclude=NOT_COMPARED)
    if decisions["encoder"] is not None:  # the same encoder at another place is no change
        decisions["encoder"].pop("place")
    return decisions


def _of_models(plans: Plans) -> dict[str, object]:
    """What the folds of one model have in common."""
    network, training = plans.network, plans.training
    return {
        **plans.preprocessing_key,
        "patch": plans.patch_size,
        "network": network,
        "mirroring": training.mirror_axes,
        "encoder": None if plans.encoder is None else plans.encoder.sha256,
    }


def _plans_there(folder: Path) -> Plans | None:
    try:
        return Plans.read(folder) if (folder / PLANS_FILE).is_file() else None
    except UserError:  # of another version: there is nothing to compare with
        return None
