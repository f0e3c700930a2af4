"""Our Swin encoder and segmentor against MONAI's: time and memory of the same arithmetic, interleaved in one process.

    pip install -e . "monai==1.6.1" einops -c constraints.txt
    python benchmarks/speed/swin_vs_monai.py --out swin_vs_monai.json
    python benchmarks/speed/swin_vs_monai.py --device cuda --compile

Encoders hold the same weights and their outputs are compared before anything is timed. The segmentors (smit96 against
SwinUNETR of the same widths and window) have the same encoder and different decoders; ours run as the package runs them
(channels last; batch norm folded for inference), MONAI's as they come and channels last. Every repetition runs all
variants one after another; what is printed is the median over the repetitions, and the median of the ratios within
them. Memory is measured in a fresh process for each variant. Finished cells are kept in --out and not done again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
from monai.networks.nets.swin_unetr import SwinTransformer, SwinUNETR
from torch import nn

from swinssl.networks.architectures import build_network
from swinssl.networks.checkpoints.encoder_import import BIAS_INDEX
from swinssl.networks.checkpoints.published_encoders import MONAI
from swinssl.networks.folded_norm import with_folded_norms
from swinssl.networks.network_plan import NetworkPlan, SwinEncoderPlan
from swinssl.networks.swin.encoder import SwinEncoder

DEPTHS, HEADS, WIDTH, WINDOW, OUTPUTS = (2, 2, 8, 2), (4, 4, 8, 16), 48, 4, 14
# As MONAI computes: its merge order and taps, no learned scale at the taps, drop path as ours where it is drawn.
PLAN = SwinEncoderPlan(
    embed_dim=WIDTH, depths=DEPTHS, heads=HEADS, window=WINDOW, qkv_bias=True, patch_norm=False, skip_norm="plain",
    skip_taps="merge", merge_order="monai", legacy_bias_index=True, shrink_window=True, drop_path=0.0,
)  # fmt: skip
MIB = 2**20
CHANNELS_LAST = " channels last"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", default=["encoder", "segmentor"], choices=("encoder", "segmentor"))
    parser.add_argument("--way", nargs="+", default=["inference", "training"], choices=("inference", "training"))
    parser.add_argument("--edge", nargs="+", type=int, default=[64, 96], help="of the cubic patch, voxels")
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"], choices=("fp32", "bf16"))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="also torch.compile of each variant")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--out", type=Path, help="figures as JSON; a second call goes on there")
    a = parser.parse_args()
    done = json.loads(a.out.read_text()) if a.out and a.out.exists() else {}
    threads = a.threads if a.device == "cpu" else [torch.get_num_threads()]
    compare_outputs()
    for part, way, edge, precision, count in product(a.part, a.way, a.edge, a.precision, threads):
        cell = f"{part} {way} {edge}^3 batch {a.batch} {precision} {count} threads {a.device}"
        if cell not in done:
            setting = Setting(part, way, edge, precision, count, a.batch, a.device)
            names = list(VARIANTS[part])
            if part == "segmentor":
                names += [f"{name}{CHANNELS_LAST}" for name in names if name.startswith("monai")]
            names += [*(f"{name} compiled" for name in names if a.compile)]
            if way == "training":
                names = [name for name in names if "flash" not in name]  # MONAI's flash attention is for inference
            done[cell] = measure(setting, names, a.repetitions, memory=not a.no_memory)
            if a.out:
                a.out.write_text(json.dumps(done, indent=2) + "\n")
        show(cell, done[cell])


class Setting(NamedTuple):
    part: str
    way: str
    edge: int
    precision: str
    threads: int
    batch: int
    device: str


def compare_outputs() -> None:
    """Refuse to time encoders that do not compute the same."""
    image = torch.randn(1, 1, 64, 96, 32)
    with torch.no_grad():
        apart = max(
            float((ours - theirs).abs().max())
            for ours, theirs in zip(our_encoder().eval()(image), monai_encoder().eval()(image), strict=True)
        )
    print(f"largest difference between the two encoders' outputs: {apart:.1e}")
    if apart > 1e-5:
        raise SystemExit("the encoders differ: nothing to compare")


def measure(setting: Setting, names: list[str], repetitions: int, *, memory: bool) -> dict[str, dict[str, float]]:
    torch.set_num_threads(setting.threads)
    steps = {name: step_of(setting, name) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        steps[name]()  # compilation, caches
    for _ in range(repetitions):
        for name in names:
            times[name].append(seconds(steps[name], setting.device))
    base = times["swinssl"]
    found = {
        name: {
            "ms": 1000 * statistics.median(own),
            "ratio": statistics.median(theirs / ours for theirs, ours in zip(own, base, strict=True)),
        }
        for name, own in times.items()
    }
    if memory:
        for name in names:
            found[name]["MiB"] = peak_of(setting, name)
    return found


def step_of(setting: Setting, name: str) -> Callable[[], None]:
    part, way, edge, precision, threads, batch, device = setting
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    network = VARIANTS[part][name.removesuffix(" compiled").removesuffix(CHANNELS_LAST)]().to(device)
    network.train(way == "training")
    layout = torch.contiguous_format
    if part == "segmentor" and (name.startswith("swinssl") or CHANNELS_LAST in name):
        layout = torch.channels_last_3d
        network.to(memory_format=layout)
    if way == "inference":
        network = with_folded_norms(network)
    if name.endswith(" compiled"):
        network = torch.compile(network)
    image = torch.randn(batch, 1, edge, edge, edge, device=device).contiguous(memory_format=layout)

    def step() -> None:
        autocast = torch.autocast(torch.device(device).type, torch.bfloat16) if precision == "bf16" else nullcontext()
        with autocast, torch.set_grad_enabled(way == "training"):
            out = network(image)
            maps = out if isinstance(out, (list, tuple)) else [out]
            loss = torch.stack([m.float().mean() for m in maps]).sum()
        if way == "training":
            network.zero_grad(set_to_none=True)
            loss.backward()

    return step


def seconds(step: Callable[[], None], device: str) -> float:
    if torch.device(device).type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        step()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1000
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def peak_of(setting: Setting, name: str) -> float:
    """Peak memory above that of the network itself, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (setting, name))


def _peak(setting: Setting, name: str) -> float:
    step = step_of(setting, name)
    if torch.device(setting.device).type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / MIB
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten (Linux)
    before = resident_kib("VmRSS")
    step()
    return (resident_kib("VmHWM") - before) / 1024


def resident_kib(what: str) -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what + ":")]
    return int(line.split()[1])


def show(cell: str, found: dict[str, dict[str, float]]) -> None:
    print(f"\n{cell}\n{'':24}{'ms':>9}{'ours is faster':>16}{'MiB':>8}{'of theirs':>11}")
    for name, values in found.items():
        memory = f"{values['MiB']:8.0f}{found['swinssl']['MiB'] / values['MiB']:11.2f}" if "MiB" in values else ""
        print(f"{name:24}{values['ms']:9.1f}{values['ratio']:15.2f}x{memory}")


def our_encoder() -> nn.Module:
    encoder = SwinEncoder(PLAN, in_channels=1)
    theirs = {MONAI.ours(name): tensor for name, tensor in monai_encoder().state_dict().items()}
    encoder.load_state_dict({name: tensor for name, tensor in theirs.items() if not name.endswith(BIAS_INDEX)})
    return encoder


def monai_encoder(*, flash: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return SwinTransformer(
        in_chans=1, embed_dim=WIDTH, window_size=(WINDOW,) * 3, patch_size=(2, 2, 2), depths=DEPTHS, num_heads=HEADS,
        qkv_bias=True, drop_path_rate=0.0, spatial_dims=3, use_flash_attention=flash,
    )  # fmt: skip


def monai_segmentor(*, flash: bool = False) -> nn.Module:
    return SwinUNETR(
        in_channels=1, out_channels=OUTPUTS, feature_size=WIDTH, depths=DEPTHS, num_heads=HEADS, window_size=WINDOW,
        use_flash_attention=flash,
    )  # fmt: skip


def our_segmentor(decoder: str) -> nn.Module:
    plan = NetworkPlan(preset="smit96", decoder=decoder, encoder=SwinEncoderPlan(drop_path=0.0))
    return build_network(plan, in_channels=1, num_outputs=OUTPUTS)


VARIANTS: dict[str, dict[str, Callable[[], nn.Module]]] = {
    "encoder": {
        "swinssl": our_encoder,
        "monai": monai_encoder,
        "monai flash": lambda: monai_encoder(flash=True),
    },
    "segmentor": {
        "swinssl": lambda: our_segmentor("full"),
        "swinssl light": lambda: our_segmentor("light"),
        "monai": monai_segmentor,
        "monai flash": lambda: monai_segmentor(flash=True),
    },
}


if __name__ == "__main__":
    main()
