"""From what was measured to what is done: every decision about a data set, each with its reason in words.

Kept from nnU-Net: target spacing, crop, resampling orders and the separate coarse axis, the 5 % cap of the batch. Its
topology search is replaced: a Swin encoder has one topology, so what is chosen is its size, its patch and, on a CPU,
the grid, within the memory and the time there are.
"""

from __future__ import annotations

import numpy as np

from swinssl.core.geometry import Spacing
from swinssl.core.text import counted, dimensions, duration
from swinssl.dataset.checks.unlike_cases import unlike_volumes
from swinssl.planning import options as paper_protocol
from swinssl.planning.context import TRAINING_SHARE, PlanningContext
from swinssl.planning.encoder_facts import EncoderFacts, learnt_otherwise
from swinssl.planning.intensity import choose_intensities
from swinssl.planning.mirroring import choose_mirroring
from swinssl.planning.options import PlanOptions
from swinssl.planning.sampling import choose_sampling
from swinssl.planning.size import Sizing, choose_sizing
from swinssl.planning.target_machine import TargetMachine
from swinssl.planning.target_spacing import as_triple, show
from swinssl.preprocessing.fingerprint import Fingerprint
from swinssl.preprocessing.plans import Cost, Plans, PlanWarning, Resampling, TrainingPlan


def make_plans(
    fingerprint: Fingerprint,
    options: PlanOptions,
    *,
    machine: TargetMachine,
    encoder: EncoderFacts | None = None,
) -> Plans:
    """Decide everything; touches no disk and no device.

    Args:
        machine: what training has to fit into.
        encoder: the pretrained encoder that training starts from, if any.

    Raises:
        UserError: an option cannot be read or met.
    """
    context = PlanningContext(fingerprint, options, machine, encoder)
    facts = fingerprint.swinssl
    sizing = choose_sizing(context)
    kinds = fingerprint.channel_kinds
    intensity, why_intensity, intensity_warnings = choose_intensities(
        fingerprint,
        options.intensity,
        kinds=kinds,
        paper=context.paper,
        encoder_intensity=encoder.intensity if encoder else None,
    )
    sampling, why_sampling = choose_sampling(fingerprint, options.sampling)
    training, hours, why_schedule = choose_schedule(context, sizing)
    memory = context.memory(sizing.network, sizing.patch, sizing.batch)
    mirror_axes, why_mirroring, mirroring_warnings = choose_mirroring(facts.labels, options.mirror)
    spacings, extents = np.asarray(fingerprint.spacings, float), fingerprint.extents_mm
    reasons = {
        **sizing.reasons,
        "intensity": why_intensity,
        "crop": _crop_reason(fingerprint),
        "resampling": _resampling_reason(fingerprint, sizing.spacing),
        "sampling": why_sampling,
        "loss": _loss_reason(context),
        "dice": (
            "1 - Dice, as in the paper"
            if context.paper
            else "-log(Dice): small structures keep their gradient while their Dice is near 0"
        ),
        "mirroring": why_mirroring,
        "cases": counted(len(facts.cases), "case"),
        **why_schedule,
        "memory": f"{memory:.2g} GB expected at the peak of a step, process included",
        "machine": str(machine),
    }
    warnings = [*sizing.warnings, *intensity_warnings, *mirroring_warnings, *_case_warnings(fingerprint)]
    if memory > machine.memory_gb:
        message = f"training takes {memory:.3g} GB of memory, more than the {machine.memory_gb:.3g} GB available"
        warnings.append(PlanWarning(decision="memory", message=message))
    plans = Plans(
        dataset_name=facts.dataset_name,
        recipe=options.recipe,
        channel_names=facts.channel_names,
        labels=facts.labels,
        spacing=sizing.spacing,
        patch_size=sizing.patch,
        median_shape=fingerprint.median_shape(sizing.spacing),
        channel_kinds=tuple(kind.kind for kind in kinds),
        intensity=intensity,
        resampling=Resampling(),
        network=sizing.network,
        training=training.model_copy(
            update={
                "batch_size": sizing.batch,
                "sampling": sampling,
                "loss": "sigmoid" if facts.labels.regions else "softmax",
                "dice": "linear" if context.paper else "log",
                "mirror_axes": mirror_axes,
            }
        ),
        cost=Cost(
            memory_gb=round(memory, 3),
            step_seconds_cpu=round(context.seconds_two_cores(sizing.network, sizing.patch, sizing.batch), 4),
            device=machine.device,
            hours=round(hours, 3),
        ),
        encoder=encoder.reference if encoder else None,
        training_spacings=(as_triple(spacings.min(axis=0)), as_triple(spacings.max(axis=0))),
        training_extent_mm=(as_triple(extents.min(axis=0)), as_triple(extents.max(axis=0))),
        intensity_statistics=fingerprint.intensities,
        reasons=reasons,
        warnings=tuple(warnings),
    )
    if encoder is not None:
        differing = (*warnings, *_encoder_notes(encoder, plans))
        plans = plans.model_copy(
            update={"reasons": {**reasons, "encoder": _encoder_reason(encoder)}, "warnings": differing}
        )
    return plans


def _case_warnings(fingerprint: Fingerprint) -> list[PlanWarning]:
    """Cases with a structure whose volume is unlike that of all other cases."""
    facts = fingerprint.swinssl
    volumes: dict[str, dict[str, float]] = {
        name: {c.id: c.structures[name].volume_mm3 / 1000 for c in facts.cases if c.structures and name in c.structures}
        for name, tumour in zip(facts.labels.names, facts.labels.tumour_like, strict=True)
        if not tumour
    }
    return [
        PlanWarning(decision="cases", message=f"case {unlike.case_id}: {unlike}; look at its label")
        for unlike in unlike_volumes(volumes)
    ]


def _crop_reason(fingerprint: Fingerprint) -> str:
    left = fingerprint.median_relative_size_after_cropping
    return f"to the non-zero voxels with holes filled, which leaves {left:.0%} of the median case"


def _resampling_reason(fingerprint: Fingerprint, spacing: Spacing) -> str:
    anisotropic = sum(max(s) / min(s) > 3 or max(spacing) / min(spacing) > 3 for s in fingerprint.spacings)
    apart = f"the coarse axis apart and by nearest neighbour where it is over 3 times coarser: {anisotropic} cases"
    return f"cubic for images, linear for labels; {apart if anisotropic else 'no case is anisotropic'}"


def _loss_reason(context: PlanningContext) -> str:
    labels = context.fingerprint.swinssl.labels
    if labels.regions:
        return "binary cross-entropy + Dice for each region: structures may overlap"
    if len(labels.names) == 1:
        return f"cross-entropy + Dice of background and {labels.names[0]}, which is the binary one"
    return f"cross-entropy + Dice over background and {len(labels.names)} exclusive structures"


def _encoder_reason(encoder: EncoderFacts) -> str:
    known = [
        f"spacing {show(encoder.reference.spacing)} mm" if encoder.reference.spacing else "",
        f"patch {dimensions(encoder.patch_size)}" if encoder.patch_size else "",
        f"axis order {encoder.reference.axis_order}",
    ]
    return f"{encoder.reference.name} ({encoder.reference.sha256[:12]}), " + ", ".join(filter(None, known))


def _encoder_notes(encoder: EncoderFacts, plans: Plans) -> list[PlanWarning]:
    """How the plan differs from the encoder's pretraining."""
    notes = []
    for words in learnt_otherwise(encoder, plans):
        remedy = "; --intensity encoder plans with the encoder's" if words.startswith("intensity") else ""
        message = f"{encoder.reference.name} learnt {words}{remedy}"
        notes.append(PlanWarning(decision="encoder", severity="note", message=message))
    return notes


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
