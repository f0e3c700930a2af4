"""Score tables: what is averaged over what, and which patients count once."""

from __future__ import annotations

import pytest
from support.made_scores import table


def test_a_patient_is_the_mean_over_structures_then_seeds_then_cases():
    scores = table(
        ("a", 0, "c1", "left", 0.2, {"patient": "p"}),
        ("a", 0, "c1", "right", 0.4, {"patient": "p"}),
        ("a", 1, "c1", "left", 0.9, {"patient": "p"}),
        ("a", 0, "c2", "left", 0.1, {"patient": "p"}),
        ("a", 1, "c2", "left", 0.3, {"patient": "p"}),
        ("a", 0, "c3", "left", 0.7),
        ("a", 1, "c3", "left", 0.7),
    )
    assert scores.unit_means("a") == pytest.approx({"p": ((0.3 + 0.9) / 2 + 0.2) / 2, "c3": 0.7})
    assert scores.unit_means("a", structures=["right"], seeds=["0"]) == pytest.approx({"p": 0.4})


def test_a_case_that_lacks_a_seed_is_left_out():
    scores = table(
        ("a", 0, "c1", "s", 0.2), ("a", 1, "c1", "s", None), ("a", 0, "c2", "s", 0.5), ("a", 1, "c2", "s", 0.7)
    )
    assert scores.unit_means("a") == pytest.approx({"c2": 0.6})


def test_only_structures_that_every_model_has_are_compared():
    scores = table(("a", 0, "c", "s", 0.2), ("a", 0, "c", "t", 0.9), ("b", 0, "c", "s", 0.3))
    assert (scores.structures, scores.partial_structures) == (("s",), ("t",))
    assert scores.unit_means("a") == {"c": 0.2}


def test_seeds_are_in_the_order_of_their_numbers():
    scores = table(
        *(("a", seed, "c", "s", 0.5) for seed in (10, 2, 1)), *(("b", seed, "c", "s", 0.5) for seed in (2, 10))
    )
    assert scores.seeds("a") == ("1", "2", "10")
    assert scores.common_seeds("a", "b") == ("2", "10")


def test_tasks_and_shots_are_tables_of_their_own_named_by_what_differs():
    scores = table(
        *(
            ("a", 0, "c", "s", 0.5, {"task": task, "modality": "CT", "shots": shots})
            for task in ("liver", "lung")
            for shots in ("5", "many")
        )
    )
    assert list(scores.settings) == ["liver, 5 shots", "liver, many shots", "lung, 5 shots", "lung, many shots"]
    assert [len(own.scores) for own in scores.settings.values()] == [1] * 4
    assert list(table(("a", 0, "c", "s", 0.5, {"task": "liver"})).settings) == [""]


def test_patients_can_be_named_later():
    scores = table(("a", 0, "c1", "s", 0.5), ("a", 0, "c2", "s", 0.7)).with_patients({"c1": "p", "c2": "p"})
    assert scores.unit_means("a") == pytest.approx({"p": 0.6})
