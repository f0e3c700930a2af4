"""The memory of predicting one large CT with many structures: 600 x 512 x 512 voxels, on 1.5 mm, 105 classes.

    python benchmarks/speed/large_ct.py [--memory-gb 2] [--out large_ct.json]

The network is one 1 x 1 x 1 convolution, so that what is seen is ours: reading, preparing, sums over windows, export.
--memory-gb lets the sums take only so much, as on a machine that has no more: the volume is then done in strips.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from inputs import Shape, ct
from made_plans import labels_of, plans_of
from side_by_side import in_child, machine, resident_mib, start_of_peak

from swinssl.core import files
from swinssl.experiments.benchmark.commands import run_script
from swinssl.imageio.reader import read_channels
from swinssl.imageio.volume import Geometry
from swinssl.imageio.writer import write_volume
from swinssl.inference.predictor import Predictor
from swinssl.inference.source_grid import SourceGrid
from swinssl.preprocessing.prepared_volume import prepare

SHAPE: Shape = (600, 512, 512)
SPACING = (1.0, 0.8, 0.8)
GRID = (1.5, 1.5, 1.5)
STRUCTURES = 104


def main() -> int:
    """Predict it once, and say what each step took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory-gb", type=float, help="for the sums over windows; default: half of what is free")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="large-ct-") as folder:
        path = Path(folder) / "ct.nii.gz"
        in_child(lambda: write_volume(path, ct(SHAPE), Geometry.from_parts(SHAPE, spacing=SPACING)))
        steps = in_child(lambda: predict(path, given.memory_gb))
    for name, (seconds, peak) in steps.items():
        print(f"{name:10}{seconds:8.1f} s{peak:8.0f} MiB at most")
    if given.out:
        files.write_json(given.out, {"steps": steps, "memory_gb": given.memory_gb, "machine": machine()})
    return 0


def predict(path: Path, memory_gb: float | None) -> dict[str, tuple[float, float]]:
    """Seconds of each step, and the peak of memory in it, MiB above what there was before all of them."""
    plans = plans_of(labels_of(STRUCTURES), spacing=GRID)
    network = torch.nn.Conv3d(1, STRUCTURES + 1, 1).eval()
    predictor = Predictor.of([network], plans, device=torch.device("cpu"), bf16=False)
    if memory_gb is not None:
        predictor = replace(predictor, sum_bytes=int(memory_gb * 1e9))
    before, steps = start_of_peak(), {}

    def step(name: str, run: Any) -> Any:
        start_of_peak()
        started = time.perf_counter()
        result = run()
        steps[name] = (time.perf_counter() - started, resident_mib("VmHWM") - before)
        return result

    read = [step("read", lambda: read_channels([path]))]
    prepared = step("prepare", lambda: prepare(read.pop(), plans))
    step("segment", lambda: predictor.segment(prepared.image, SourceGrid.of(prepared)))
    return steps


if __name__ == "__main__":
    run_script(main)
