"""Plans as text: each decision, its value and the reason."""

from __future__ import annotations

from swinssl.core.text import counted, dimensions, duration
from swinssl.planning.intensity import describe
from swinssl.planning.mirroring import AXES
from swinssl.planning.target_spacing import show
from swinssl.preprocessing.plans import Plans

UNKNOWN = "not estimated"


def explanation(plans: Plans) -> list[tuple[str, str, str]]:
    """(decision, value, reason) in the order of the data flow."""
    training, network = plans.training, plans.network
    size = f"{network.preset}, {network.decoder} decoder" if network.has_swin_encoder else network.architecture
    values = {
        "crop": "non-zero box" if plans.crop_to_nonzero else "none",
        "intensity": "; ".join(describe(intensity) for intensity in plans.intensity),
        "spacing": f"{show(plans.spacing)} mm",
        "resampling": f"order {plans.resampling.image_order}, labels {plans.resampling.label_order}",
        "network": size,
        "norm": network.norm,
        "patch": dimensions(plans.patch_size),
        "batch": str(training.batch_size),
        "sampling": training.sampling,
        "mirroring": ", ".join(AXES[axis] for axis in training.mirror_axes) or "none",
        "loss": training.loss,
        "dice": training.dice,
        "learning rate": f"{training.learning_rate:g}",
        "schedule": f"{training.epochs} x {training.steps_per_epoch} steps",
        "patience": "none" if training.patience is None else f"{training.patience} validations",
        "memory": f"{plans.cost.memory_gb:.2g} GB",
        "time": UNKNOWN if plans.cost.hours is None else duration(plans.cost.hours * 3600),
    }
    if plans.encoder is not None:
        values = {"encoder": plans.encoder.name, **values}
    reasons = {"time": f"on: {plans.reasons.get('machine', plans.cost.device)}", **plans.reasons}
    return [(name, value, reasons.get(name, "")) for name, value in values.items()]


def differences(before: Plans, after: Plans) -> list[tuple[str, str, str]]:
    """(decision, old value, new value) of every decision that differs, as text; estimates do not count."""
    old, new = (_values(plans) for plans in (before, after))
    return [
        (name, old.get(name, "none"), new.get(name, "none"))
        for name in {**new, **old}
        if old.get(name) != new.get(name)
    ]


def _values(plans: Plans) -> dict[str, str]:
    values = {
        "recipe": plans.recipe,
        "channels": ", ".join(plans.channel_names),
        "structures": ", ".join(
            f"{n} {'+'.join(map(str, v))}" for n, v in zip(plans.labels.names, plans.labels.values, strict=True)
        ),
        **{name: value for name, value, _ in explanation(plans) if name not in ("memory", "time")},
    }
    if plans.encoder is not None:
        values["encoder"] += f" ({plans.encoder.sha256[:12]})"
    return values


def summary(plans: Plans, *, steps: int | None = None) -> list[str]:
    """The plan in a few lines.

    Args:
        steps: of a run, where that has another number than planned.
    """
    by_name = {name: value for name, value, _ in explanation(plans)}
    return [
        f"grid      {by_name['spacing']} (median case {dimensions(plans.median_shape)} voxels), {by_name['intensity']}",
        f"network   {by_name['network']}, {by_name['norm']} norm",
        f"training  patches of {by_name['patch']}, batch {by_name['batch']}, {by_name['sampling']} sampling, "
        f"{by_name['schedule'] if steps is None else counted(steps, 'step')}",
        f"mirror    {by_name['mirroring']} ({plans.reasons.get('mirroring', '')})",
        f"cost      {_cost(plans, by_name)}",
        *([f"encoder   {by_name['encoder']}"] if plans.encoder is not None else []),
    ]


def _cost(plans: Plans, by_name: dict[str, str]) -> str:
    if plans.cost.hours is None:
        return f"{UNKNOWN}: another network than planned"
    return f"{by_name['memory']}, {by_name['time']} on {plans.cost.device}"
