"""Measure what the tumour sampler promises, from outside: on the patches it gives and the labels they show.

    python benchmarks/reliability/sampler.py ../shared/data/raw/Dataset102_HeadNeckTargetCT --out results/sampler
    python benchmarks/reliability/sampler.py lung1_image.nrrd --label lung1_label.nrrd
    python benchmarks/reliability/sampler.py swinssl_data/preprocessed/Dataset102_HeadNeckTargetCT --patch 32 64 64

DATA is a preprocessed folder, a raw data set (planned and preprocessed in a temporary folder first) or, with --label, a
single image. Prints the share of patches with tumour, the share of the others that are free of it, and how evenly the
tumour's place in the patch is spread; writes them to sampler.json and the histograms to sampler.png.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from swinssl.core import files
from swinssl.core.geometry import Shape
from swinssl.core.rng import KeyedRng, generator
from swinssl.preprocessing.plans import PLANS_FILE, Plans
from swinssl.preprocessing.store import PreprocessedCase, PreprocessedDataset
from swinssl.training.sampling.patches import load_patch, shows
from swinssl.training.sampling.sampler import Patch, make_sampler, tumour_codes
from swinssl.training.sampling.tumour_windows import lesions

BINS = 16
AXES = "zyx"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA", help="preprocessed folder, raw data set, or image")
    parser.add_argument("--label", type=Path, help="label map of a single image")
    parser.add_argument("--patch", type=int, nargs=3, metavar=("Z", "Y", "X"), help="patch instead of the planned one")
    parser.add_argument("--spacing", type=float, nargs=3, metavar=("Z", "Y", "X"), help="mm instead of the planned one")
    parser.add_argument("--draws", type=int, default=4000, help="patches located, an even number (4000)")
    parser.add_argument("--loads", type=int, default=200, help="of them also read and augmented (200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("sampler"), help="folder of sampler.json and sampler.png")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sampler-") as temporary:
        dataset = PreprocessedDataset.open(_preprocessed(given, Path(temporary)))
        training = dataset.plans.training.model_copy(update={"sampling": "tumour"})
        changes: dict[str, Any] = {"training": training, **({"patch_size": tuple(given.patch)} if given.patch else {})}
        plans = dataset.plans.model_copy(update=changes)
        cases = {case_id: dataset.case(case_id) for case_id in dataset.case_ids}
        report, places = measure(cases, plans, draws=given.draws, loads=given.loads, seed=given.seed)
    files.write_json(given.out / "sampler.json", report)
    draw_histograms(given.out / "sampler.png", report, places)
    print(json.dumps(report, indent=2))
    print(f"next: look at {given.out / 'sampler.png'}")


def measure(
    cases: dict[str, PreprocessedCase], plans: Plans, *, draws: int, loads: int, seed: int
) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """The figures, and the tumour's place in each patch that shows it: (N, 3) from 0 to 1 along (z, y, x)."""
    sampler = make_sampler(cases, plans)
    labels = {case_id: np.isin(case.label(), tumour_codes(plans.labels)) for case_id, case in cases.items()}
    weighted = {case_id: _weighted_voxels(mask) for case_id, mask in labels.items()}
    size = plans.patch_size
    started = time.process_time()
    keys = [KeyedRng(seed, *divmod(n, 2)) for n in range(draws)]
    patches = [sampler.locate(key, batch_size=2) for key in keys]
    locating = time.process_time() - started

    has_tumour, places, padded = [], [], []
    for number, patch in enumerate(patches):
        mask = labels[patch.case_id]
        inside = tuple(slice(max(s, 0), max(s + p, 0)) for s, p in zip(patch.start, size, strict=True))
        shown = mask[inside]
        has_tumour.append(bool(shown.any()))
        padded.append(1 - shown.size / np.prod(size))
        if has_tumour[-1]:
            voxel = _shown_voxel(patch, *weighted[patch.case_id], size, generator(seed, "measured voxel", number))
            places.append((np.array(voxel) - patch.start + 0.5) / size)
    first, second = has_tumour[0::2], has_tumour[1::2]
    where, pad = np.array(places), np.array(padded)
    tumour = np.array(has_tumour)
    asked = np.array([patch.shows_tumour is True for patch in patches])

    started = time.process_time()
    loaded = [
        load_patch(cases[patch.case_id], patch, plans=plans, rng=key, augmentation="default")[1]
        for key, patch in zip(keys[:loads], patches[:loads], strict=True)
    ]
    loading = time.process_time() - started
    augmented = [shows(label, tumour_codes(plans.labels)) for label in loaded]
    histograms = [np.histogram(where[:, axis], BINS, (0, 1))[0] for axis in range(3)]
    return {
        "data": plans.dataset_name,
        "cases": len(cases),
        "spacing": plans.spacing,
        "patch_size": size,
        "median_shape": np.median([case.shape for case in cases.values()], axis=0).tolist(),
        "draws": draws,
        "share_with_tumour": float(tumour.mean()),
        "pairs_with_one_of_each": float(np.mean(np.array(first) != np.array(second))),
        "share_of_the_others_free_of_it": float(np.mean(~tumour[~asked])),
        "share_with_tumour_after_augmentation": float(np.mean(augmented)),
        "place_histogram": {name: h.tolist() for name, h in zip(AXES, histograms, strict=True)},
        "place_chi_square_p": {
            name: float(stats.chisquare(h).pvalue) for name, h in zip(AXES, histograms, strict=True)
        },
        "place_distance_from_flat": {
            name: float(np.abs(h / h.sum() - 1 / BINS).sum() / 2) for name, h in zip(AXES, histograms, strict=True)
        },
        "cases_with_tumour_drawn": len({p.case_id for p, t in zip(patches, asked, strict=True) if t}),
        "cases_without_tumour_drawn": len({p.case_id for p, t in zip(patches, asked, strict=True) if not t}),
        "padded_share_with_tumour": float(pad[asked].mean()),
        "padded_share_without": float(pad[~asked].mean()),
        "locate_ms": 1e3 * locating / draws,
        "load_ms": 1e3 * loading / max(loads, 1),
    }, where


def draw_histograms(path: Path, report: dict[str, Any], places: NDArray[np.float64]) -> None:
    """The tumour's place along each axis, with the band that 19 of 20 bars of a flat histogram stay in."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.4), layout="constrained")
    expected = len(places) / BINS
    low, high = stats.binom.interval(0.95, len(places), 1 / BINS)
    for axis, (name, plot) in enumerate(zip(AXES, figure.subplots(1, 3, sharey=True), strict=True)):
        plot.hist(places[:, axis], BINS, range=(0, 1), color="#4878a8", rwidth=0.92)
        plot.axhspan(low, high, color="#d08030", alpha=0.25, lw=0, label="19 of 20 bars, if flat")
        plot.axhline(expected, color="#d08030", lw=1)
        plot.set_xlabel(f"place along {name} (0 first, 1 last voxel; patch {report['patch_size'][axis]})")
        plot.set_xlim(0, 1)
        plot.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("patches")
    figure.axes[0].legend(loc="lower left", fontsize=8)
    figure.suptitle(
        f"{report['data']}: {report['share_with_tumour']:.1%} of {report['draws']} patches show tumour, "
        f"{report['share_of_the_others_free_of_it']:.1%} of the others are free of it",
        fontsize=11,
    )
    with files.atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)


def _weighted_voxels(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(N, 3) tumour voxels, and their weights: each lesion weighs the same, whatever its size."""
    found = lesions(mask)
    if not found:
        return np.zeros((0, 3), np.int64), np.zeros(0)
    voxels = np.stack(np.unravel_index(np.concatenate(found), mask.shape), axis=1)
    return voxels, np.concatenate([np.full(len(lesion), 1 / len(lesion)) for lesion in found])


def _shown_voxel(
    patch: Patch, voxels: NDArray[np.int64], weights: NDArray[np.float64], size: Shape, rng: np.random.Generator
) -> NDArray[np.int64]:
    """A tumour voxel of the patch, by weight. Its place follows the law of the one the patch was placed round, which
    the sampler does not tell: given a window, each voxel it shows is as likely to have been that one."""
    shown = np.flatnonzero(((voxels >= patch.start) & (voxels < np.add(patch.start, size))).all(axis=1))
    running = np.cumsum(weights[shown])
    return voxels[shown[np.searchsorted(running, rng.random() * running[-1])]]


def _preprocessed(given: argparse.Namespace, temporary: Path) -> Path:
    """The preprocessed folder of what was given, made in `temporary` where there is none yet."""
    if (given.data / PLANS_FILE).is_file():
        return given.data
    raw = given.data if given.label is None else _one_case_dataset(given.data, given.label, temporary)
    command = ["swinssl_plan_and_preprocess", str(raw), "--root", str(temporary), "--workers", "0"]
    if given.spacing:
        command += ["--spacing", *map(str, given.spacing)]
    if given.patch:
        command += ["--patch", *map(str, given.patch)]
    subprocess.run(command, check=True)
    return temporary / "preprocessed" / raw.name


def _one_case_dataset(image: Path, label: Path, temporary: Path) -> Path:
    """A raw data set of one image and its tumour label (1)."""
    name = image.name.split(".")[0]
    ending = image.name[len(name) :]
    folder = temporary / "raw" / f"Dataset999_{name}"
    for source, target in ((image, f"imagesTr/{name}_0000{ending}"), (label, f"labelsTr/{name}{ending}")):
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / target)
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "tumour": 1},
        "numTraining": 1,
        "file_ending": ending,
    }
    files.write_json(folder / "dataset.json", description)
    return folder


if __name__ == "__main__":
    main()
