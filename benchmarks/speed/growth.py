"""How time and memory grow with the volume and with the number of structures: preprocessing, prediction, evaluation.

    python benchmarks/speed/growth.py --out benchmarks/speed/results

One thread, a fresh process a run; prediction with a network of one 1 x 1 x 1 convolution, so that what is seen is ours.
Writes growth.json, and growth_volume and growth_structures as .svg and .png, time above and memory below.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from inputs import Shape, blobs, ct
from made_plans import labels_of, plans_of
from side_by_side import cost_of, machine

from swinssl.core import files
from swinssl.experiments.benchmark.commands import run_script
from swinssl.imageio.volume import Geometry, Volume
from swinssl.inference.predictor import Predictor
from swinssl.metrics.case_metrics import case_metrics
from swinssl.metrics.structures import raw_structures
from swinssl.preprocessing.prepared_volume import prepare
from swinssl.preprocessing.store import write_case

SHAPES: tuple[Shape, ...] = ((60, 256, 256), (120, 320, 320), (200, 512, 512))
STRUCTURES = (5, 15, 50, 105)
SPACING = (2.5, 0.8, 0.8)
GRID = (1.5, 1.5, 1.5)
TYPICAL_SHAPE, TYPICAL_STRUCTURES = SHAPES[1], STRUCTURES[1]


def main() -> int:
    """Measure what is not there yet, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True, help="folder")
    given = parser.parse_args()
    torch.set_num_threads(1)
    path = given.out / "growth.json"
    done: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for shape, structures in cells():
        for stage, run in stages(shape, structures):
            name = f"{stage}, {' x '.join(map(str, shape))}, {structures} structures"
            if name not in done:
                costs = [cost_of(run) for _ in range(given.repeat)]
                done[name] = {
                    "stage": stage,
                    "voxels": int(np.prod(shape)),
                    "structures": structures,
                    "cpu": statistics.median(cost.cpu for cost in costs),
                    "memory": statistics.median(cost.memory for cost in costs),
                }
                files.write_json(path, {**done, "machine": machine()})
            print(f"{name}: {done[name]['cpu']:.2f} s, {done[name]['memory']:.0f} MiB", flush=True)
    draw(given.out, [own for name, own in done.items() if name != "machine"])
    return 0


def cells() -> Iterator[tuple[Shape, int]]:
    """(shape, structures): one of them varies."""
    yield from ((shape, TYPICAL_STRUCTURES) for shape in SHAPES)
    yield from ((TYPICAL_SHAPE, number) for number in STRUCTURES if number != TYPICAL_STRUCTURES)


def stages(shape: Shape, structures: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Preprocessing with its store, prediction from the prepared volume on, and all metrics of a case."""
    geometry = Geometry.from_parts(shape, spacing=SPACING)
    labels = labels_of(structures)
    plans = plans_of(labels, spacing=GRID)
    image, codes = Volume(ct(shape)[None], geometry), blobs(shape, classes=structures)
    yield "preprocess", partial(_preprocess, image, Volume(codes[None], geometry), plans)
    network = torch.nn.Conv3d(1, structures + 1, 1).eval()
    predictor = Predictor.of([network], plans, device=torch.device("cpu"), bf16=False)
    yield "predict", partial(predictor.predict, image)
    moved = np.roll(codes, 1, axis=1)
    yield "evaluate", partial(case_metrics, codes, moved, structures=raw_structures(labels), geometry=geometry)


def _preprocess(image: Volume, label: Volume, plans: Any) -> None:
    prepared = prepare(image, plans, label=label)
    with tempfile.TemporaryDirectory(prefix="growth-") as folder:
        properties = prepared.properties("case")
        write_case(Path(folder), properties, image=prepared.image, label=prepared.label, labels=plans.labels)


def draw(folder: Path, cells: list[dict[str, Any]]) -> None:
    """One figure a question: time above, memory below, a line a stage."""
    from matplotlib.figure import Figure

    questions = {
        "volume": ("voxels", "million voxels of the file", 1e6, [c for c in cells if c["structures"] == 15]),
        "structures": (
            "structures",
            "structures",
            1,
            [c for c in cells if c["voxels"] == int(np.prod(TYPICAL_SHAPE))],
        ),
    }
    for name, (key, title, unit, own) in questions.items():
        figure = Figure(figsize=(6.4, 6.4), layout="constrained")
        for plot, (what, axis) in zip(
            figure.subplots(2, 1, sharex=True), (("cpu", "CPU seconds"), ("memory", "peak MiB")), strict=True
        ):
            for stage, marker in (("preprocess", "o"), ("predict", "s"), ("evaluate", "^")):
                points = sorted((c[key] / unit, c[what]) for c in own if c["stage"] == stage)
                plot.plot(*zip(*points, strict=True), marker=marker, label=stage)
            plot.set_ylabel(axis)
            plot.set_ylim(bottom=0)
            plot.set_xlim(left=0)
            plot.spines[["top", "right"]].set_visible(False)
            plot.legend(frameon=False)
        plot.set_xlabel(title)
        with files.atomic_path(folder / f"growth_{name}.svg") as temporary:
            figure.savefig(temporary)
        with files.atomic_path(folder / f"growth_{name}.png") as temporary:
            figure.savefig(temporary, dpi=100)


if __name__ == "__main__":
    run_script(main)
