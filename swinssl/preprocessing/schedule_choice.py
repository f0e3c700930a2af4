"""How long to train, at which rate, and when to stop early."""

from __future__ import annotations

from swinssl.preprocessing import paper_protocol
from swinssl.preprocessing.planning_context import TRAINING_SHARE, PlanningContext
from swinssl.preprocessing.plans import TrainingPlan
from swinssl.preprocessing.size_choice import Sizing
from swinssl.progress import duration

STEPS_PER_EPOCH, AUTO_EPOCHS, MOST_EPOCHS = 100, 300, 1000
# Small networks take larger steps than the paper's; a documented guess. With a pretrained encoder too, since the
# decoder is new in any case; the encoder alone is slowed down by --encoder-lr-scale.
SMALL_PRESETS, SMALL_RATE = ("tiny", "small"), 1e-3


def choose_schedule(context: PlanningContext, sizing: Sizing) -> tuple[TrainingPlan, float, dict[str, str]]:
    """Length, rate and patience; hours of the whole; reasons."""
    options, machine = context.options, context.machine
    seconds = context.seconds(sizing.network, sizing.patch, sizing.batch)
    per_step = (
        f"{seconds:.2g} s a step on {machine.cores} cores" if machine.on_cpu else f"{seconds:.2g} s a step (a guess)"
    )
    if context.paper and options.max_minutes is None:
        steps, why = paper_protocol.EPOCHS * STEPS_PER_EPOCH, "the paper's number of epochs"
    else:
        in_time = context.minutes * 60 * TRAINING_SHARE / seconds
        wanted = MOST_EPOCHS * STEPS_PER_EPOCH if options.max_minutes else AUTO_EPOCHS * STEPS_PER_EPOCH
        limited = machine.on_cpu or options.max_minutes is not None
        steps = max(1, int(min(in_time, wanted))) if limited else wanted
        why = f"at most {wanted // STEPS_PER_EPOCH} epochs"
        if limited and in_time < wanted:
            night = "" if options.max_minutes else " (a night; say otherwise with --max-minutes)"
            why = f"what {context.given_time}{night} allow, with {1 - TRAINING_SHARE:.0%} for validation"
    epochs = min(steps, max(10, steps // STEPS_PER_EPOCH))
    per_epoch = steps // epochs  # a little more than 100 where few epochs of 100 would leave much of the time
    patience = None if options.max_minutes is not None else paper_protocol.PATIENCE
    small = sizing.network.preset in SMALL_PRESETS and not context.paper
    rate = SMALL_RATE if small else paper_protocol.LEARNING_RATE
    hours = epochs * per_epoch * seconds / TRAINING_SHARE / 3600
    reasons = {
        "schedule": f"{why}; {per_step}, {duration(hours * 3600)} in all",
        "learning rate": "small networks take larger steps; a documented guess" if small else "the paper's",
        "patience": "none, the time is the limit"
        if patience is None
        else "validations in a row without a better Dice; the paper does not say how many: a documented guess",
    }
    plan = TrainingPlan(learning_rate=rate, epochs=epochs, steps_per_epoch=per_epoch, patience=patience)
    return plan, hours, reasons
