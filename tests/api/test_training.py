"""train, pretrain, predict and evaluate from Python, on toy data: typed results, and nothing printed."""

from __future__ import annotations

import signal

import pytest
from support.toy_dataset import NAME, make_preprocessed

import swinssl

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::swinssl.api.model.InputWarning"),
]


def test_a_trained_model_predicts_and_says_what_it_is_worth(tmp_path, capsys):
    make_preprocessed(tmp_path)
    config = swinssl.TrainingConfig(steps=4, device="cpu", readers=0)
    expected = swinssl.estimate_training(NAME, fold=0, config=config, name="m", root=tmp_path)
    assert not expected.folds[0].folder.exists() and expected.folds[0].length.expected == 4

    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    model = swinssl.train(NAME, fold=0, config=config, name="m", root=tmp_path)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert model.folder == tmp_path / "results" / NAME / "m" and model.folds == ("0",)
    assert model.training.folds[0].fold.run.steps == 4 and 0 <= model.training.dice <= 1

    raw = tmp_path / "raw" / NAME
    image = raw / "imagesTr" / "ball_0_0000.nii.gz"
    in_memory = model.predict(image)
    job = swinssl.open_prediction(raw / "imagesTr", tmp_path / "out", model.folder)
    assert job.estimate().would_segment == [f"ball_{number}" for number in range(6)]
    done = swinssl.predict(raw / "imagesTr", tmp_path / "out", model.folder)
    assert done.failed == {} and [outcome.status for outcome in done.outcomes] == ["done"] * 6
    assert (swinssl.read_image(done.outcomes[0].result).array == in_memory.labels).all()

    measured = swinssl.evaluate(tmp_path / "out", raw / "labelsTr")
    assert 0 <= measured.dice <= 1 and measured.written == () and not (tmp_path / "out" / "metrics.csv").exists()
    written = swinssl.evaluate(tmp_path / "out", raw / "labelsTr", out=tmp_path / "measured")
    assert "metrics.csv" in written.written and written.summary() == measured.summary()
    compared = swinssl.compare({"a": tmp_path / "measured", "b": [tmp_path / "measured"]})
    assert compared.folder is None and compared.summary() and compared.as_json()
    assert capsys.readouterr() == ("", "")


def test_refusals(tmp_path):
    make_preprocessed(tmp_path, cases=2)
    with pytest.raises(swinssl.UserError, match=r"fold=\[0, 'all'\]: expected a number"):
        swinssl.train(NAME, fold=[0, "all"], root=tmp_path)
    with pytest.raises(swinssl.UserError, match=r"no such method: simim\. Did you mean simmim"):
        swinssl.pretrain("simim", NAME, root=tmp_path)
    with pytest.raises(swinssl.UserError, match=r"options of simmim: "):
        swinssl.estimate_pretraining("simmim", NAME, options={"no_such": 1}, root=tmp_path)


def test_a_pretrained_encoder_loads(tmp_path, capsys):
    make_preprocessed(tmp_path, cases=2)
    config = swinssl.PretrainingConfig(steps=2, device="cpu", readers=0)
    estimate = swinssl.estimate_pretraining("simmim", NAME, config=config, root=tmp_path)
    done = swinssl.pretrain("simmim", NAME, config=config, root=tmp_path)
    assert done.folder == estimate.folder and done.run.steps == 2
    assert swinssl.load_encoder(done.encoder).info.channels == 1
    assert capsys.readouterr() == ("", "")
