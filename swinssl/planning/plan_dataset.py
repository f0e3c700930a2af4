"""Plan a raw data set: measure it (or find that it is measured), decide, and leave both where preprocessing looks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swinssl.core.errors import UserError
from swinssl.dataset.raw_dataset import RawDataset
from swinssl.networks.checkpoints.shipped_encoders import SCRATCH, encoder_path
from swinssl.planning.encoder_facts import EncoderFacts, planned_encoder_path, read_encoder_facts
from swinssl.planning.explanation import differences
from swinssl.planning.options import PlanOptions
from swinssl.planning.planner import make_plans
from swinssl.planning.target_machine import target_machine
from swinssl.preprocessing.fingerprint import FINGERPRINT_FILE, Fingerprint
from swinssl.preprocessing.fingerprint_extraction import current_fingerprint
from swinssl.preprocessing.plans import PLANS_FILE, Plans
from swinssl.preprocessing.raw_changes import refuse_other_dataset
from swinssl.preprocessing.store import CASES, PROPERTIES

# Not decisions: they follow from others, or only speak of them.
NOT_COMPARED = {
    "version",
    "reasons",
    "warnings",
    "cost",
    "intensity_statistics",
    "training_spacings",
    "training_extent_mm",
}


@dataclass(frozen=True)
class PlannedDataset:
    """What came out.

    Args:
        measured: the fingerprint was measured now, not found.
        before: the plans that were there, if any.
        encoder_kept: the encoder is that of the plans that were there; nobody named one.
    """

    fingerprint: Fingerprint
    plans: Plans
    measured: bool
    before: Plans | None
    encoder_kept: bool = False

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
    init: str | Path | None = None,
    workers: int | None = None,
    write: bool = True,
) -> PlannedDataset:
    """Fingerprint and plans of a raw data set, written to `folder` unless `write` is off.

    Args:
        folder: `<root>/preprocessed/<name>`.
        device: where training will run, as in `--device`; `options.gpu_memory` stands above it.
        init: pretrained encoder to plan for; `scratch` plans without one. None keeps the encoder of the plans that are
            there, unless the network is a CNN.
        workers: processes that measure; 0 works in this one, None chooses.

    Raises:
        UserError: an option, a case, the encoder's file or the device is not usable, or `folder` is that of another
            raw data set.
    """
    folder = Path(folder)
    # What can fail at once comes before the measuring, which can take minutes.
    refuse_other_dataset(raw, folder)
    before = _plans_there(folder)
    encoder = _encoder(init, options, before, folder)
    with ThreadPoolExecutor(1) as beside:  # where torch has to tell, which takes a second to import
        machine = beside.submit(target_machine, device, gpu_memory=options.gpu_memory)
        if device != "auto":  # it may not be there
            machine.result()
        fingerprint, measured = current_fingerprint(raw, folder, workers=workers)
    plans = make_plans(fingerprint, options, machine=machine.result(), encoder=encoder)
    if write:
        fingerprint.write(folder / FINGERPRINT_FILE)
        plans.write(folder / PLANS_FILE)
        raw.copy_description(folder)
    return PlannedDataset(fingerprint, plans, measured, before, encoder_kept=init is None and encoder is not None)


def _encoder(init: str | Path | None, options: PlanOptions, before: Plans | None, folder: Path) -> EncoderFacts | None:
    """The encoder to plan for: the one that was named, else that of the plans that are there."""
    if init is not None:
        return None if str(init) == SCRATCH else read_encoder_facts(encoder_path(init))
    if before is None or before.encoder is None or options.network != "swin":
        return None
    encoder = read_encoder_facts(planned_encoder_path(before, folder))
    if options.preset not in (None, encoder.preset):
        raise UserError(
            f"--preset {options.preset}: the existing plan is for the encoder {encoder.reference.name}, which is of "
            f"another size ({encoder.preset or 'its own'}). Leave --preset out, or plan without the encoder: --init "
            f"{SCRATCH}."
        )
    return encoder


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
