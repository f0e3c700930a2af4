"""The plans of one run: those of the data set, with what the user chose for this run."""

from __future__ import annotations

from typing import Any

from swinssl.core.errors import UserError
from swinssl.networks.network_plan import NetworkPlan, encoder_preset
from swinssl.planning.mirroring import choose_mirroring
from swinssl.preprocessing.plans import Cost, Plans, TrainingPlan
from swinssl.training.config import TrainingConfig
from swinssl.training.engine.config import EngineConfig
from swinssl.training.engine.progress import Length
from swinssl.training.losses.registry import LOSSES

# A run of few steps still shows several points in its log.
LEAST_EPOCHS = 10
# Without a number of steps and without a guess, a run of so many minutes starts as if it had these.
UNKNOWN_STEPS = 10_000
# By option, the row of the plan's explanation whose reason it overrules.
ROW_OF = {
    "batch_size": "batch",
    "lr": "learning rate",
    "epochs": "schedule",
    "patience": "patience",
    "dice": "dice",
    "preset": "network",
    "network": "network",
    "decoder": "network",
    "norm": "norm",
}


def effective_plans(plans: Plans, config: TrainingConfig) -> Plans:
    """The plans that a run trains with, keeps beside its weights and is predicted with.

    They do not say where the planned encoder's file lay, since models travel.

    Raises:
        UserError: an unknown preset, axes that cannot be read, or options that exclude each other.
    """
    if config.dice is not None and not LOSSES[config.loss].has_dice_form:
        raise UserError(f"--dice {config.dice}: --loss {config.loss} has no term of this form. Leave out --dice.")
    chosen: dict[str, Any] = {
        "batch_size": config.batch_size,
        "learning_rate": config.lr,
        "epochs": config.epochs,
        "patience": config.patience,
        "dice": config.dice,
    }
    asked = {row: "as asked" for name, row in ROW_OF.items() if getattr(config, name) is not None}
    reasons = {**plans.reasons, **asked}
    warnings = tuple(warning for warning in plans.warnings if warning.decision not in asked)
    if config.mirror is not None:
        chosen["mirror_axes"], reasons["mirroring"], mirroring = choose_mirroring(plans.labels, config.mirror)
        warnings = (*(warning for warning in warnings if warning.decision != "mirroring"), *mirroring)
    training = plans.training.model_copy(update={name: v for name, v in chosen.items() if v is not None})
    network = _network(plans.network, config)
    encoder = None if plans.encoder is None else plans.encoder.model_copy(update={"place": None})
    return plans.model_copy(
        update={
            "training": training,
            "network": network,
            "encoder": encoder,
            "cost": _cost(plans, config, training, network),
            "reasons": reasons,
            "warnings": warnings,
        }
    )


def run_length(plans: Plans, config: TrainingConfig) -> Length:
    """Steps, epochs and minutes of a run with (effective) `plans`."""
    training, minutes = plans.training, config.max_minutes
    return length_of(
        config,
        epochs=training.epochs,
        steps_per_epoch=training.steps_per_epoch,
        step_seconds=plans.cost.step_seconds_cpu if plans.cost.device == "cpu" else None,
        # With a time limit the planned patience would mostly end the run before its schedule does.
        patience=config.patience if minutes is not None else training.patience,
    )


def planned_steps(plans: Plans, config: TrainingConfig) -> int:
    """Steps that a run with (effective) `plans` makes if neither time nor patience ends it."""
    return config.steps or plans.training.epochs * plans.training.steps_per_epoch


def length_of(
    config: EngineConfig, *, epochs: int, steps_per_epoch: int, step_seconds: float | None, patience: int | None = None
) -> Length:
    """The length that a user chose.

    Args:
        epochs: of the run, where it has neither a number of steps nor of minutes.
        steps_per_epoch: steps that are called an epoch.
        step_seconds: a guess of a step's time; None where there is none.
        patience: validations in a row without a better score before the run ends.
    """
    minutes, steps = config.max_minutes, config.steps
    if steps is None and (config.epochs is not None or minutes is None):
        steps = epochs * steps_per_epoch
    expected = steps
    if minutes is not None:
        affordable = UNKNOWN_STEPS if step_seconds is None else max(1, int(minutes * 60 / step_seconds))
        expected = min(affordable, steps or affordable)
    assert expected is not None  # steps are None only with minutes
    per_epoch = min(steps_per_epoch, max(1, expected // LEAST_EPOCHS))
    return Length(steps=steps, expected=expected, steps_per_epoch=per_epoch, minutes=minutes, patience=patience)


def _cost(plans: Plans, config: TrainingConfig, training: TrainingPlan, network: NetworkPlan) -> Cost:
    """The planned cost for the length of the run; another network or batch than planned was not estimated."""
    cost, planned = plans.cost, plans.training
    if cost.hours is None or network != plans.network or training.batch_size != planned.batch_size:
        return cost.model_copy(update={"hours": None})
    steps = config.steps or training.epochs * training.steps_per_epoch
    hours = cost.hours * steps / (planned.epochs * planned.steps_per_epoch)
    if config.max_minutes is not None:
        hours = min(hours, config.max_minutes / 60)
    return cost.model_copy(update={"hours": round(hours, 6)})


def _network(planned: NetworkPlan, config: TrainingConfig) -> NetworkPlan:
    changes: dict[str, Any] = {}
    if config.preset is not None and config.preset != planned.preset:
        changes |= {"preset": config.preset, "encoder": encoder_preset(config.preset)}
    for name, wish in (
        ("architecture", config.network),
        ("decoder", config.decoder),
        ("norm", config.norm),
        ("deep_supervision", config.deep_supervision),
    ):
        if wish is not None:
            changes[name] = wish
    return planned.model_copy(update=changes)
