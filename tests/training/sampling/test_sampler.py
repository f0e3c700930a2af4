"""The samplers' promises, each over enough draws to tell: 1:1, truly tumour-free, uniform places, class first."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
from scipy import stats
from support.stored_cases import ORGANS, TUMOUR, make_case, make_plans

from swinssl.core.errors import UserError
from swinssl.core.rng import KeyedRng
from swinssl.dataset.labels import LabelSet
from swinssl.training.sampling.sampler import make_sampler

PATCH = (16, 16, 16)


def draws_of_run(count, *, seed=0, batch_size=2):
    return [KeyedRng(seed, *divmod(n, batch_size)) for n in range(count)]


def window(label, start, patch=PATCH):
    """The part of the label that the window shows; what lies beyond the volume shows nothing."""
    return label[tuple(slice(max(s, 0), max(s + p, 0)) for s, p in zip(start, patch, strict=True))]


@pytest.fixture(scope="module")
def tumour_labels():
    """Two cases with lesions of very different size, one of them at a face, and one case without tumour."""
    labels = {name: np.zeros((48, 50, 52), np.uint8) for name in ("big_and_small", "at_face", "healthy")}
    for label in labels.values():
        label[5:45, 5:45, 5:45] = 1
    labels["big_and_small"][20:30, 20:30, 20:30] = 2
    labels["big_and_small"][40, 40, 40] = 2
    labels["at_face"][22:26, 20:24, 0:3] = 2
    return labels


@pytest.fixture(scope="module")
def tumour_cases(tumour_labels, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tumour")
    return {name: make_case(folder, name, label) for name, label in tumour_labels.items()}


@pytest.fixture(scope="module")
def tumour_sampler(tumour_cases):
    return make_sampler(tumour_cases, make_plans(sampling="tumour"))


class TestTumour:
    @pytest.mark.parametrize("batch_size", [1, 2, 3])
    def test_every_pair_has_one_of_each(self, tumour_sampler, tumour_labels, batch_size):
        shown = []
        for draws in draws_of_run(240, batch_size=batch_size):
            patch = tumour_sampler.locate(draws, batch_size=batch_size)
            has_tumour = bool((window(tumour_labels[patch.case_id], patch.start) == 2).any())
            assert has_tumour == patch.shows_tumour
            shown.append(has_tumour)
        assert all(first != second for first, second in zip(shown[0::2], shown[1::2], strict=True))
        # Which of the two comes first is a coin's choice: 5 standard deviations of 120 tosses.
        assert abs(sum(shown[0::2]) - 60) < 5 * math.sqrt(120) / 2

    def test_the_tumours_place_in_the_patch_is_uniform_on_every_axis(self, tmp_path):
        label = np.zeros((40, 40, 40), np.uint8)
        label[20, 20, 20] = 2  # deeper than half a patch: nothing holds the window back
        sampler = make_sampler({"a": make_case(tmp_path, "a", label)}, make_plans(sampling="tumour"))
        patches = [sampler.locate(draws, batch_size=2) for draws in draws_of_run(6000)]
        places = 20 - np.array([patch.start for patch in patches if patch.shows_tumour])
        assert len(places) == 3000
        for axis in range(3):
            assert stats.chisquare(np.bincount(places[:, axis], minlength=16)).pvalue > 0.01
        halves = (places >= 8) @ (4, 2, 1)  # all eight octants: the axes are independent
        assert stats.chisquare(np.bincount(halves, minlength=8)).pvalue > 0.01

    def test_case_before_lesion_before_voxel(self, tumour_sampler):
        located = [tumour_sampler.locate(draws, batch_size=2) for draws in draws_of_run(4000)]
        tumour = [patch for patch in located if patch.shows_tumour]
        of_case = [patch for patch in tumour if patch.case_id == "big_and_small"]
        assert "healthy" not in {patch.case_id for patch in tumour}
        assert abs(len(of_case) - 1000) < 5 * math.sqrt(2000) / 2
        # The lesion of one voxel is as often the target as the one of a thousand: 11 voxels apart, a window that was
        # placed round one seldom shows the other's centre.
        small = sum(all(s <= 40 < s + 16 for s in patch.start) for patch in of_case)
        assert abs(small / len(of_case) - 0.5) < 0.08

    def test_the_place_is_uniform_at_a_face_and_in_a_volume_smaller_than_the_patch_too(self, tmp_path):
        label = np.zeros((40, 12, 40), np.uint8)
        label[39, 2, 1] = 2
        sampler = make_sampler({"a": make_case(tmp_path, "a", label)}, make_plans(sampling="tumour"))
        patches = [sampler.locate(draws, batch_size=2) for draws in draws_of_run(6000)]
        places = (39, 2, 1) - np.array([patch.start for patch in patches if patch.shows_tumour])
        for axis in range(3):
            assert stats.chisquare(np.bincount(places[:, axis], minlength=16)).pvalue > 0.01

    def test_padding_does_not_tell_tumour_patches_from_the_others(self, tmp_path):
        label = np.zeros((48, 48, 48), np.uint8)
        label[3, 44, 24] = 2  # near two faces: its patches often hang over there
        sampler = make_sampler({"a": make_case(tmp_path, "a", label)}, make_plans(sampling="tumour"))
        shares = {True: [], False: []}
        for draws in draws_of_run(3000):
            patch = sampler.locate(draws, batch_size=2)
            shares[patch.shows_tumour].append(window(label, patch.start).size / 16**3)
        # On both axes 4 of the 16 places leave the patch inside, the others let it hang over by 1 to 12 voxels; without
        # tumour, by 8 at most.
        inside = {True: [16] * 4 + [16 - e for e in range(1, 13)]}
        inside[False] = [max(n, 8) for n in inside[True]]
        for shown, found in shares.items():
            assert np.mean(found) == pytest.approx((np.mean(inside[shown]) / 16) ** 2, abs=0.03)
            assert np.mean(np.array(found) == 1) == pytest.approx(1 / 16, abs=0.03)
        assert min(shares[False]) >= 1 / 8

    def test_a_case_without_free_window_leaves_the_draw_to_one_that_has(self, tmp_path):
        full, part = np.full((20, 20, 20), 2, np.uint8), np.zeros((40, 20, 20), np.uint8)
        part[:10] = 2
        cases = {"full": make_case(tmp_path, "full", full), "part": make_case(tmp_path, "part", part)}
        sampler = make_sampler(cases, make_plans(sampling="tumour"))
        free = [p for d in draws_of_run(100) if (p := sampler.locate(d, batch_size=2)).shows_tumour is False]
        assert len(free) == 50
        assert {patch.case_id for patch in free} == {"part"}
        assert not any((window(part, patch.start) == 2).any() for patch in free)

    def test_where_no_window_is_free_the_least_tumour_is_taken_and_said_once(self, tmp_path, caplog):
        label = np.full((24, 24, 24), 2, np.uint8)
        label[:4] = 0
        sampler = make_sampler({"a": make_case(tmp_path, "a", label)}, make_plans(sampling="tumour"))
        with caplog.at_level(logging.WARNING):
            patches = [sampler.locate(draws, batch_size=2) for draws in draws_of_run(40)]
        assert len(caplog.records) == 1
        least = [patch for patch in patches if patch.shows_tumour is None]
        assert len(least) == 20
        # Half over the empty end and half over a face on the other axes: 4 x 8 x 8 voxels, none of the 4 with tumour.
        assert {int((window(label, p.start) == 2).sum()) for p in least} == {4 * 8 * 8}

    def test_a_case_whose_tumour_was_not_annotated_gives_no_tumour_free_patch(self, tmp_path, tumour_labels):
        partly = make_case(tmp_path, "partly", tumour_labels["healthy"], labels_present=("liver",))
        whole = make_case(tmp_path, "whole", tumour_labels["big_and_small"])
        sampler = make_sampler({"partly": partly, "whole": whole}, make_plans(sampling="tumour"))
        assert {sampler.locate(draws, batch_size=2).case_id for draws in draws_of_run(60)} == {"whole"}

    def test_windows_of_bare_air_are_not_drawn(self, tmp_path):
        label = np.zeros((32, 32, 96), np.uint8)
        label[16, 16, 4] = 2
        image = np.zeros((1, *label.shape), np.float32)
        image[..., :48] = 0.7
        sampler = make_sampler({"a": make_case(tmp_path, "a", label, image=image)}, make_plans(sampling="tumour"))
        free = [p for d in draws_of_run(400) if not (p := sampler.locate(d, batch_size=2)).shows_tumour]
        starts = np.array([patch.start[2] for patch in free])
        assert starts.max() < 48
        # Elsewhere they are as likely as before: x may begin at 5 (right of the tumour) to 47.
        assert set(starts[starts > 15]) <= set(range(5, 48))
        assert len(set(starts)) > 30

    def test_regions_and_names_decide_what_is_tumour(self, tmp_path):
        labels = LabelSet(
            names=("whole tumour", "tumour core"), values=((1, 2), (2,)), regions=True, region_order=(1, 2)
        )
        label = np.zeros((40, 40, 40), np.uint8)
        label[18:22, 18:22, 18:22] = 1
        label[20, 20, 20] = 2
        case = make_case(tmp_path, "a", label, labels=labels)
        sampler = make_sampler({"a": case}, make_plans(labels, sampling="tumour"))
        for draws in draws_of_run(60):
            patch = sampler.locate(draws, batch_size=2)
            assert bool((window(label, patch.start) > 0).any()) == patch.shows_tumour


@pytest.fixture(scope="module")
def organ_labels():
    """The adrenal is in one case of three only, and 8 voxels of 64,000."""
    labels = {name: np.zeros((40, 40, 40), np.uint8) for name in "abc"}
    for label in labels.values():
        label[5:25, 5:25, 5:25] = 1
        label[26:30, 26:30, 26:30] = 2
    labels["c"][32:34, 32:34, 32:34] = 3
    return labels


@pytest.fixture(scope="module")
def organ_cases(organ_labels, tmp_path_factory):
    folder = tmp_path_factory.mktemp("organs")
    return {name: make_case(folder, name, label, labels=ORGANS) for name, label in organ_labels.items()}


class TestOrgans:
    def test_a_rare_structure_is_seen_as_often_as_a_common_one(self, organ_cases, organ_labels):
        plans = make_plans(ORGANS, patch_size=(4, 4, 4))  # so small that a patch shows one structure at a time
        sampler = make_sampler(organ_cases, plans)
        patches = [sampler.locate(draws, batch_size=2) for draws in draws_of_run(3000)]
        share = {}
        for code in (1, 2, 3):
            seen = [(window(organ_labels[p.case_id], p.start, (4, 4, 4)) == code).any() for p in patches]
            share[code] = np.mean(seen)
        # Two thirds of the draws go to three structures in equal parts, and a third looks anywhere.
        assert share[3] == pytest.approx(2 / 9, abs=5 * math.sqrt(2 / 9 * 7 / 9 / 3000))
        assert share[2] == pytest.approx(2 / 9, abs=0.06)
        assert share[1] > 2 / 9

    def test_patches_stay_inside_a_larger_volume(self, organ_cases):
        sampler = make_sampler(organ_cases, make_plans(ORGANS))
        starts = [sampler.locate(draws, batch_size=3).start for draws in draws_of_run(300, batch_size=3)]
        assert np.min(starts) >= 0
        assert np.max(starts) <= 40 - 16

    def test_a_smaller_volume_is_seen_whole_at_any_place(self, organ_cases):
        sampler = make_sampler(organ_cases, make_plans(ORGANS, patch_size=(64, 32, 32)))
        starts = np.array([sampler.locate(draws, batch_size=2).start for draws in draws_of_run(300)])
        assert set(starts[:, 0]) == set(range(-24, 1))

    def test_a_structure_that_was_not_annotated_is_not_sampled_there(self, tmp_path, organ_labels):
        cases = {
            name: make_case(
                tmp_path, name, label, labels=ORGANS, labels_present=("liver", "spleen") if name == "c" else None
            )
            for name, label in organ_labels.items()
        }
        sampler = make_sampler(cases, make_plans(ORGANS, patch_size=(4, 4, 4)))
        patches = [sampler.locate(draws, batch_size=2) for draws in draws_of_run(600)]
        adrenal = [(window(organ_labels[p.case_id], p.start, (4, 4, 4)) == 3).any() for p in patches]
        assert np.mean(adrenal) < 0.02  # by chance alone

    def test_one_case_is_enough(self, organ_cases):
        sampler = make_sampler({"c": organ_cases["c"]}, make_plans(ORGANS))
        assert {sampler.locate(draws, batch_size=2).case_id for draws in draws_of_run(20)} == {"c"}


class TestBoth:
    @pytest.mark.parametrize("sampling", ["organ", "tumour"])
    def test_the_same_index_over_the_run_gives_the_same_kind_in_any_batch_split(self, tumour_cases, sampling):
        one = make_sampler(tumour_cases, make_plans(sampling=sampling))
        other = make_sampler(dict(reversed(tumour_cases.items())), make_plans(sampling=sampling))
        draws = [KeyedRng(7, step, sample) for step in range(30) for sample in range(4)]
        first = [one.locate(d, batch_size=4) for d in draws]
        # Another process, which has drawn other things before and takes these in another order.
        other.locate(KeyedRng(9, 99, 0), batch_size=4)
        assert [other.locate(d, batch_size=4) for d in reversed(draws)] == first[::-1]
        assert len(set(first)) > 100

    def test_no_annotated_case_is_said_in_words(self, tmp_path):
        case = make_case(tmp_path, "a", np.zeros((20, 20, 20), np.uint8), annotated=False)
        with pytest.raises(UserError, match="none of the 1 training cases has a label"):
            make_sampler({"a": case}, make_plans())

    @pytest.mark.parametrize(("sampling", "labels"), [("organ", ORGANS), ("tumour", TUMOUR)])
    def test_nothing_to_sample_is_said_in_words(self, tmp_path, sampling, labels):
        case = make_case(tmp_path, "a", np.zeros((20, 20, 20), np.uint8), labels=labels)
        with pytest.raises(UserError, match="no training case has a voxel of"):
            make_sampler({"a": case}, make_plans(labels, sampling=sampling))
