"""What a training step of our networks costs, without running one: memory and time from counts of the layers.

Counted exactly, per sample: the numbers that the backward pass needs (`saved`), the arithmetic of convolutions and of
matrix products, the parameters. A few constants then turn counts into bytes and seconds; they were fitted to measured
steps by `benchmarks/speed/cost_model.py`, which also says how far off they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from swinssl.core.geometry import Shape
from swinssl.networks.network_plan import NetworkPlan, SwinEncoderPlan

STAGES = 4
# Channels of the light decoder at full resolution, those below an up block that is one kernel, and the CNN baselines'
# widths; as swinssl/networks builds them.
LIGHT_CHANNELS = 16
MOST_CHANNELS_OF_ONE_KERNEL = 96
CNN_STAGES, CNN_MOST_FEATURES, CNN_RESIDUAL_BLOCKS = 6, 320, (1, 3, 4, 6, 6, 6)

# Forward, gradient of the input, gradient of the weights.
TRAINING_PASSES = 3
# A guess: a third of an A100's bfloat16 peak is 100e12 operations/s; 3D convolutions reach less than half of that.
GPU_RATE, GPU_BANDWIDTH, GPU_LAUNCH_SECONDS = 40e12, 0.8e12, 0.03

# Copies of the parameters that a run holds: weights, gradients, two moments of AdamW, and the weight average.
PARAMETER_COPIES = 5


@dataclass(frozen=True)
class Work:
    """Counts of a network or a part of it, for one sample; they add up.

    Args:
        saved: numbers kept for the backward pass.
        conv: multiply-adds of convolutions, forward.
        products: multiply-adds of linear layers and attention, forward.
        parameters: trained numbers; not per sample.
    """

    saved: int = 0
    conv: int = 0
    products: int = 0
    parameters: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.saved + other.saved,
            self.conv + other.conv,
            self.products + other.products,
            self.parameters + other.parameters,
        )


@dataclass(frozen=True)
class Constants:
    """What turns counts into bytes and seconds.

    Args:
        bytes_saved: per number kept for the backward pass, temporary copies at the peak included.
        bytes_loss: per logit, for the loss and its gradient at the peak.
        bytes_fixed: of a process that computes nothing yet.
        seconds_saved: per number kept: the layers that only move memory.
        seconds_conv: per multiply-add of a convolution, forward and backward.
        seconds_product: per multiply-add of a matrix product, likewise.
        seconds_parameter: per parameter: optimiser and weight average.
        seconds_fixed: per step.
    """

    bytes_saved: float
    bytes_loss: float
    bytes_fixed: float
    seconds_saved: float
    seconds_conv: float
    seconds_product: float
    seconds_parameter: float
    seconds_fixed: float


# Two cores of an AMD EPYC (Zen 4), computing in bfloat16 and in float32; fitted by benchmarks/speed/cost_model.py.
WITH_BF16 = Constants(
    bytes_saved=3.67,
    bytes_loss=33.5,
    bytes_fixed=0.40e9,
    seconds_saved=1.59e-9,
    seconds_conv=1.18e-11,
    seconds_product=1.96e-11,
    seconds_parameter=4.9e-9,
    seconds_fixed=0.021,
)
WITH_FP32 = Constants(
    bytes_saved=6.73,
    bytes_loss=31.7,
    bytes_fixed=0.35e9,
    seconds_saved=9.5e-10,
    seconds_conv=3.12e-11,
    seconds_product=5.3e-11,
    seconds_parameter=4.5e-9,
    seconds_fixed=0.02,
)


def step_memory_gb(
    plan: NetworkPlan, *, patch_size: Shape, batch_size: int, in_channels: int, num_outputs: int, bf16: bool = True
) -> float:
    """Peak memory of a training step in 10^9 bytes, the process itself included."""
    constants = WITH_BF16 if bf16 else WITH_FP32
    work = network_work(plan, patch_size=patch_size, in_channels=in_channels, num_outputs=num_outputs)
    logits = math.prod(patch_size) * num_outputs
    per_sample = constants.bytes_saved * work.saved + constants.bytes_loss * logits
    return (constants.bytes_fixed + 4 * PARAMETER_COPIES * work.parameters + batch_size * per_sample) / 1e9


def step_seconds_cpu(
    plan: NetworkPlan, *, patch_size: Shape, batch_size: int, in_channels: int, num_outputs: int, bf16: bool = True
) -> float:
    """Seconds of a training step on two CPU cores, reading and augmentation running beside it."""
    constants = WITH_BF16 if bf16 else WITH_FP32
    work = network_work(plan, patch_size=patch_size, in_channels=in_channels, num_outputs=num_outputs)
    per_sample = (
        constants.seconds_saved * (work.saved + math.prod(patch_size) * num_outputs)
        + constants.seconds_conv * work.conv
        + constants.seconds_product * work.products
    )
    return constants.seconds_fixed + constants.seconds_parameter * work.parameters + batch_size * per_sample


def gpu_seconds_guess(
    plan: NetworkPlan, *, patch_size: Shape, batch_size: int, in_channels: int, num_outputs: int
) -> float:
    """Seconds of a training step on a data-centre GPU: a guess from its arithmetic and memory rates, not measured."""
    work = network_work(plan, patch_size=patch_size, in_channels=in_channels, num_outputs=num_outputs)
    arithmetic = 2 * TRAINING_PASSES * (work.conv + work.products) / GPU_RATE
    memory = 2 * 4 * work.saved / GPU_BANDWIDTH
    return GPU_LAUNCH_SECONDS + batch_size * (arithmetic + memory)


def network_work(plan: NetworkPlan, *, patch_size: Shape, in_channels: int, num_outputs: int) -> Work:
    """Counts of the whole network for one patch."""
    count = _FORMULAS.get(plan.architecture, _counted_work)
    return count(plan, patch_size, in_channels, num_outputs)


def _swin_work(plan: NetworkPlan, patch_size: Shape, in_channels: int, num_outputs: int) -> Work:
    encoder = encoder_work(plan.encoder, patch_size=patch_size, in_channels=in_channels)
    return encoder + _decoder_work(plan, patch_size, in_channels, num_outputs)


def encoder_work(plan: SwinEncoderPlan, *, patch_size: Shape, in_channels: int) -> Work:
    """Counts of a Swin encoder."""
    size = _halved(patch_size, 1)
    tokens, width = math.prod(size), plan.embed_dim
    # The convolution's output and, with the norm, its input and output in channels-last order.
    total = Work(
        saved=tokens * width * (3 if plan.patch_norm else 1),
        conv=tokens * width * 8 * in_channels,
        parameters=width * (8 * in_channels + 1) + (2 * width if plan.patch_norm else 0),
    )
    for stage in range(STAGES):
        size, width = _halved(patch_size, stage + 1), plan.embed_dim * 2**stage
        for _ in range(plan.depths[stage]):
            total += _block_work(plan, size, width=width, heads=plan.heads[stage])
        total += _merge_work(math.prod(size), width)
        # The skip: tokens in image order, normalised, and once more as the convolution's channels-first copy.
        affine = 2 * width if plan.skip_norm == "affine" else 0
        total += Work(saved=3 * math.prod(size) * width, parameters=affine)
    return total


def window_edges(size: Shape, window: int, *, shrink: bool) -> Shape:
    """Edges of the attention window on a map of `size` tokens."""
    z, y, x = (min(n, window) if shrink else window for n in size)
    return z, y, x


def padded_tokens(size: Shape, window: int, *, shrink: bool) -> int:
    """Slots that attention computes for a map of `size` tokens: each axis padded to whole windows."""
    edges = window_edges(size, window, shrink=shrink)
    return math.prod(math.ceil(n / edge) * edge for n, edge in zip(size, edges, strict=True))


def _block_work(plan: SwinEncoderPlan, size: Shape, *, width: int, heads: int) -> Work:
    tokens = math.prod(size)
    slots = padded_tokens(size, plan.window, shrink=plan.shrink_window)
    in_window = math.prod(window_edges(size, plan.window, shrink=plan.shrink_window))
    return Work(
        # Both norms' inputs, the MLP's input, hidden map before and after GELU: 11 maps. Attention's input, its
        # queries, keys, values and output: 5 maps over the padded slots. The softmax: slots x window x heads.
        saved=11 * tokens * width + 5 * slots * width + slots * in_window * heads,
        products=slots * 4 * width * width + 2 * slots * in_window * width + tokens * 8 * width * width,
        parameters=12 * width * width
        + 10 * width
        + (3 * width if plan.qkv_bias else 0)
        + (2 * plan.window - 1) ** 3 * heads,
    )


def _merge_work(tokens: int, width: int) -> Work:
    # Neighbours concatenated, normalised, projected to a quarter of the numbers.
    return Work(
        saved=2 * tokens * width + tokens * width // 4,
        products=tokens // 8 * 16 * width * width,
        parameters=16 * width + 16 * width * width,
    )


def _decoder_work(plan: NetworkPlan, patch_size: Shape, in_channels: int, num_outputs: int) -> Work:
    width = plan.encoder.embed_dim
    full = width if plan.decoder == "full" else min(LIGHT_CHANNELS, width)
    skips = (full, *(width * 2**i for i in range(STAGES)))
    voxels = [math.prod(_halved(patch_size, level)) for level in range(STAGES + 2)]
    deepest = width * 2**STAGES
    top = partial(_plain_work, bias=False) if plan.decoder == "light" else _residual_work
    total = top(voxels[0], in_channels, full) + _residual_work(voxels[5], deepest, deepest)
    for level in (1, 2, 3):
        total += _residual_work(voxels[level], skips[level], skips[level])
    for level in range(STAGES + 1):
        below = deepest if level == STAGES else skips[level + 1]
        block = top if level == 0 else _residual_work
        total += block(voxels[level], 2 * skips[level], skips[level])
        total += _up_work(voxels[level], below, skips[level])
    heads = (0, 1, 2) if plan.deep_supervision else (0,)
    for level in heads:
        total += Work(conv=skips[level] * num_outputs * voxels[level], parameters=(skips[level] + 1) * num_outputs)
    return total


def _up_work(voxels: int, below: int, skip: int) -> Work:
    """What an up block adds to the block of its joined map."""
    parameters = 8 * below * skip
    if below > MOST_CHANNELS_OF_ONE_KERNEL:
        return Work(saved=2 * skip * voxels, conv=below * skip * voxels, parameters=parameters)  # the joined map
    # One kernel of 4 x 4 x 4 at stride 2 instead of 3 x 3 x 3 for the share of the map from below.
    return Work(conv=(8 * below - 27 * skip) * skip * voxels, parameters=parameters)


def _residual_work(voxels: int, channels_in: int, channels_out: int) -> Work:
    projected = channels_in != channels_out
    return Work(
        # Before and after each activation; the projection before its norm.
        saved=voxels * channels_out * (5 if projected else 4),
        conv=voxels * channels_out * (27 * (channels_in + channels_out) + (channels_in if projected else 0)),
        parameters=27 * channels_out * (channels_in + channels_out)
        + 4 * channels_out
        + ((channels_in + 2) * channels_out if projected else 0),
    )


def _cnn_work(plan: NetworkPlan, patch_size: Shape, in_channels: int, num_outputs: int) -> Work:
    first = 16 if plan.preset == "tiny" else 32
    widths = [min(first * 2**i, CNN_MOST_FEATURES) for i in range(CNN_STAGES)]
    voxels = [math.prod(_halved(patch_size, i)) for i in range(CNN_STAGES)]
    residual = plan.architecture == "resenc"
    convolutions = [2 * n if residual else 2 for n in (CNN_RESIDUAL_BLOCKS if residual else (1,) * CNN_STAGES)]
    # The residual encoder has a stem before its blocks, and projects the residual where the width grows.
    total, before = (_plain_work(voxels[0], in_channels, first), first) if residual else (Work(), in_channels)
    for width, here, number in zip(widths, voxels, convolutions, strict=True):
        total += _plain_work(here, before, width) + _repeated(_plain_work(here, width, width), number - 1)
        if residual and before != width:
            total += Work(saved=here * width, conv=before * width * here, parameters=(before + 2) * width)
        before = width
    for (width, below), here in zip(pairwise(widths), voxels[:-1], strict=True):
        up = Work(saved=2 * width * here, conv=below * width * here, parameters=(8 * below + 1) * width)
        total += up + _plain_work(here, 2 * width, width)
        if not residual:
            total += _plain_work(here, width, width)
        # A head at every resolution exists; those below the first are computed with deep supervision only.
        used = here if width == first or plan.deep_supervision else 0
        total += Work(conv=width * num_outputs * used, parameters=(width + 1) * num_outputs)
    return total


def _counted_work(plan: NetworkPlan, patch_size: Shape, in_channels: int, num_outputs: int) -> Work:
    """Counts of a network without a formula: its forward pass on the meta device, where nothing is computed."""
    import torch
    from torch.autograd.graph import saved_tensors_hooks
    from torch.utils.flop_counter import FlopCounterMode

    from swinssl.networks.architectures import build_network

    with torch.device("meta"):
        network = build_network(plan, in_channels=in_channels, num_outputs=num_outputs).train()
        image = torch.empty(1, in_channels, *patch_size)
    parameters = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    saved: dict[int, torch.Tensor] = {}  # holding the tensors keeps their storages from being reused

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if (storage := tensor.untyped_storage()._cdata) not in parameters:
            saved[storage] = tensor
        return tensor

    with FlopCounterMode(display=False) as counter, saved_tensors_hooks(keep, lambda tensor: tensor):
        _ = network(image)
    operations = {str(name): flops // 2 for name, flops in counter.get_flop_counts()["Global"].items()}
    convolutions = sum(number for name, number in operations.items() if "convolution" in name)
    return Work(
        saved=sum(tensor.untyped_storage().size() // tensor.element_size() for tensor in saved.values()),
        conv=convolutions,
        products=sum(operations.values()) - convolutions,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
    )


# By architecture; faster than counting, and without torch.
_FORMULAS = {"swin": _swin_work, "plainconv": _cnn_work, "resenc": _cnn_work}


def _plain_work(voxels: int, channels_in: int, channels_out: int, *, bias: bool = True) -> Work:
    """Convolution, norm, activation."""
    return Work(
        saved=2 * voxels * channels_out,
        conv=27 * voxels * channels_in * channels_out,
        parameters=27 * channels_in * channels_out + (3 if bias else 2) * channels_out,
    )


def _repeated(work: Work, times: int) -> Work:
    return Work(work.saved * times, work.conv * times, work.products * times, work.parameters * times)


def _halved(patch_size: Shape, times: int) -> Shape:
    z, y, x = (edge // 2**times for edge in patch_size)
    return z, y, x
