"""The picture of a run: which panels a log gets, and what they are called."""

from __future__ import annotations

import math

from swinssl.training.progress_picture import draw_progress, health_panels, progress_figure, term_panels

FINE_TUNING = [
    {"step": step, "loss": 1.0 / step, "learning_rate": 1e-3, "validation_score": 0.5, "validation_dice_liver": 0.5}
    for step in (10, 20)
]
PRETRAINING = [
    {
        "step": step,
        "loss": 2.0,
        "learning_rate": 1e-3,
        "loss_image": 0.1,
        "loss_patch": 9.0,
        "teacher_entropy": 0.99,
        "effective_rank": 3.0,
        "rotation_accuracy": 0.3,
        "validation_score": 0.4,
        "validation_dice_liver": 0.4,
        "validation_untrained": 0.2,
    }
    for step in (10, 20)
]


def panels_of(figure):
    return [one.get_ylabel() or one.get_title(loc="left") for one in figure.axes]


def curves_of(figure, label):
    (panel,) = [one for one in figure.axes if one.get_ylabel() == label]
    return {line.get_label(): list(line.get_ydata()) for line in panel.lines}


def test_a_fine_tuning_has_loss_scores_and_rate():
    figure = progress_figure(FINE_TUNING, title="run")
    assert panels_of(figure) == ["training loss", "Dice of whole volumes", "rate"]
    assert curves_of(figure, "Dice of whole volumes") == {"liver": [0.5, 0.5], "mean": [0.5, 0.5]}


def test_a_pretraining_has_its_terms_its_health_and_the_probe():
    figure = progress_figure(PRETRAINING, title="run", score="Dice of the frozen probe")
    assert panels_of(figure) == [
        "training loss",
        "term of the loss: image",
        "term of the loss: patch",
        "Dice of the frozen probe",
        "rate",
        "effective rank (directions that images differ in)",
        "teacher's entropy, share of the largest (0 and 1 collapse)",
        "rotation accuracy",
    ]
    probe = curves_of(figure, "Dice of the frozen probe")
    assert probe["encoder as it began"] == [0.2, 0.2] and set(probe) == {"liver", "mean", "encoder as it began"}
    (rotation,) = [one for one in figure.axes if one.get_title(loc="left") == "rotation accuracy"]
    assert [list(line.get_ydata()) for line in rotation.lines] == [[0.3, 0.3], [0.25, 0.25]]


def test_a_single_term_is_the_loss_itself_and_gets_no_panel():
    log = [{"step": 1, "loss": 1.0, "loss_image": 1.0}]
    assert term_panels(log) == [] and health_panels(log) == []


def test_gaps_and_an_unmeasured_start_are_drawn(tmp_path):
    log = [{"step": 5, "loss": 1.0, "learning_rate": 0.1, "alignment": 0.2}, *PRETRAINING]
    log[-1] = {**log[-1], "validation_untrained": math.nan}
    draw_progress(log, tmp_path / "progress.png", title="run")
    assert (tmp_path / "progress.png").read_bytes().startswith(b"\x89PNG")
    assert "encoder as it began" not in curves_of(progress_figure(log, title="run"), "Dice of whole volumes")
