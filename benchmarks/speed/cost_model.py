"""How well the planner's cost model predicts a training step: memory and seconds, predicted against measured.

    python benchmarks/speed/cost_model.py            # tiny and small networks, patches of 32 to 64: under two minutes
    python benchmarks/speed/cost_model.py --full     # also smit96 and patches to 128: a quarter of an hour
    python benchmarks/speed/cost_model.py --fit      # print constants fitted to these cells
    python benchmarks/speed/cost_model.py --precision fp32    # as on CPUs without bfloat16 instructions

Each cell runs in a fresh process, so that a peak is its own. Measured cells are kept in --out and not measured again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from swinssl.core.machine import set_omp_wait_policy
from swinssl.networks.network_plan import NetworkPlan, encoder_preset
from swinssl.planning import cost_model

QUICK = [
    (preset, decoder, patch, batch, outputs)
    for (preset, decoder), (patch, batch, outputs) in itertools.product(
        [("tiny", "light"), ("small", "light"), ("small", "full")],
        [((32, 32, 32), 4, 3), ((32, 64, 32), 4, 3), ((64, 64, 64), 2, 3), ((64, 64, 64), 2, 16)],
    )
]
FULL = [
    ("tiny", "light", (96, 96, 96), 2, 6),
    ("tiny", "light", (96, 96, 96), 2, 2),
    ("tiny", "light", (32, 96, 96), 8, 3),
    ("small", "light", (96, 96, 96), 2, 2),
    ("small", "full", (96, 96, 96), 1, 6),
    ("small", "light", (128, 128, 128), 1, 3),
    ("smit96", "light", (64, 64, 64), 2, 3),
    ("smit96", "full", (64, 64, 64), 2, 3),
    ("smit96", "light", (96, 96, 96), 2, 3),
    ("smit96", "full", (96, 96, 96), 1, 16),
    ("smit96", "full", (96, 96, 96), 2, 2),
]
CNN = [("plainconv", "full", (64, 64, 64), 2, 3), ("resenc", "full", (64, 64, 64), 2, 3)]
WARM_UP, LEAST_SECONDS, LEAST_STEPS = 2, 2.5, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--precision", choices=("auto", "fp32"), default="auto")
    parser.add_argument("--out", type=Path, default=Path("cost_model_cells.jsonl"))
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cell:
        print(json.dumps(measure(json.loads(arguments.cell))))
        return
    chosen = QUICK + FULL + CNN if arguments.full else QUICK
    cells = [{**as_cell(c), "precision": arguments.precision} for c in chosen]
    known = {key(row["cell"]): row for row in read_rows(arguments.out)}
    print(f"{'network':22} {'patch':>12} {'batch':>5} {'out':>4} {'GB':>7} {'model':>7} {'s/step':>8} {'model':>8}")
    rows = []
    for cell in cells:
        if key(cell) not in known:
            row = run_cell(cell)
            known[key(cell)] = row
            with arguments.out.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
        rows.append(known[key(cell)])
        print(line(rows[-1]), flush=True)
    for what, model in (("memory_gb", predicted_memory), ("seconds", predicted_seconds)):
        ratios = [model(row["cell"]) / row[what] for row in rows]
        apart = sorted(abs(math.log(ratio)) for ratio in ratios)
        print(
            f"{what}: median error {math.expm1(statistics.median(apart)):.0%}, worst {math.expm1(apart[-1]):.0%}, "
            f"predicted/measured {min(ratios):.2f} to {max(ratios):.2f}"
        )
    if arguments.fit:
        fit(rows)


def as_cell(values: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(("preset", "decoder", "patch", "batch", "outputs"), values, strict=True))


def key(cell: dict[str, Any]) -> str:
    return json.dumps(
        [cell[name] for name in ("preset", "decoder", "batch", "outputs", "precision")] + [*cell["patch"]]
    )


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text().splitlines()] if path.is_file() else []


def run_cell(cell: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, __file__, "--cell", json.dumps(cell)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def line(row: dict[str, Any]) -> str:
    cell = row["cell"]
    name, patch = f"{cell['preset']} {cell['decoder']}", "x".join(map(str, cell["patch"]))
    return (
        f"{name:22} {patch:>12} {cell['batch']:5} {cell['outputs']:4} {row['memory_gb']:7.2f} "
        f"{predicted_memory(cell):7.2f} {row['seconds']:8.3f} {predicted_seconds(cell):8.3f}"
    )


def network_plan(cell: dict[str, Any]) -> NetworkPlan:
    if cell["preset"] in ("plainconv", "resenc"):
        return NetworkPlan(architecture=cell["preset"])
    return NetworkPlan(preset=cell["preset"], decoder=cell["decoder"], encoder=encoder_preset(cell["preset"]))


def sizes(cell: dict[str, Any]) -> dict[str, Any]:
    return {
        "patch_size": tuple(cell["patch"]),
        "batch_size": cell["batch"],
        "in_channels": 1,
        "num_outputs": cell["outputs"],
        "bf16": cell["bf16"],
    }


def predicted_memory(cell: dict[str, Any]) -> float:
    return cost_model.step_memory_gb(network_plan(cell), **sizes(cell))


def predicted_seconds(cell: dict[str, Any]) -> float:
    return cost_model.step_seconds_cpu(network_plan(cell), **sizes(cell))


def measure(cell: dict[str, Any]) -> dict[str, Any]:
    """Peak memory of this process and seconds of its fastest training step (others may share the cores)."""
    import resource

    set_omp_wait_policy()
    import torch

    from swinssl.core.devices import autocast, use_bf16
    from swinssl.core.machine import keep_freed_memory
    from swinssl.dataset.labels import LabelSet
    from swinssl.networks.architectures import build_network
    from swinssl.training.engine.optimiser import make_optimiser
    from swinssl.training.engine.weight_average import WeightAverage
    from swinssl.training.losses.terms import segmentation_loss

    torch.set_num_threads(2)
    torch.manual_seed(0)
    keep_freed_memory()
    plan, device = network_plan(cell), torch.device("cpu")
    bf16 = use_bf16(device, cell["precision"])
    number = cell["outputs"] - 1
    labels = LabelSet(names=tuple(f"s{i}" for i in range(number)), values=tuple((i + 1,) for i in range(number)))
    loss_of = segmentation_loss(labels=labels)
    network = build_network(plan, in_channels=1, num_outputs=cell["outputs"]).train()
    network.to(device, memory_format=torch.channels_last_3d)
    optimiser, average = (
        make_optimiser(network, learning_rate=1e-4, weight_decay=0.01),
        WeightAverage(network, decay=0.999),
    )
    image = torch.rand(cell["batch"], 1, *cell["patch"]).to(memory_format=torch.channels_last_3d)
    codes = torch.randint(0, number + 1, (cell["batch"], *cell["patch"]), dtype=torch.uint8)
    blocks = sum(plan.encoder.depths)
    times: list[float] = []
    while len(times) < WARM_UP + LEAST_STEPS or sum(times[WARM_UP:]) < LEAST_SECONDS:
        began = time.perf_counter()
        with autocast(device, bf16=bf16):
            out = network(image, torch.rand(cell["batch"], blocks, 2))
        logits = out[0] if isinstance(out, list) else out
        loss = loss_of(logits, codes).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        average.update(network, len(times))
        times.append(time.perf_counter() - began)
    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "cell": {**cell, "bf16": bf16},
        "memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9,
        "seconds": min(times[WARM_UP:]),
        "steps": len(times) - WARM_UP,
    }


def fit(rows: list[dict[str, Any]]) -> None:
    """Non-negative least squares of the relative errors of memory and of time."""
    from scipy.optimize import nnls

    memory, seconds, resident = [], [], []
    for row in rows:
        cell = row["cell"]
        work = cost_model.network_work(
            network_plan(cell), patch_size=tuple(cell["patch"]), in_channels=1, num_outputs=cell["outputs"]
        )
        logits, batch = math.prod(cell["patch"]) * cell["outputs"], cell["batch"]
        resident.append(4 * cost_model.PARAMETER_COPIES * work.parameters)
        memory.append([batch * work.saved, batch * logits, 1.0])
        seconds.append([batch * (work.saved + logits), batch * work.conv, batch * work.products, work.parameters, 1.0])
    total = np.array([row["memory_gb"] * 1e9 for row in rows])
    found, _ = nnls(np.array(memory) / total[:, None], 1 - np.array(resident) / total)
    for name, value in zip(("saved", "loss", "fixed"), found, strict=True):
        print(f"bytes_{name}={value:.3g},")
    taken = np.array([row["seconds"] for row in rows])
    found, _ = nnls(np.array(seconds) / taken[:, None], np.ones(len(rows)))
    for name, value in zip(("saved", "conv", "product", "parameter", "fixed"), found, strict=True):
        print(f"seconds_{name}={value:.3g},")


if __name__ == "__main__":
    main()
