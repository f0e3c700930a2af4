"""Segmentation losses against plain formulas: exclusive labels, regions, ignore label, partial labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from swinssl.dataset.labels import LabelSet
from swinssl.training.losses.registry import LOSSES
from swinssl.training.losses.terms import TERMS, deep_loss, segmentation_loss

THREE = LabelSet(names=("a", "b", "c"), values=((1,), (2,), (3,)), ignore_value=9)
# "whole" holds "core"; raw values 1 (edge) and 2 (core).
REGIONS = LabelSet(names=("whole", "core"), values=((1, 2), (2,)), regions=True, region_order=(1, 2))
SHAPE = (4, 5, 6)
SMOOTH = 1e-5
FORMS = ["log", "linear"]


def softmax_loss(logits, codes, *, labels, present=None, dice="log", name="dice_ce"):
    return segmentation_loss(name, labels=labels, activation="softmax", form=dice)(logits, codes, present=present)


def sigmoid_loss(logits, codes, *, labels, present=None, dice="log", name="dice_ce"):
    return segmentation_loss(name, labels=labels, activation="sigmoid", form=dice)(logits, codes, present=present)


def batch(channels, codes, size=2, seed=0):
    """Random logits, and codes drawn from `codes`."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, channels, *SHAPE, generator=generator)
    drawn = torch.randint(len(codes), (size, *SHAPE), generator=generator)
    return logits, torch.tensor(codes, dtype=torch.uint8)[drawn]


def soft_dice(p, t):
    return (2 * (p * t).sum() + SMOOTH) / (p.sum() + t.sum() + SMOOTH)


def plain_dice_term(pairs, form):
    if form == "linear":
        return 1 - np.mean([soft_dice(p, t) for p, t in pairs])
    return np.mean([-np.log(soft_dice(p, t)) for p, t in pairs if t.any()])


def plain_softmax(logits, codes, valid, form):
    """One sample, voxel lists, numpy."""
    x = logits.double().numpy().reshape(logits.shape[0], -1)[:, valid]
    y = codes.numpy().reshape(-1)[valid].astype(int)
    y[y == THREE.outside_code] = 0
    p = np.exp(x) / np.exp(x).sum(0)
    entropy = -np.log(p[y, np.arange(len(y))]).mean()
    return entropy + plain_dice_term([(p[s], (y == s).astype(float)) for s in range(1, len(x))], form)


class TestSoftmax:
    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("shown", [(0, 1, 2, 3, THREE.outside_code), (0, 2)], ids=str)
    def test_is_cross_entropy_plus_dice_of_each_sample(self, shown, form):
        logits, codes = batch(4, shown)
        every = np.ones(np.prod(SHAPE), bool)
        expected = [plain_softmax(x, y, every, form) for x, y in zip(logits, codes, strict=True)]
        assert softmax_loss(logits, codes, labels=THREE, dice=form).tolist() == pytest.approx(expected, abs=1e-5)

    def test_ignored_voxels_count_for_nothing(self):
        logits, codes = batch(4, [0, 1, 2, 3, THREE.ignore_code])
        valid = [(y != THREE.ignore_code).numpy().reshape(-1) for y in codes]
        expected = [plain_softmax(x, y, v, "log") for x, y, v in zip(logits, codes, valid, strict=True)]
        logits.requires_grad_()
        loss = softmax_loss(logits, codes, labels=THREE)
        assert loss.tolist() == pytest.approx(expected, abs=1e-5)
        loss.sum().backward()
        ignored = (codes == THREE.ignore_code)[:, None].expand_as(logits)
        assert (logits.grad[ignored] == 0).all() and (logits.grad[~ignored] != 0).all()

    def test_nothing_annotated_is_no_loss(self):
        logits, _ = batch(4, [0])
        codes = torch.full((2, *SHAPE), THREE.ignore_code, dtype=torch.uint8)
        logits.requires_grad_()
        loss = softmax_loss(logits, codes, labels=THREE)
        loss.sum().backward()
        assert loss.tolist() == pytest.approx([0, 0], abs=1e-6) and (logits.grad == 0).all()

    def test_what_nobody_looked_for_is_judged_as_background(self):
        # b was not annotated in the second sample: its probability adds to the background's, and it has no Dice.
        logits, codes = batch(4, [0, 1, 3])
        present = torch.tensor([[True, True, True], [True, False, True]])
        joined = torch.stack([torch.logsumexp(logits[1, [0, 2]], 0), logits[1, 1], logits[1, 3]])
        two = LabelSet(names=("a", "c"), values=((1,), (3,)), ignore_value=9)
        expected = [
            softmax_loss(logits[:1], codes[:1], labels=THREE)[0],
            softmax_loss(joined[None], torch.where(codes[1:] == 3, 2, codes[1:]), labels=two)[0],
        ]
        found = softmax_loss(logits, codes, labels=THREE, present=present)
        assert torch.allclose(found, torch.stack(expected), atol=1e-5)

    def test_calling_an_unannotated_structure_costs_nothing_where_the_label_says_background(self):
        codes = torch.zeros((1, *SHAPE), dtype=torch.uint8)
        sure_of_b = torch.zeros(1, 4, *SHAPE)
        sure_of_b[:, 2] = 30.0
        absent = softmax_loss(sure_of_b, codes, labels=THREE, present=torch.tensor([[True, False, True]]))
        looked_for = softmax_loss(sure_of_b, codes, labels=THREE, present=torch.tensor([[True, True, True]]))
        assert absent.item() < 1e-3 and looked_for.item() > 20

    def test_gradients_are_finite_with_absent_structures(self):
        logits, codes = batch(4, [0, 1, 2, 3])
        logits.requires_grad_()
        softmax_loss(logits, codes, labels=THREE, present=torch.zeros(2, 3, dtype=torch.bool)).sum().backward()
        assert torch.isfinite(logits.grad).all()

    def test_non_consecutive_values_are_their_ranks(self):
        odd = LabelSet(names=("late", "early"), values=((7,), (4,)))
        codes = torch.from_numpy(odd.encode(np.array([[[0, 4, 7]]])))[None]
        logits = torch.full((1, 3, 1, 1, 3), -20.0)
        logits[0, 0, 0, 0, 0] = logits[0, 2, 0, 0, 1] = logits[0, 1, 0, 0, 2] = 20.0
        assert softmax_loss(logits, codes, labels=odd).item() < 1e-3


class TestSigmoid:
    @pytest.mark.parametrize("form", FORMS)
    def test_is_binary_cross_entropy_plus_dice_of_overlapping_regions(self, form):
        logits, codes = batch(2, [0, 1, 2])
        expected = []
        for x, y in zip(logits.double().numpy(), codes.numpy(), strict=True):
            p = 1 / (1 + np.exp(-x))
            truth = np.stack([y > 0, y == 2]).astype(float)
            entropy = -(truth * np.log(p) + (1 - truth) * np.log(1 - p)).mean()
            expected.append(entropy + plain_dice_term(list(zip(p, truth, strict=True)), form))
        assert sigmoid_loss(logits, codes, labels=REGIONS, dice=form).tolist() == pytest.approx(expected, abs=1e-5)

    def test_an_absent_region_is_left_out(self):
        logits, codes = batch(2, [0, 1, 2])
        only_whole = LabelSet(names=("whole",), values=((1, 2),), regions=True, region_order=(1,))
        found = sigmoid_loss(logits, codes, labels=REGIONS, present=torch.tensor([[True, False]] * 2))
        assert torch.allclose(found, sigmoid_loss(logits[:, :1], codes, labels=only_whole), atol=1e-6)


@pytest.mark.parametrize(("form", "kept"), [("log", (0.5, 2.0)), ("linear", (0.0, 0.05))])
def test_only_the_logarithm_keeps_the_gradient_of_a_structure_that_is_thought_improbable(form, kept):
    codes = torch.zeros((1, *SHAPE), dtype=torch.uint8)
    codes[0, 1, 2:4, 2:4] = 1
    one = LabelSet(names=("a",), values=((1,),))

    def dice_pull(probability):
        """How hard the Dice term alone pulls at the structure's voxels."""
        logits = torch.zeros(1, 2, *SHAPE)
        logits[:, 1] = np.log(probability / (1 - probability))
        logits.requires_grad_()
        entropy = torch.nn.functional.cross_entropy(logits, codes.long())
        (softmax_loss(logits, codes, labels=one, dice=form).sum() - entropy).backward()
        return logits.grad[0, 1][codes[0] == 1].abs().sum().item()

    assert kept[0] <= dice_pull(1e-4) / dice_pull(1e-2) <= kept[1]


def test_a_perfect_answer_has_no_loss_and_is_the_minimum():
    _, codes = batch(4, [0, 1, 2, 3])
    perfect = 30.0 * torch.nn.functional.one_hot(codes.long(), 4).movedim(-1, 1).float()
    assert softmax_loss(perfect, codes, labels=THREE).max() < 1e-4


def test_half_precision_logits_are_judged_in_single():
    logits, codes = batch(4, [0, 1, 2, 3])
    rounded = logits.bfloat16()
    assert torch.equal(softmax_loss(rounded, codes, labels=THREE), softmax_loss(rounded.float(), codes, labels=THREE))


def test_deep_losses_weigh_one_half_one_quarter():
    losses = [torch.tensor([4.0, 1.0]), torch.tensor([2.0, 0.0]), torch.tensor([8.0, 4.0])]
    assert torch.allclose(deep_loss(losses), torch.tensor([(4 + 1 + 2) / 1.75, (1 + 0 + 1) / 1.75]))


# --- every row of the table against formulas in numpy, one sample at a time, over lists of valid voxels


def plain_loss(name, p, g, form, *, looked_for, background=None):
    """The loss of one sample.

    Args:
        p, g: (S, N) probabilities of the structures and their label.
        looked_for: indices of the structures that count.
        background: (N,) probability of the background under softmax; None under sigmoid.
    """
    shown = [s for s in looked_for if g[s].any()]
    if background is None:  # binary, structure by structure
        of_label = np.where(g == 1, p, 1 - p)[looked_for]
    else:
        none = 1 - g[looked_for].sum(0)
        of_label = (background * none + (p * g)[looked_for].sum(0))[None]
    voxel = {
        "cross_entropy": np.mean([-np.log(q).mean() for q in of_label]),
        "focal": np.mean([-((1 - q) ** 2 * np.log(q)).mean() for q in of_label]),
    }

    def index_loss(numerator, denominator):
        index = {s: (numerator(p[s], g[s]) + SMOOTH) / (denominator(p[s], g[s]) + SMOOTH) for s in looked_for}
        if form == "linear":
            return 1 - np.mean(list(index.values()))
        return np.mean([-np.log(index[s]) for s in shown]) if shown else 0.0

    def tversky_denominator(q, y):
        return (q * y).sum() + 0.3 * (q * (1 - y)).sum() + 0.7 * ((1 - q) * y).sum()

    classes = [(p[s], g[s]) for s in shown]
    if background is not None and none.any():
        classes.append((background, none))
    above = sum((q * y).sum() / y.sum() ** 2 for q, y in classes)
    below = sum((q.sum() + y.sum()) / y.sum() ** 2 for q, y in classes)
    terms = {
        **voxel,
        "dice": index_loss(lambda q, y: 2 * (q * y).sum(), lambda q, y: q.sum() + y.sum()),
        "tversky": index_loss(lambda q, y: (q * y).sum(), tversky_denominator),
        "generalised_dice": 1 - 2 * above / below if classes else 0.0,
    }
    return sum(terms[term] for term in LOSSES[name].terms)


class TestEveryLoss:
    """With ignored voxels, voxels beyond the volume, and one structure that was not looked for in the second sample."""

    PRESENT = torch.tensor([[True, True, True], [True, False, True]])

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("name", LOSSES)
    @pytest.mark.parametrize("shown", [(0, 1, 2, 3), (0, 3)], ids=str)
    def test_over_exclusive_labels(self, name, form, shown):
        logits, drawn = batch(4, [*shown, THREE.ignore_code, THREE.outside_code])
        found = softmax_loss(logits, drawn, labels=THREE, present=self.PRESENT, dice=form, name=name)
        expected = []
        for x, y, present in zip(logits.double().numpy(), drawn.numpy(), self.PRESENT.numpy(), strict=True):
            valid = y != THREE.ignore_code
            q = np.exp(x[:, valid]) / np.exp(x[:, valid]).sum(0)
            looked_for = [s for s in range(3) if present[s]]
            background = q[0] + sum(q[s + 1] for s in range(3) if not present[s])
            g = np.stack([y[valid] == s for s in (1, 2, 3)]).astype(float)
            expected.append(plain_loss(name, q[1:], g, form, looked_for=looked_for, background=background))
        assert found.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("name", LOSSES)
    def test_over_regions(self, name, form):
        regions = LabelSet(
            names=("whole", "core"), values=((1, 2), (2,)), regions=True, region_order=(1, 2), ignore_value=9
        )
        present = torch.tensor([[True, True], [True, False]])
        logits, drawn = batch(2, [0, 1, 2, regions.ignore_code, regions.outside_code])
        found = sigmoid_loss(logits, drawn, labels=regions, present=present, dice=form, name=name)
        expected = []
        for x, y, among in zip(logits.double().numpy(), drawn.numpy(), present.numpy(), strict=True):
            valid = y != regions.ignore_code
            p, v = 1 / (1 + np.exp(-x[:, valid])), y[valid]
            g = np.stack([(v == 1) | (v == 2), v == 2]).astype(float)
            expected.append(plain_loss(name, p, g, form, looked_for=[s for s in range(2) if among[s]]))
        assert found.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)

    @pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
    @pytest.mark.parametrize("name", LOSSES)
    def test_gradients_are_finite_and_none_where_nothing_is_annotated(self, name, activation):
        channels = 4 if activation == "softmax" else 3
        for codes in ([0], [0, 1], [THREE.ignore_code]):
            logits, drawn = batch(channels, codes)
            logits = (40 * logits).requires_grad_()
            loss = segmentation_loss(name, labels=THREE, activation=activation)
            value = loss(logits, drawn, present=self.PRESENT)
            value.sum().backward()
            assert torch.isfinite(value).all() and torch.isfinite(logits.grad).all()
            if codes == [THREE.ignore_code]:
                assert value.tolist() == pytest.approx([0, 0], abs=1e-6) and not logits.grad.any()

    @pytest.mark.parametrize("name", LOSSES)
    def test_a_perfect_answer_costs_nothing(self, name):
        _, codes = batch(4, [0, 1, 2, 3])
        perfect = 30.0 * torch.nn.functional.one_hot(codes.long(), 4).movedim(-1, 1).float()
        assert softmax_loss(perfect, codes, labels=THREE, name=name).max() < 1e-4

    def test_the_terms_of_every_row_exist(self):
        assert {term for row in LOSSES.values() for term in row.terms} <= set(TERMS)


def test_tversky_punishes_a_missed_voxel_more_than_a_false_alarm():
    one = LabelSet(names=("a",), values=((1,),))
    codes = torch.zeros((2, *SHAPE), dtype=torch.uint8)
    codes[:, 1:3] = 1
    answer = codes.clone()
    answer[0, 1, 0] = 0  # misses a row
    answer[1, 3, 0] = 1  # calls a row too many
    logits = 60.0 * (torch.nn.functional.one_hot(answer.long(), 2).movedim(-1, 1).float() - 0.5)
    tversky = softmax_loss(logits, codes, labels=one, name="tversky_ce") - softmax_loss(
        logits, codes, labels=one, name="ce"
    )
    assert tversky[0] > 2 * tversky[1] > 0
