"""Grid, network, patch, batch and norm: the decisions that share one budget of memory and time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from swinssl.core.errors import UserError
from swinssl.core.geometry import Shape, Spacing
from swinssl.core.text import counted, dimensions
from swinssl.networks.architectures import ARCHITECTURES
from swinssl.networks.network_plan import NetworkPlan, encoder_preset
from swinssl.planning import options as paper_protocol
from swinssl.planning.context import PlanningContext
from swinssl.planning.patch import (
    MULTIPLE,
    checked_patch,
    choose_patch,
    covering_edge,
    merit,
    padded_share,
    window_count,
)
from swinssl.planning.target_spacing import coarsened, coarsest_for_structures, median_spacing, show
from swinssl.preprocessing.plans import PlanWarning

# A patch of the paper's larger networks; beyond it the field of view grows slower than the cost.
MOST_PATCH_VOXELS = 128**3
LEAST_BATCH, MOST_BATCH = 2, 16
# nnU-Net's: a batch shows at most this share of all voxels of the data set.
BATCH_SHARE = 0.05
MOST_BATCH_VOXELS = 4 * 96**3
# Networks from the largest to the smallest; the first is taken that has two thirds of the best merit, or of a good
# patch.
CPU_NETWORKS = (("small", "light"), ("tiny", "light"))
GPU_NETWORKS = (("smit96", "full"), ("smit96", "light"), ("small", "full"), ("tiny", "full"))
VIEW_SHARE = 2 / 3
GOOD_VIEW_CPU, GOOD_VIEW_GPU = 64**3, 96**3
# Batch norm of fewer patches is noisy; but instance norm of so few voxels would leave nothing of the coarsest map.
LEAST_BATCH_FOR_BATCH_NORM, LEAST_VOXELS_FOR_INSTANCE_NORM = 4, 8
# On a CPU, predicting a case takes at most so many windows; else the grid becomes coarser.
MOST_WINDOWS = 150


@dataclass(frozen=True)
class Sizing:
    """Decisions that depend on each other, their reasons, and warnings."""

    spacing: Spacing
    network: NetworkPlan
    patch: Shape
    batch: int
    reasons: dict[str, str] = field(default_factory=dict)
    warnings: tuple[PlanWarning, ...] = ()


def choose_sizing(context: PlanningContext) -> Sizing:
    """All of them, each with its reason.

    Raises:
        UserError: an option cannot be met.
    """
    return _choose_norm(context, _choose_batch(context, _choose_grid(context)))


def _choose_grid(context: PlanningContext) -> Sizing:
    """Spacing, network and patch; the batch is the smallest one yet."""
    options, encoder = context.options, context.encoder
    if options.spacing is not None:
        spacing, why = options.spacing, "as asked"
        if min(spacing) <= 0:
            raise UserError(f"--spacing {' '.join(map(str, spacing))}: must be three positive numbers, z y x in mm.")
    elif encoder is not None and encoder.reference.spacing is not None:
        spacing, why = encoder.reference.spacing, "the encoder was pretrained on this grid"
    elif context.paper:
        spacing, why = paper_protocol.SPACING, "the paper's grid"
    else:
        spacing, why = median_spacing(context.fingerprint)
        choice = _choose_network(context, spacing)
        if not context.machine.on_cpu or options.patch is not None:
            return _with_reason(choice, spacing=why)
        return _coarser_on_a_cpu(context, choice, why)
    return _with_reason(_choose_network(context, spacing), spacing=why)


def _coarser_on_a_cpu(context: PlanningContext, choice: Sizing, why: str) -> Sizing:
    """A coarser grid, where predicting a case would take too many windows; the structures stay resolved."""

    def windows(spacing: Spacing) -> int:
        return window_count(choice.patch, context.fingerprint.median_shape(spacing))

    before = windows(choice.spacing)
    limit = coarsest_for_structures(context.fingerprint)
    spacing = coarsened(choice.spacing, enough=lambda s: windows(s) <= MOST_WINDOWS, limit_mm=limit)
    if spacing == choice.spacing:
        return _with_reason(choice, spacing=why)
    held = (
        f"; not beyond {limit:.3g} mm, where the smallest structure is 5 voxels across" if math.isfinite(limit) else ""
    )
    coarse = (
        f"{why}, {show(choice.spacing)}; made coarser for the CPU, since a median case would take {before} windows of "
        f"{dimensions(choice.patch)} to predict and now takes {windows(spacing)}{held}"
    )
    return _with_reason(_choose_network(context, spacing), spacing=coarse)


def _choose_network(context: PlanningContext, spacing: Spacing) -> Sizing:
    """The largest network that keeps a good field of view, and the patch that it can have."""
    shape = context.fingerprint.median_shape(spacing)
    networks, why_network = _candidates(context)
    patches = [_patch_for(context, network, shape, spacing) for network in networks]
    merits = [merit(patch, shape, spacing) if fits else 0.0 for patch, fits, _ in patches]
    good = min(max(merits), GOOD_VIEW_CPU if context.machine.on_cpu else GOOD_VIEW_GPU)
    chosen = next((i for i, m in enumerate(merits) if m >= VIEW_SHARE * good > 0), len(networks) - 1)
    network, (patch, fits, why_patch) = networks[chosen], patches[chosen]
    if chosen > 0:
        passed = ", ".join(dict.fromkeys(_name(n) for n in networks[:chosen]))
        limit = "time or memory" if context.machine.on_cpu else "memory"
        why_network += f"; {passed} would get too small a patch, limited by {limit}"
    padded = padded_share(patch, shape)
    view = " x ".join(f"{p * mm:.0f}" for p, mm in zip(patch, spacing, strict=True))
    why_patch += f"; the median case has {dimensions(shape)} voxels here, the patch sees {view} mm"
    if padded >= 0.005:
        why_patch += f" and is {padded:.0%} padding"
    warnings = () if fits else (PlanWarning(decision="patch", message="even the smallest patch exceeds the limits"),)
    return Sizing(spacing, network, patch, LEAST_BATCH, {"network": why_network, "patch": why_patch}, warnings)


def _candidates(context: PlanningContext) -> tuple[list[NetworkPlan], str]:
    """Networks to choose from, the preferred first."""
    options, encoder = context.options, context.encoder
    on_cpu = context.machine.on_cpu
    if not ARCHITECTURES[options.network].swin_encoder:
        preset = options.preset or ("tiny" if on_cpu else "small")
        encoder_preset(preset)
        return [
            NetworkPlan(architecture=options.network, preset=preset)
        ], f"{ARCHITECTURES[options.network].purpose}, as asked"
    decoder = options.decoder or ("full" if context.paper or not on_cpu else "light")
    why_decoder = f"{decoder} decoder" + (
        " as asked"
        if options.decoder
        else ", which leaves out most of the arithmetic at full resolution"
        if decoder == "light"
        else ""
    )
    if options.preset is not None:
        return [_network(options.preset, decoder)], f"encoder as asked, {why_decoder}"
    if encoder is not None and (encoder.preset or encoder.encoder):
        name = encoder.preset or encoder.reference.name
        form = encoder.encoder or encoder_preset(name)
        network = NetworkPlan(preset=name, decoder=decoder, encoder=form)
        return [network], f"the pretrained encoder's own, {why_decoder}"
    if context.paper:
        return [_network(paper_protocol.PRESET, decoder)], f"the paper's encoder, {why_decoder}"
    defaults = CPU_NETWORKS if on_cpu else GPU_NETWORKS
    pairs = [(preset, options.decoder or default) for preset, default in defaults]
    networks = [_network(*pair) for pair in dict.fromkeys(pairs)]
    if on_cpu:
        return (
            networks,
            f"made for CPUs, {why_decoder}; {context.given_time} allow {context.step_budget:.2g} s a step",
        )
    return networks, f"the largest that {context.machine.memory_gb:.3g} GB allow"


def _patch_for(
    context: PlanningContext, network: NetworkPlan, shape: Shape, spacing: Spacing
) -> tuple[Shape, bool, str]:
    """A patch, whether it fits, and why it was chosen."""
    options, encoder = context.options, context.encoder
    if options.patch is not None:
        return checked_patch(options.patch), True, "as asked"
    if encoder is not None and encoder.patch_size is not None:
        z, y, x = (min(covering_edge(n), p) for n, p in zip(shape, checked_patch(encoder.patch_size), strict=True))
        less = "" if (z, y, x) == encoder.patch_size else ", where the data fill it"
        return (z, y, x), True, f"the encoder was pretrained on patches of {dimensions(encoder.patch_size)}{less}"
    if context.paper:
        return paper_protocol.PATCH, True, "the paper's patch"
    found = choose_patch(
        shape, spacing, fits=lambda p: context.fits(network, p, LEAST_BATCH), most_voxels=MOST_PATCH_VOXELS
    )
    if found is not None:
        whole = all(p == covering_edge(n) for p, n in zip(found, shape, strict=True))
        limit = f"{context.given_time}" if context.machine.on_cpu else f"{context.machine.memory_gb:.3g} GB"
        why = (
            "the multiples of 32 that cover the median case best"
            if whole
            else f"of all multiples of 32 that {limit} and batch {LEAST_BATCH} allow, the one that sees most of the "
            "median case and is least lopsided"
        )
        return found, True, why
    return (MULTIPLE,) * 3, False, "the smallest patch"


def _choose_batch(context: PlanningContext, choice: Sizing) -> Sizing:
    if context.options.batch_size is not None:
        return _with_reason(replace(choice, batch=context.options.batch_size), batch="as asked")
    if context.paper:
        return _with_reason(replace(choice, batch=paper_protocol.BATCH), batch="the paper's")
    cases, shape = len(context.fingerprint.swinssl.cases), context.fingerprint.median_shape(choice.spacing)
    voxels = math.prod(choice.patch)
    caps = {
        f"{BATCH_SHARE:.0%} of the data set's {cases * math.prod(shape):,} voxels": int(
            BATCH_SHARE * cases * math.prod(shape) / voxels
        ),
        f"{MOST_BATCH_VOXELS:,} voxels a batch": MOST_BATCH_VOXELS // voxels,
        f"at most {MOST_BATCH} patches": MOST_BATCH,
    }
    cap = min(caps.values())
    batch = LEAST_BATCH
    while batch < cap and context.fits(choice.network, choice.patch, batch + 1):
        batch += 1
    if batch >= cap:
        limit = min(caps, key=lambda name: caps[name])
        why = f"limited by {limit}, but at least {LEAST_BATCH}" if batch > cap else f"limited by {limit}"
    else:
        limit = "time a step or memory" if context.machine.on_cpu else "memory"
        why = f"{batch + 1} would exceed the {limit} there is"
    return _with_reason(replace(choice, batch=batch), batch=why)


def _choose_norm(context: PlanningContext, choice: Sizing) -> Sizing:
    coarsest = math.prod(edge // MULTIPLE for edge in choice.patch)
    if context.paper:
        norm, why = "batch", "batch norm, the paper's"
    elif choice.batch >= LEAST_BATCH_FOR_BATCH_NORM:
        norm, why = "batch", f"batch norm, the paper's; {choice.batch} patches give steady statistics"
    elif coarsest < LEAST_VOXELS_FOR_INSTANCE_NORM:
        norm = "batch"
        why = (
            f"batch norm; {choice.batch} patches give noisy statistics, but instance norm would leave nothing of the "
            f"{counted(coarsest, 'voxel')} of the coarsest map"
        )
    else:
        norm = "instance"
        why = f"instance norm, since the statistics of {choice.batch} patches would be too noisy for batch norm"
    network = choice.network.model_copy(update={"norm": norm})
    return _with_reason(replace(choice, network=network), norm=why)


def _network(preset: str, decoder: str) -> NetworkPlan:
    return NetworkPlan(preset=preset, decoder=decoder, encoder=encoder_preset(preset))


def _name(network: NetworkPlan) -> str:
    return f"{network.preset} with {network.decoder} decoder"


def _with_reason(choice: Sizing, **reasons: str) -> Sizing:
    return replace(choice, reasons={**reasons, **choice.reasons})
