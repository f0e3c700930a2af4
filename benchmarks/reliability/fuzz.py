"""Mutated files: does every reader either take them or refuse them in words?

    python benchmarks/reliability/fuzz.py --examples 100000    # of each target, or as many as fit into --seconds
    python benchmarks/reliability/fuzz.py --targets splits plans --seconds 60

Each target is a reader of the package and a valid file of its own. An example is that file after one to four mutations:
bits and bytes anywhere, pieces cut out, doubled or swapped, numbers at the edges of their types; of a JSON file half of
them change its content instead: values of other types, keys gone, renamed or doubled, deep nesting. Example n of a
target is the same on every machine (--seed), so that what is found can be found again. Anything but an answer or a
`UserError` counts as a traceback: it is printed with its number, and ends with exit 2.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import logging
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.dataset.labels import LabelSet
from swinssl.dataset.raw_dataset import RawDataset
from swinssl.dataset.splits import check_splits, read_splits
from swinssl.experiments.benchmark.commands import run_script
from swinssl.imageio.reader import read_channels, read_label
from swinssl.imageio.volume import Geometry
from swinssl.imageio.writer import write_volume
from swinssl.inference.model_archive import export_model, read_manifest, verify_archive
from swinssl.inference.predictor import Predictor
from swinssl.inference.trained_model import (
    DATASET_FILE,
    FORMAT,
    PLANS_HASH,
    VERSION,
    WEIGHTS_FILE,
    TrainedModel,
    public_description,
    write_fold,
)
from swinssl.networks.architectures import build_network
from swinssl.networks.checkpoints.weights_file import write_weights
from swinssl.networks.network_plan import NetworkPlan, SwinEncoderPlan
from swinssl.preprocessing.plans import Cost, Intensity, IntensityStatistics, Plans, TrainingPlan
from swinssl.training.engine.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

RESULTS = Path(__file__).resolve().parent / "results"
SHAPE = (5, 6, 7)
CASES = ("case_0", "case_1", "case_2", "case_3")
MOST_MUTATIONS = 4
# What a byte, a word or a number in JSON may be where a reader does not expect it.
BYTES = (0, 1, 0x7F, 0x80, 0xFF)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 255, 65536, 2**31, 2**63, -(2**63), 10**40, 0.5, -0.0, 1e308, float("nan")),
    *(float("inf"), "", "0", "a", "..", "/", "\0", "\ud800", "ä" * 300, [], {}, [[]], [None], {"": None}, {"a": {}}),
)
DEEP = 3000


@dataclass(frozen=True)
class Target:
    """A reader and the file that it reads.

    Args:
        path: of the valid file.
        read: what is done with it; it finds the mutated file at `path`.
        prepare: called after each mutation was written.
    """

    name: str
    path: Path
    read: Callable[[], Any]
    prepare: Callable[[], None] = lambda: None

    def valid(self) -> bytes:
        return self.path.read_bytes()


def main() -> int:
    """Run what is asked for, print and keep the figures; 2 where there was a traceback."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=100_000, help="of each target; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=300.0, help="longest time of each; default: %(default)s")
    parser.add_argument("--targets", nargs="+", metavar="TARGET", help="default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of fuzz.json and fuzz.md")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    table = given.out / "fuzz.json"
    rows = json.loads(table.read_text()) if table.exists() else {}
    with tempfile.TemporaryDirectory(prefix="fuzz-") as temporary:
        targets = {target.name: target for target in targets_in(Path(temporary))}
        for name in given.targets or targets:
            rows[name] = fuzzed(targets[name], given.examples, given.seconds, seed=given.seed)
            files.write_json(table, rows)
            files.write_text(table.with_suffix(".md"), markdown(rows))
            print(name, rows[name], flush=True)
    return 2 if any(row["tracebacks"] for row in rows.values()) else 0


def fuzzed(target: Target, examples: int, seconds: float, *, seed: int) -> dict[str, Any]:
    """What became of so many examples of a target."""
    began, valid, found = time.monotonic(), target.valid(), Counter[str]()
    tried, places_seen = 0, set[str]()
    while tried < examples and time.monotonic() - began < seconds:
        try:
            found[outcome(target, example(target, valid, seed=seed, number=tried))] += 1
        except Exception as error:
            found["tracebacks"] += 1
            frame = traceback.extract_tb(error.__traceback__)[-1]
            if (place := f"{type(error).__name__} {frame.filename}:{frame.lineno}") not in places_seen:
                places_seen.add(place)  # each fault once
                print(f"{target.name}, example {tried}:\n{traceback.format_exc()}", file=sys.stderr, flush=True)
        tried += 1
    return {
        "tried": tried,
        **{name: found[name] for name in ("accepted", "refused", "tracebacks")},
        "seconds": round(time.monotonic() - began, 1),
    }


def outcome(target: Target, content: bytes) -> str:
    """`accepted` or `refused`; anything else is raised. The valid file is there again afterwards."""
    valid = target.valid()
    target.path.write_bytes(content)
    try:
        target.prepare()
        target.read()
    except UserError:
        return "refused"
    finally:
        target.path.write_bytes(valid)
    return "accepted"


def example(target: Target, valid: bytes, *, seed: int, number: int) -> bytes:
    """Example `number` of a target."""
    return mutated(valid, random.Random(f"{seed} {target.name} {number}"), is_json=target.path.suffix == ".json")


# --- mutations


def mutated(content: bytes, rng: random.Random, *, is_json: bool) -> bytes:
    """The content after a few mutations."""
    if is_json and rng.random() < 0.5:
        return with_other_json(content, rng)
    changed = bytearray(content)
    for _ in range(rng.randint(1, MOST_MUTATIONS)):
        changed = with_other_bytes(changed, rng)
    return bytes(changed)


def with_other_bytes(content: bytearray, rng: random.Random) -> bytearray:
    """One mutation of bytes; what stands at the beginning, where headers are, is met more often."""
    if not content:
        return bytearray(rng.randbytes(rng.randint(0, 8)))
    end = len(content) if rng.random() < 0.5 else min(len(content), 512)
    place, length = rng.randrange(end), rng.choice((1, 2, 4, 8, 64))
    kind = rng.choice(("bit", "byte", "edge", "random", "cut", "remove", "double", "insert"))
    if kind == "bit":
        content[place] ^= 1 << rng.randrange(8)
    elif kind == "byte":
        content[place] = rng.choice(BYTES)
    elif kind == "edge":
        content[place : place + length] = bytes([rng.choice(BYTES)]) * min(length, len(content) - place)
    elif kind == "random":
        content[place : place + length] = rng.randbytes(min(length, len(content) - place))
    elif kind == "cut":
        del content[rng.randrange(len(content)) :]
    elif kind == "remove":
        del content[place : place + length]
    elif kind == "double":
        content[place:place] = content[place : place + length]
    else:
        content[place:place] = rng.randbytes(length)
    return content


def with_other_json(content: bytes, rng: random.Random) -> bytes:
    """Values of other types, keys gone, renamed or nested deeply."""
    tree = {"": json.loads(content)}
    for _ in range(rng.randint(1, MOST_MUTATIONS)):
        holder, key = rng.choice(list(places(tree)))
        kind = rng.choice(("value", "value", "remove", "rename", "copy", "wrap"))
        if kind == "remove" and holder is not tree:
            del holder[key]
        elif kind == "rename" and isinstance(holder, dict) and holder is not tree:
            holder[str(rng.choice(VALUES))] = holder.pop(key)
        elif kind == "copy":
            holder[key] = copy.deepcopy(rng.choice([h[k] for h, k in places(tree)]))
        elif kind == "wrap":
            holder[key] = rng.choice(([holder[key]], {"a": holder[key]}, [holder[key]] * 3))
        else:
            holder[key] = copy.deepcopy(rng.choice(VALUES))
    text = json.dumps(tree.get(""), ensure_ascii=rng.random() < 0.5)
    if rng.random() < 0.01:
        text = "[" * DEEP + text + "]" * DEEP
    return text.encode("utf-8", "surrogatepass")


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every value of a JSON tree, as what holds it and its key there."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from places(tree[key])


# --- targets


def targets_in(folder: Path) -> list[Target]:
    """All targets, with valid files made in a folder."""
    grid = Geometry.from_parts(SHAPE, spacing=(3.0, 1.0, 1.0), origin=(5, -7, 9))
    raw, images, model = folder / "Dataset007_Toy", folder / "images", folder / "model"
    draws = np.random.default_rng(0)
    for case in CASES:
        write_volume(raw / "imagesTr" / f"{case}_0000.nii.gz", draws.integers(-900, 900, SHAPE, np.int16), grid)
        write_volume(raw / "labelsTr" / f"{case}.nii.gz", draws.integers(0, 3, SHAPE, np.uint8), grid)
    labels = {"background": 0, "liver": 1, "tumour": 2}
    description: dict[str, Any] = {
        "channel_names": {"0": "CT"},
        "labels": labels,
        "numTraining": len(CASES),
        "file_ending": ".nii.gz",
    }
    files.write_json(raw / "dataset.json", description)
    listed = folder / "listed" / "dataset.json"
    pairs = {c: {"images": [f"imagesTr/{c}_0000.nii.gz"], "label": f"labelsTr/{c}.nii.gz"} for c in CASES}
    regions = {"background": 0, "organ": [1, 2], "tumour": [2]}
    present = {"labels_present": {CASES[0]: ["organ"]}, "groups": {c: c[-1] for c in CASES}}
    own = {"labels": regions, "regions_class_order": [1, 2], "dataset": pairs, **present}
    files.write_json(listed, {**description, **own})
    splits = folder / "splits_final.json"
    files.write_json(splits, [{"train": list(CASES[:2]), "val": list(CASES[2:])}, {"train": [CASES[3]], "val": []}])
    volumes = folder / "scans.txt"
    volumes.write_text("# channels: CT\n" + "".join(f"{raw / 'imagesTr' / f'{c}_0000.nii.gz'}\n" for c in CASES))
    plain = {ending: images / f"image{ending}" for ending in (".nii", ".nii.gz", ".nrrd", ".mha")}
    for path in plain.values():
        write_volume(path, draws.integers(-900, 900, SHAPE, np.int16), grid)
    plans = small_plans()
    plans.write(folder / "plans" / "swinsslPlans.json")
    torch.manual_seed(0)
    network = build_network(plans.network, in_channels=1, num_outputs=plans.labels.num_outputs)
    write_fold(model, 0, network, plans, description=description)
    archive = folder / "model.zip"
    export_model(TrainedModel.open(model), archive)
    kept = folder / "checkpoints"
    moments = {"state": {0: {"exp_avg": torch.ones(3, 2), "step": torch.tensor(4.0)}}, "param_groups": [{"lr": 0.1}]}
    progress = {"step": 1, "total": 2, "seconds": 0.5, "ended": False}
    for step in (1, 2):
        state = {"optimiser": moments, "progress": progress, "sums": {"loss": 0.25}}
        save_checkpoint(kept, Checkpoint(step, {"network.w": torch.ones(4, 3)}, state))
    newest = kept / "step_000000002"

    def rehash() -> None:
        """Hashes that fit, so that the reader behind them is reached."""
        names = ("weights.safetensors", "state.pt")
        sums = {name: hashlib.sha256((newest / name).read_bytes()).hexdigest() for name in names}
        (newest / "manifest.json").write_text(json.dumps({"step": 2, "sha256": sums}))

    def read_raw(path: Path) -> None:
        raw_dataset = RawDataset.load(path)
        raw_dataset.copy_description(folder / "copied")

    predicting = folder / "predicting"
    write_fold(predicting, 0, network, plans, description=description)
    volume = read_channels([images / "image.nii"])

    def predict() -> None:
        """Predict with plans that are damaged, and weights and description that say they belong to them."""
        damaged = Plans.read(predicting)
        write_weights(
            predicting / "fold_0" / WEIGHTS_FILE,
            network.state_dict(),
            metadata={"format": FORMAT, "version": VERSION, PLANS_HASH: damaged.prediction_sha256},
        )
        files.write_json(predicting / DATASET_FILE, public_description(damaged))
        opened = TrainedModel.open(predicting)
        Predictor.of(opened.networks(torch.device("cpu")), opened.plans, device=torch.device("cpu")).predict(volume)

    def read_folds() -> None:
        check_splits(splits, read_splits(splits), cases=CASES)

    return [
        Target("dataset.json", raw / "dataset.json", lambda: read_raw(raw)),
        Target("dataset.json with a list of cases", listed, lambda: read_raw(listed.parent)),
        Target("splits", splits, read_folds),
        Target("plans", folder / "plans" / "swinsslPlans.json", lambda: Plans.read(folder / "plans")),
        Target("volume list", volumes, lambda: RawDataset.load(volumes)),
        *(Target(f"image {ending}", path, lambda path=path: read_channels([path])) for ending, path in plain.items()),
        Target("label .nii.gz", plain[".nii.gz"], lambda: read_label(plain[".nii.gz"])),
        Target("checkpoint's manifest", newest / "manifest.json", lambda: load_checkpoint(kept)),
        Target("checkpoint's state", newest / "state.pt", lambda: load_checkpoint(kept), rehash),
        Target("checkpoint's weights", newest / "weights.safetensors", lambda: load_checkpoint(kept), rehash),
        Target("model's plans", model / "swinsslPlans.json", lambda: TrainedModel.open(model)),
        Target("model's plans, prediction", predicting / "swinsslPlans.json", predict),
        Target("model's dataset.json", model / "dataset.json", lambda: TrainedModel.open(model)),
        Target(
            "model's weights",
            model / "fold_0" / "model.safetensors",
            lambda: TrainedModel.open(model).networks(torch.device("cpu")),
        ),
        Target("model archive, its list", archive, lambda: read_manifest(archive)),
        Target("model archive, whole", archive, lambda: verify_archive(archive)),
    ]


def small_plans() -> Plans:
    """Plans of a network that is built in milliseconds."""
    statistics = IntensityStatistics(max=1, mean=0.5, median=0.5, min=0, percentile_00_5=0, percentile_99_5=1, std=0.1)
    encoder = SwinEncoderPlan(embed_dim=4, depths=(1, 1, 1, 1), heads=(1, 1, 1, 1), shrink_window=True)
    return Plans(
        dataset_name="Dataset007_Toy",
        channel_names=("CT",),
        labels=LabelSet(names=("liver", "tumour"), values=((1,), (2,))),
        spacing=(3.0, 1.0, 1.0),
        patch_size=(32, 32, 32),
        median_shape=SHAPE,
        intensity=(Intensity(scheme="window", low=-900, high=900),),
        crop_to_nonzero=False,
        network=NetworkPlan(preset="tiny", decoder="light", encoder=encoder),
        training=TrainingPlan(),
        cost=Cost(memory_gb=1, step_seconds_cpu=1),
        training_spacings=((3, 1, 1), (3, 1, 1)),
        training_extent_mm=((1, 1, 1), (1, 1, 1)),
        intensity_statistics=(statistics,),
    )


def markdown(rows: dict[str, dict[str, Any]]) -> str:
    """The table for people, with its sums."""
    columns: Sequence[str] = ("tried", "accepted", "refused", "tracebacks", "seconds")
    total = {name: round(sum(row[name] for row in rows.values()), 1) for name in columns}
    lines = ["| file | tried | accepted | refused in words | tracebacks | seconds |", "| --- |" + " --: |" * 5]
    for name, row in {**rows, "all": total}.items():
        lines.append(f"| {name} | " + " | ".join(f"{row[column]:,}" for column in columns) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_script(main)
