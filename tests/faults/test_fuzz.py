"""Mutated files of every kind that is read: they are taken, or refused in words.

benchmarks/reliability/fuzz.py runs the same targets for hours; what it found stands here as examples.
"""

from __future__ import annotations

import io
import json
import zipfile

import fuzz
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swinssl.cli.check import check
from swinssl.cli.command import run_typed
from swinssl.core.errors import UserError

BUILDING_NETWORKS = {
    "model's plans",
    "model's plans, prediction",
    "model's dataset.json",
    "model's weights",
    "model archive, whole",
}
NAMES = (
    *("dataset.json", "dataset.json with a list of cases", "splits", "plans", "volume list"),
    *("image .nii", "image .nii.gz", "image .nrrd", "image .mha", "label .nii.gz"),
    *("checkpoint's manifest", "checkpoint's state", "checkpoint's weights"),
    *("model's plans", "model's plans, prediction", "model's dataset.json", "model's weights"),
    *("model archive, its list", "model archive, whole"),
)


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    return {target.name: target for target in fuzz.targets_in(tmp_path_factory.mktemp("fuzz"))}


@pytest.fixture(scope="module")
def valid(targets):
    return {name: target.valid() for name, target in targets.items()}


def test_all_targets_are_run_here_and_valid_files_are_taken(targets, valid):
    assert tuple(targets) == NAMES
    assert {fuzz.outcome(target, valid[name]) for name, target in targets.items()} == {"accepted"}


@pytest.mark.parametrize("name", NAMES)
def test_a_mutated_file_is_taken_or_refused_in_words(targets, valid, name):
    target = targets[name]

    @settings(
        max_examples=25 if name in BUILDING_NETWORKS else 100,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(st.randoms(use_true_random=False))
    def run(rng):
        content = fuzz.mutated(valid[name], rng, is_json=target.path.suffix == ".json")
        assert fuzz.outcome(target, content) in ("accepted", "refused")

    run()


def of_a_window_without_tokens(content: bytes) -> bytes:
    plans = json.loads(content)
    plans["network"]["encoder"]["window"] = 0
    return json.dumps(plans).encode()


def with_voxels_in_a_file_of_no_name(content: bytes) -> bytes:
    assert b"ElementDataFile = LOCAL" in content and b"CompressedData = True" in content
    return content.replace(b"ElementDataFile = LOCAL", b"ElementDataFile = a\0b")


def with_an_instruction_too_early(content: bytes) -> bytes:
    """SETITEM where nothing is on the stack."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            new.writestr(name, b"\x80\x02s." if name.endswith("data.pkl") else old.read(name))
    return made.getvalue()


# What the benchmark found. A damaged checkpoint is passed over, so that these are taken: there is one before it.
FOUND = {
    "image .mha": (with_voxels_in_a_file_of_no_name, "refused"),
    "checkpoint's manifest": (lambda content: b'{"step": 2, "sha256": ["abc"]}', "accepted"),
    "checkpoint's state": (with_an_instruction_too_early, "accepted"),
    "dataset.json": (lambda content: content.replace(b"{", b'{"remark": NaN, ', 1), "refused"),
    "plans": (of_a_window_without_tokens, "refused"),
    "model's plans": (of_a_window_without_tokens, "refused"),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_stays_mended(targets, valid, name):
    change, expected = FOUND[name]
    assert fuzz.outcome(targets[name], change(valid[name])) == expected


@pytest.mark.parametrize("path", ["x" * 300 + ".nii.gz", "a\0b.nii.gz"])
def test_a_name_that_no_file_can_have_is_listed_as_missing(targets, tmp_path, path):
    description = json.loads(targets["dataset.json"].valid())
    cases = {"a": {"images": [path], "label": "y.nii.gz"}}
    (tmp_path / "dataset.json").write_text(json.dumps({**description, "dataset": cases}))
    with pytest.raises(UserError, match="error"):
        run_typed(check, [str(tmp_path), "--workers", "0"])
