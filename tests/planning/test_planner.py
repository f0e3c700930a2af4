"""The planner against fabricated data sets: the decision, and that its reason says why."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from support.fabricated import ARBITRARY, fabricated

from swinssl.core.errors import UserError
from swinssl.dataset.channel_kind import ImageValues
from swinssl.planning.encoder_facts import EncoderFacts
from swinssl.planning.explanation import explanation, summary
from swinssl.planning.options import PlanOptions
from swinssl.planning.patch import covering_edge, padded_share, window_count
from swinssl.planning.planner import make_plans
from swinssl.planning.size import MOST_WINDOWS
from swinssl.planning.target_machine import TargetMachine
from swinssl.preprocessing.fingerprint import Fingerprint, StructureFacts
from swinssl.preprocessing.plans import EncoderReference, Intensity, IntensityStatistics, Plans

CPU = TargetMachine("cpu", memory_gb=20.0, cores=2)
GPU = TargetMachine("cuda", memory_gb=40.0)

HIPPOCAMPUS = fabricated(
    260,
    (1, 1, 1),
    (36, 50, 35),
    channels=("MRI",),
    intensity=ARBITRARY,
    structures={"Anterior": 1600, "Posterior": 1500},
)
LIVER_CT = fabricated(131, (1, 0.767, 0.767), (432, 512, 512), structures={"liver": 1.5e6, "tumor": 9000})
LUNG_CT = fabricated(63, (1.24, 0.785, 0.785), (252, 512, 512), structures={"cancer": 8000})
# 15 of 100 cases have slices of 2 mm: the 10th percentile is theirs.
LUNG_3MM = fabricated(
    100, [(2, 0.977, 0.977)] * 15 + [(3, 0.977, 0.977)] * 85, (134, 512, 512), structures={"tumour": 15_000}
)
HEART_MR = fabricated(
    200, [(10, 1.56, 1.56)] * 170 + [(5, 1.56, 1.56)] * 30, (9, 256, 216), channels=("cine MRI",), intensity=ARBITRARY
)
PROSTATE_MR = fabricated(32, (3.6, 0.62, 0.62), (20, 320, 319), channels=("T2", "ADC"), intensity=ARBITRARY)
BRATS = fabricated(
    1251,
    (1, 1, 1),
    (138, 169, 138),
    channels=("T1", "T1ce", "T2", "FLAIR"),
    intensity=ARBITRARY,
    structures={"whole tumour": 9e4, "core": 3e4, "enhancing": 1e4},
    regions=True,
    relative_size=0.26,
)
ABDOMEN_CT = fabricated(
    200,
    [(1.25, 0.68, 0.68)] * 30 + [(5, 0.68, 0.68)] * 170,
    (104, 512, 512),
    structures={f"organ {i}": 5000.0 * (i + 1) for i in range(15)},
)
PAPER_GRID = fabricated(100, (2, 1.5, 1.5), (150, 267, 267))
FEW_SHOTS = fabricated(5, (3, 0.977, 0.977), (134, 512, 512), structures={"left kidney": 1.5e5, "right kidney": 1.5e5})
HEAD_NECK = fabricated(
    40,
    (2.5, 3.9, 3.9),
    (106, 66, 110),
    structures={"brainstem": 25_000, "parotid_left": 25_000, "parotid_right": 25_000},
)
METASTASES = fabricated(
    50, (1, 1, 1), (160, 192, 160), channels=("T1c",), intensity=ARBITRARY, structures={"spots": 900}, pieces=4
)
UNLABELLED = fabricated(170, (2.5, 3.9, 3.9), (106, 66, 110), structures={})


def decided(plans: Plans) -> dict[str, object]:
    return {
        "spacing": tuple(round(mm, 3) for mm in plans.spacing),
        "patch": plans.patch_size,
        "batch": plans.training.batch_size,
        "network": f"{plans.network.preset} {plans.network.decoder}",
        "norm": plans.network.norm,
        "sampling": plans.training.sampling,
        "loss": plans.training.loss,
        "mirror": plans.training.mirror_axes,
        "intensity": plans.intensity[0].scheme,
        "bounds": (plans.intensity[0].low, plans.intensity[0].high),
    }


# Data set, machine, options, decisions, and what the reasons must say.
EXPECTED = {
    "small volumes waste little of a patch and have a large batch, 5 % of the data": (
        HIPPOCAMPUS,
        CPU,
        {},
        {"patch": (32, 64, 32), "spacing": (1, 1, 1), "network": "small light", "norm": "batch", "sampling": "organ"},
        {"patch": "36 x 50 x 35", "spacing": "median over 260 cases", "intensity": "no common unit"},
    ),
    "a patch of the paper's largest size on a large GPU": (
        LIVER_CT,
        GPU,
        {},
        {"patch": (128, 128, 128), "batch": 2, "network": "smit96 full", "sampling": "tumour", "norm": "instance"},
        {"sampling": "tumor", "norm": "noisy", "patch": "128 x 98 x 98 mm", "network": "40 GB"},
    ),
    "an anisotropic axis takes the 10th percentile of its spacings": (
        LUNG_3MM,
        GPU,
        {},
        {"spacing": (2, 0.977, 0.977), "sampling": "tumour", "intensity": "window", "bounds": (-120, 260)},
        {"spacing": "10th percentile", "intensity": "0.5th to 99.5th"},
    ),
    "few slices are padded to 32, and the share is said": (
        HEART_MR,
        GPU,
        {},
        {"spacing": (5, 1.56, 1.56), "patch": (32, 224, 192), "network": "smit96 full"},
        {"spacing": "10th percentile", "patch": "44% padding", "resampling": "200 cases"},
    ),
    "few slices, two channels": (
        PROSTATE_MR,
        GPU,
        {},
        {"spacing": (3.6, 0.62, 0.62), "patch": (32, 256, 256), "bounds": (5, 95)},
        {"patch": "38% padding", "intensity": "T2: ", "resampling": "apart"},
    ),
    "regions get a sigmoid each, background around the brain is cropped": (
        BRATS,
        GPU,
        {},
        {"loss": "sigmoid", "sampling": "tumour", "patch": (128, 128, 128), "intensity": "percentile"},
        {"loss": "overlap", "crop": "26%", "sampling": "whole tumour"},
    ),
    "on a CPU the grid becomes coarser until prediction is possible": (
        ABDOMEN_CT,
        CPU,
        {},
        {"network": "small light", "sampling": "organ", "intensity": "window"},
        {"spacing": "coarser for the CPU", "schedule": "a night"},
    ),
    "the same on a GPU keeps nnU-Net's grid": (
        ABDOMEN_CT,
        GPU,
        {},
        {"spacing": (1.25, 0.68, 0.68), "sampling": "organ"},
        {"spacing": "10th percentile", "machine": "40 GB"},
    ),
    "left and right are not mirrored": (
        FEW_SHOTS,
        GPU,
        {},
        {"mirror": (0, 1), "batch": 2, "spacing": (3, 0.977, 0.977)},
        {"mirroring": "side alone"},
    ),
    "--mirror overrules the names of structures": (
        FEW_SHOTS,
        GPU,
        {"mirror": "x,z"},
        {"mirror": (0, 2)},
        {"mirroring": "as asked"},
    ),
    "where all axes are covered the volume decides": (
        HEAD_NECK,
        GPU,
        {},
        {"patch": (96, 64, 96), "mirror": (0, 1), "sampling": "organ", "batch": 2},
        {"patch": "cover the median case best"},
    ),
    "several pieces are no organ, whatever the name": (
        METASTASES,
        GPU,
        {},
        {"sampling": "tumour"},
        {"sampling": "4 pieces"},
    ),
    "half an hour on a CPU means a smaller network": (
        LUNG_CT,
        CPU,
        {"max_minutes": 30},
        {"network": "tiny light", "sampling": "tumour"},
        {"schedule": "30 min", "network": "limited by time", "patience": "time is the limit"},
    ),
    "without labels the window is the paper's for pretraining": (
        UNLABELLED,
        GPU,
        {},
        {"intensity": "window", "bounds": (-500, 500), "sampling": "organ"},
        {"intensity": "pretraining"},
    ),
    "the paper's protocol, whatever the data": (
        LIVER_CT,
        GPU,
        {"recipe": "paper"},
        {
            "spacing": (2, 1.5, 1.5),
            "patch": (96, 96, 96),
            "batch": 3,
            "network": "smit96 full",
            "norm": "batch",
            "bounds": (-175, 250),
            "loss": "softmax",
        },
        {"spacing": "paper", "patch": "paper", "batch": "paper", "norm": "paper", "intensity": "paper"},
    ),
    "the paper's protocol for MR": (
        PROSTATE_MR,
        GPU,
        {"recipe": "paper", "intensity": "auto,window:0:400"},
        {"bounds": (5, 95), "spacing": (2, 1.5, 1.5)},
        {"intensity": "ADC: as asked"},
    ),
    "what is asked stands": (
        LIVER_CT,
        GPU,
        {
            "spacing": (3, 2, 2),
            "patch": (64, 96, 96),
            "batch_size": 5,
            "preset": "tiny",
            "decoder": "light",
            "intensity": "zscore",
            "sampling": "organ",
        },
        {
            "spacing": (3, 2, 2),
            "patch": (64, 96, 96),
            "batch": 5,
            "network": "tiny light",
            "intensity": "zscore",
            "sampling": "organ",
        },
        dict.fromkeys(("spacing", "patch", "batch", "network", "intensity", "sampling"), "as asked"),
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_decisions_and_their_reasons(name: str) -> None:
    fingerprint, machine, options, decisions, reasons = EXPECTED[name]
    plans = make_plans(fingerprint, PlanOptions(**options), machine=machine)
    found = decided(plans)
    assert {key: found[key] for key in decisions} == decisions
    for decision, words in reasons.items():
        assert words in plans.reasons[decision], f"{decision}: {plans.reasons[decision]}"


ALL = (
    HIPPOCAMPUS, LIVER_CT, LUNG_CT, LUNG_3MM, HEART_MR, PROSTATE_MR, BRATS, ABDOMEN_CT, PAPER_GRID, FEW_SHOTS,
    HEAD_NECK, METASTASES, UNLABELLED,
)  # fmt: skip
MACHINES = (CPU, GPU, TargetMachine("cuda", 8.0), TargetMachine("cpu", 16.0, cores=8, bf16=False))


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("index", range(len(ALL)))
def test_every_plan_fits_its_machine_and_explains_itself(index: int, machine: TargetMachine) -> None:
    fingerprint = ALL[index]
    plans = make_plans(fingerprint, PlanOptions(), machine=machine)
    assert plans.cost.memory_gb <= machine.usable_gb
    assert all(edge % 32 == 0 for edge in plans.patch_size)
    assert all(p <= covering_edge(n) for p, n in zip(plans.patch_size, plans.median_shape, strict=True))
    assert plans.training.batch_size >= 2
    voxels = plans.training.batch_size * math.prod(plans.patch_size)
    seen = len(fingerprint.swinssl.cases) * math.prod(plans.median_shape)
    assert plans.training.batch_size == 2 or voxels <= 0.05 * seen
    if machine.on_cpu:
        assert plans.cost.hours <= 8.01
    assert all(value and reason for _, value, reason in explanation(plans))
    assert summary(plans) and not plans.warnings
    assert Plans.model_validate(plans.model_dump(mode="json")) == plans


def test_more_time_means_more_steps_and_not_a_smaller_view() -> None:
    short, long = (make_plans(ABDOMEN_CT, PlanOptions(max_minutes=minutes), machine=CPU) for minutes in (20.0, 600.0))
    steps = [p.training.epochs * p.training.steps_per_epoch for p in (short, long)]
    assert steps[0] < steps[1]
    assert math.prod(short.patch_size) < math.prod(long.patch_size)
    for plans, minutes in ((short, 20), (long, 600)):
        assert plans.cost.hours * 60 == pytest.approx(minutes, rel=0.05)


def test_a_coarser_grid_keeps_small_structures() -> None:
    # Balls of 65 mm3 are 5 mm across: 5 voxels of 1 mm, so the grid stays as it is.
    small = fabricated(50, (1, 0.8, 0.8), (300, 512, 512), structures={"gland": math.pi / 6 * 5**3})
    large = fabricated(50, (1, 0.8, 0.8), (300, 512, 512), structures={"gland": math.pi / 6 * 50**3})
    kept, coarse = (make_plans(f, PlanOptions(), machine=CPU) for f in (small, large))
    assert max(kept.spacing) <= 1.0
    assert min(coarse.spacing) > 1.5 * 0.8
    coarse_windows, kept_windows = (window_count(p.patch_size, p.median_shape) for p in (coarse, kept))
    assert coarse_windows <= MOST_WINDOWS < kept_windows


def test_an_encoder_brings_its_grid_network_and_patch_but_not_its_window() -> None:
    encoder = EncoderFacts(
        reference=EncoderReference(sha256="ab" * 32, name="smit_10k", spacing=(2.0, 1.5, 1.5), axis_order="xyz"),
        preset="smit96",
        patch_size=(96, 96, 96),
        intensity=Intensity(scheme="window", low=-500, high=500),
    )
    plans = make_plans(LUNG_CT, PlanOptions(), machine=CPU, encoder=encoder)
    assert plans.spacing == (2.0, 1.5, 1.5) and plans.patch_size == (96, 96, 96)
    assert plans.network.preset == "smit96" and plans.network.decoder == "light"
    assert plans.encoder == encoder.reference and "pretrained" in plans.reasons["spacing"]
    assert plans.intensity[0].low == -120
    assert plans.training.learning_rate == 2e-4
    little = make_plans(LUNG_CT, PlanOptions(), machine=CPU, encoder=replace(encoder, preset="small"))
    assert little.training.learning_rate == 1e-3
    same = make_plans(LUNG_CT, PlanOptions(intensity="encoder"), machine=CPU, encoder=encoder)
    assert same.intensity == (encoder.intensity,)
    # A hippocampus of 36 x 50 x 35 mm has 18 x 33 x 23 voxels there: most of 96^3 would be padding.
    small = make_plans(HIPPOCAMPUS, PlanOptions(), machine=CPU, encoder=encoder)
    assert small.patch_size == (32, 32, 32)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"patch": (80, 192, 160)}, "--patch 64 192 160"),
        ({"patch": (0, 32, 32)}, "--patch 32 32 32"),
        ({"spacing": (1.0, 0.0, 1.0)}, "positive"),
        ({"preset": "smit69"}, "smit96"),
        ({"intensity": "window:250:-175"}, "lower first"),
        ({"intensity": "percentile:5:200"}, "percentiles 0 to 100"),
        ({"intensity": "gauss"}, "window:LOW:HIGH"),
        ({"intensity": "zscore,none"}, "2 schemes for 1 channels"),
        ({"intensity": "encoder"}, "does not say"),
    ],
)
def test_what_cannot_be_met_is_refused_in_words(options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError) as error:
        make_plans(LUNG_CT, PlanOptions(**options), machine=GPU)
    assert words in str(error.value)


def test_a_patch_beyond_the_memory_is_planned_as_asked_and_noted() -> None:
    plans = make_plans(LUNG_CT, PlanOptions(patch=(192, 192, 192)), machine=TargetMachine("cuda", 8.0))
    assert plans.patch_size == (192, 192, 192)
    assert any("8 GB" in warning.message for warning in plans.warnings)


def seen(low: float, median: float, high: float) -> IntensityStatistics:
    return IntensityStatistics(
        max=high, mean=median, median=median, min=low, percentile_00_5=low, percentile_99_5=high, std=1
    )


@pytest.mark.parametrize(
    ("channel", "statistics", "scheme", "note"),
    [
        ("CT", seen(-1024, 50, 300), "window", None),
        ("ct", seen(-1024, 50, 300), "window", None),
        ("CT", seen(0, 1050, 1400), "window", "RescaleIntercept"),
        ("CT", seen(0, 0.4, 1), "window", "noNorm"),
        ("CTscan", seen(-1024, 50, 300), "window", None),
        ("CT_image", seen(-1024, 50, 300), "window", None),
        ("image", seen(-1024, 50, 1300), "window", "is treated as CT"),
        ("MRI", seen(0, 300, 4000), "percentile", None),
        ("T2", seen(0, 300, 4000), "percentile", None),
        ("noNorm", seen(0, 300, 4000), "none", None),
        ("nonNorm", seen(0, 300, 4000), "percentile", '"nonNorm" is not "nonorm"'),
        ("zscore", seen(0, 300, 4000), "zscore", None),
    ],
)
def test_values_decide_the_intensity_and_names_raise_questions(
    channel: str, statistics: IntensityStatistics, scheme: str, note: str | None
) -> None:
    plans = make_plans(
        fabricated(20, (1, 1, 1), (64, 64, 64), channels=(channel,), intensity=statistics), PlanOptions(), machine=GPU
    )
    assert plans.intensity[0].scheme == scheme
    assert [note in found.message for found in plans.warnings] == ([True] if note else [])


def test_cases_in_another_unit_are_named() -> None:
    fingerprint = fabricated(20, (1, 1, 1), (64, 64, 64))
    voxels = np.concatenate([np.full(500, -1000), np.linspace(-100, 200, 500)])
    shifted = {3, 7}
    cases = tuple(
        case.model_copy(update={"values": (ImageValues.of(voxels - 1024 * (i in shifted)),)})
        for i, case in enumerate(fingerprint.swinssl.cases)
    )
    own = fingerprint.swinssl.model_copy(update={"cases": cases})
    plans = make_plans(fingerprint.model_copy(update={"swinssl": own}), PlanOptions(), machine=GPU)
    (warning,) = plans.warnings
    assert warning.message.startswith(
        "2 of 20 cases are not in Hounsfield units: case_003, case_007. The first: 0.0% of the voxels"
    )
    assert plans.intensity[0].scheme == "window" and plans.channel_kinds == ("hounsfield",)


def test_a_structure_unlike_that_of_all_other_cases_is_named() -> None:
    fingerprint = fabricated(20, (1, 1, 1), (64, 64, 64))
    cases = list(fingerprint.swinssl.cases)
    large = StructureFacts(voxels=10**6, volume_mm3=10**6, components=1, largest_mm3=10**6)
    cases[4] = cases[4].model_copy(update={"structures": {"organ": large}})
    own = fingerprint.swinssl.model_copy(update={"cases": tuple(cases)})
    plans = make_plans(fingerprint.model_copy(update={"swinssl": own}), PlanOptions(), machine=GPU)
    assert [str(warning) for warning in plans.warnings] == [
        "warning: case case_004: 'organ' has 1e+03 ml, 50 times the median over the cases (20 ml); look at its label"
    ]


@pytest.mark.parametrize(
    ("fingerprint", "sampling"),
    [
        (fabricated(40, (1, 1, 1), (64,) * 3, structures={"spleen": 1e5}), "organ"),
        (fabricated(40, (1, 1, 1), (64,) * 3, structures={"GTV": 1e5}), "tumour"),
        (fabricated(40, (1, 1, 1), (64,) * 3, structures={"mark": 1e5}, missing=8), "tumour"),
        (fabricated(40, (1, 1, 1), (64,) * 3, structures={"mark": 1e5}, missing=2), "organ"),
        (fabricated(40, (1, 1, 1), (64,) * 3, structures={f"o{i}": 1e5 for i in range(9)}, missing=8), "organ"),
    ],
)
def test_sampling_follows_names_then_numbers(fingerprint: Fingerprint, sampling: str) -> None:
    assert make_plans(fingerprint, PlanOptions(), machine=GPU).training.sampling == sampling


def test_padded_share_is_what_lies_outside_the_median_volume() -> None:
    assert padded_share((32, 64, 32), (36, 50, 35)) == pytest.approx(1 - 50 / 64)
    assert padded_share((32, 32, 32), (64, 64, 64)) == 0


@pytest.mark.parametrize(("voxels", "edge"), [(1, 32), (36, 32), (40, 32), (41, 64), (80, 64), (81, 96), (512, 416)])
def test_covering_edge_lets_a_quarter_hang_over(voxels: int, edge: int) -> None:
    assert covering_edge(voxels) == edge


def test_windows_are_counted_as_the_sliding_window_places_them() -> None:
    assert window_count((32, 32, 32), (32, 20, 33)) == 1 * 1 * 2
    assert window_count((64, 64, 64), (160, 64, 96)) == 4 * 1 * 2


def test_target_spacing_is_nnunets_on_random_data_sets() -> None:
    from swinssl.planning.target_spacing import median_spacing

    random = np.random.default_rng(5)
    anisotropic = 0
    for _ in range(200):
        spacings = random.uniform(0.5, 2, (7, 3)) * np.where(random.random(3) < 0.3, 5, 1)
        shape = tuple(int(n) for n in random.integers(10, 200, 3))
        found, _ = median_spacing(fabricated(7, [tuple(s) for s in spacings.tolist()], shape))
        expected, taken = _nnunet_spacing(spacings, np.array(shape))
        anisotropic += taken
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert anisotropic > 5


def _nnunet_spacing(spacings: np.ndarray, shape: np.ndarray) -> tuple[np.ndarray, bool]:
    """The rule as the specification words it (nnunet.md 1.4), axis by axis."""
    target = np.median(spacings, axis=0)
    worst = int(target.argmax())
    rest = [a for a in range(3) if a != worst]
    if target[worst] > 3 * target[rest].max() and shape[worst] * 3 < shape[rest].min():
        tenth = np.percentile(spacings[:, worst], 10)
        target[worst] = tenth if tenth >= target[rest].max() else target[rest].max() + 1e-5
        return target, True
    return target, False
