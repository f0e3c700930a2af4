"""swinssl_cka as it is typed, on toy encoders: what it writes, says, leaves out and refuses."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from support.compared_encoders import write_run, write_toy_encoder
from support.made_models import write_model
from support.toy_dataset import ENCODER, NAME, make_preprocessed, plans_for

from swinssl.dataset.raw_dataset import RawDataset
from swinssl.preprocessing.store import PreprocessedDataset

SHORT = ("--crops", 8, "--batch-size", 4, "--device", "cpu")
BLOCKS = ["1.1", "2.1", "2.2", "3.1", "4.1"]
HEADS = 1 + 2 * 2 + 4 + 8


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("work")
    make_preprocessed(root, cases=5)
    return root


@pytest.fixture(scope="module")
def hashes(root):
    """By case, of its image."""
    dataset = PreprocessedDataset.open(root / "preprocessed" / NAME)
    return {case_id: dataset.case(case_id).properties.image_sha256["image_0000"] for case_id in dataset.case_ids}


@pytest.fixture(scope="module")
def encoders(root, hashes):
    """A pretrained one that knows ball_0, and a model that was started from it and trained on ball_1."""
    pretrained = write_toy_encoder(root / "a", spacing=(1, 1, 1), run={"knows": [hashes["ball_0"]]})
    model = write_model(root / "model", plans_for(RawDataset.load(root / "raw" / NAME)))
    write_run(model / "fold_0", knows=[hashes["ball_1"]], init=pretrained)
    return pretrained, model


@pytest.fixture
def cka(typed, root):
    return lambda *arguments: typed("cka", *arguments, "--data", 1, "--root", root)


@pytest.fixture
def found(cka, encoders, tmp_path):
    done = cka(*encoders, *SHORT, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    return done, json.loads((tmp_path / "out" / "cka.json").read_text()), tmp_path / "out"


def test_everything_is_written_and_said(found):
    done, _, folder = found
    written = {"cka.json", "cka.png", "cka.svg", "attention.csv", "attention.png"}
    assert {path.name for path in folder.iterdir()} == written
    assert all(path.stat().st_size > 1000 for path in folder.iterdir())
    lines = done.out.splitlines()
    assert lines[0] == "A: a, width 8, depths 1 2 1 1; trained on 1 image"
    assert lines[1] == "B: model, fold 0, width 8, depths 1 2 1 1; trained on 2 images"
    assert "left out, since A was trained on them: 1 case (ball_0)" in lines
    assert "left out, since B was trained on them: 2 cases (ball_0, ball_1)" in lines
    assert any(line.startswith(f"3 cases of {NAME} that neither was trained on; 2 x 4 crops of 32 x") for line in lines)
    assert [line.split()[0] for line in lines if line.strip()[:2] in ("1.", "2.", "3.", "4.")] == BLOCKS
    assert lines[-1].startswith(f"next: look at {folder / 'cka.png'}")


def test_the_report_is_whole(found):
    _, report, _ = found
    assert report["cases"] == ["ball_2", "ball_3", "ball_4"]
    assert report["left_out"] == {"A": ["ball_0"], "B": ["ball_0", "ball_1"]}
    counts = {"cases": 3, "crops": 8, "crops_of_a_minibatch": 4, "tokens_of_a_crop": 8, "minibatches": 16}
    assert report["counts"] == counts
    assert report["encoders"]["A"]["blocks"] == report["encoders"]["B"]["blocks"] == BLOCKS
    matrices = {name: np.array(rows) for name, rows in report["cka"].items()}
    assert {name: own.shape for name, own in matrices.items()} == dict.fromkeys(("A_B", "A_A", "B_B"), (5, 5))
    for name in ("A_A", "B_B"):
        np.testing.assert_allclose(np.diag(matrices[name]), 1, rtol=1e-9)
        np.testing.assert_allclose(matrices[name], matrices[name].T)
    assert [point["cka"] for point in report["curve"]] == np.diag(matrices["A_B"]).tolist()
    assert [point["block_A"] for point in report["curve"]] == BLOCKS
    assert np.array(report["standard_error"]["A_B"]).shape == (5, 5)


def test_the_table_of_heads_is_that_of_the_report(found):
    _, report, folder = found
    with open(folder / "attention.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2 * HEADS and {row["encoder"] for row in rows} == {"A", "B"}
    for row, same in zip(rows, [*report["attention"]["A"], *report["attention"]["B"]], strict=True):
        assert {key: str(value) for key, value in same.items()} == {k: v for k, v in row.items() if k != "encoder"}
        assert 0 <= float(row["entropy_nats"]) <= np.log(64) and int(row["tokens"]) == 64
        # Voxels of 1 mm.
        assert float(row["distance_mm"]) == pytest.approx(float(row["distance_voxels"]), rel=1e-9)


def test_an_encoder_is_like_itself(cka, encoders, tmp_path):
    done = cka(encoders[0], encoders[0], *SHORT, "--out", tmp_path, "--json")
    report = json.loads(done.out)
    assert report == json.loads((tmp_path / "cka.json").read_text())
    np.testing.assert_allclose([point["cka"] for point in report["curve"]], 1, rtol=1e-9)
    assert report["attention"]["A"] == report["attention"]["B"]


@pytest.mark.slow
def test_numbers_depend_on_the_seed_alone(cka, encoders, tmp_path):
    first, again, other = (
        json.loads(cka(*encoders, *SHORT, "--out", tmp_path / str(i), "--seed", seed, "--json").out)["cka"]
        for i, seed in enumerate((1, 1, 2))
    )
    assert first == again != other


def test_other_depths_are_compared_at_the_ends_of_stages(cka, root, encoders, tmp_path):
    plan = ENCODER.model_copy(update={"depths": (2, 1, 2, 1), "axis_order": "xyz", "embed_dim": 16})
    deeper = write_toy_encoder(root / "deeper", plan=plan, run={})
    done = cka(encoders[0], deeper, *SHORT, "--out", tmp_path)
    report = json.loads((tmp_path / "cka.json").read_text())
    assert [(p["block_A"], p["block_B"]) for p in report["curve"]] == [
        *(("1.1", "1.2"), ("2.2", "2.1"), ("3.1", "3.2"), ("4.1", "4.1"))
    ]
    assert np.array(report["cka"]["A_B"]).shape == (5, 6) and "2.2, 2.1" in done.out


def test_what_is_not_known_or_not_alike_is_noted(cka, root, encoders, tmp_path):
    bare = write_toy_encoder(root / "bare", seed=3, spacing=(3, 1, 1))
    out = cka(encoders[0], bare, *SHORT, "--out", tmp_path).out
    assert f"note: B: no run description beside {bare}; make sure yourself" in out
    assert "note: B was trained at 3 x 1 x 1 mm; the crops have 1 x 1 x 1 mm." in out
    assert "that neither is known to have been trained on" in out


def test_a_dry_run_writes_nothing(cka, root, encoders):
    before = sorted(root.rglob("*"))
    out = cka(*encoders, *SHORT, "--dry-run").out
    assert out.splitlines()[-1] == (
        f"nothing written (would write into {root / 'results' / 'cka' / f'a__model_fold_0__{NAME}'})"
    )
    report = json.loads(cka(*encoders, *SHORT, "--dry-run", "--json").out)
    assert report["counts"]["crops"] == 8 and sorted(root.rglob("*")) == before


def test_crops_of_chosen_cases(cka, encoders, tmp_path):
    report = json.loads(cka(*encoders, *SHORT, "--out", tmp_path, "--case", "ball_3", "--json").out)
    assert report["cases"] == ["ball_3"] and report["left_out"] == {"A": [], "B": []}


class TestRefusals:
    """Exit 2, one message with the remedy, nothing written."""

    @pytest.fixture
    def refused(self, cka, tmp_path):
        def run(*arguments):
            done = cka(*arguments, "--out", tmp_path / "out")
            assert done.code == 2 and done.out == "" and not (tmp_path / "out").exists()
            return done.error

        return run

    def test_a_case_that_an_encoder_was_trained_on(self, refused, encoders):
        error = refused(*encoders, "--case", "ball_2", "--case", "ball_1")
        assert error.startswith("--case: B on ball_1 was trained. Leave these out")

    def test_data_that_were_all_trained_on(self, refused, root, hashes, encoders):
        knows = write_toy_encoder(root / "knows", run={"knows": list(hashes.values())})
        error = refused(encoders[0], knows)
        assert "every case was trained on (A on ball_0; B on ball_0, ball_1, ball_2, ball_3, ball_4)" in error

    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            (("--case", "ball_9"), "--case ball_9: no such case"),
            (("--tokens", 9), "--tokens 9: a crop of 32 x 32 x 32 has 8 tokens at the last stage"),
            (("--patch", 32, 32, 40), "--patch 32 32 40: expected multiples of 32"),
            (("--crops", 8), "--crops 8: under a minibatch of 48"),
            (("--batch-size", 3), "--batch-size 3: Input should be greater than or equal to 4"),
        ],
    )
    def test_numbers_that_cannot_be(self, refused, encoders, flags, words):
        assert words in refused(*encoders, *flags)

    def test_another_number_of_channels(self, refused, root, encoders):
        two = write_toy_encoder(root / "two", in_channels=2, run={})
        assert f"B sees 2 image channels, {NAME} has 1" in refused(encoders[0], two)

    def test_no_such_encoder_and_no_such_data(self, refused, typed, root, encoders):
        assert refused(root / "none.safetensors", encoders[0]).startswith(f"{root / 'none.safetensors'}: no such file")
        done = typed("cka", *encoders, "--data", "77", "--root", root)
        assert done.code == 2 and done.error.startswith("77: no such data set")

    def test_a_file_where_the_folder_should_be(self, cka, encoders, tmp_path):
        (tmp_path / "file").touch()
        assert cka(*encoders, "--out", tmp_path / "file").error.startswith(f"--out {tmp_path / 'file'}: a file.")
