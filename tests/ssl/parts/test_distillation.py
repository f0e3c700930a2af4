"""The teacher, the centre, the schedules and the distances between distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.toy_pretraining import new_batch, new_network, new_task

from swinssl.ssl.parts.distillation import (
    Centre,
    across_views,
    distillation_error,
    entropy_share,
    information,
    over_masked_tokens,
    teacher_distribution,
)
from swinssl.ssl.parts.heads import PrototypeHead
from swinssl.ssl.parts.schedules import cosine, linear_rise
from swinssl.ssl.parts.teacher import Teacher, first_momentum

CPU = torch.device("cpu")


class TestSchedules:
    def test_the_teacher_s_temperature_rises_in_30_of_500_epochs(self):
        values = [linear_rise(epoch / 500, start=0.04, end=0.07) for epoch in (0, 15, 30, 400)]
        assert values == pytest.approx([0.04, 0.055, 0.07, 0.07])

    def test_the_momentum_rises_over_the_whole_run_and_never_starts_again(self):
        values = [cosine(step / 1000, start=0.996, end=1.0) for step in range(1001)]
        assert values[0] == 0.996 and values[500] == pytest.approx(0.998) and values[-1] == 1.0
        assert values == sorted(values)

    def test_a_short_run_begins_with_an_average_over_a_hundredth_of_it(self):
        assert [first_momentum(steps) for steps in (1, 100, 1000, 10_000)] == pytest.approx([0.0, 0.0, 0.9, 0.99])
        assert first_momentum(25_000) == pytest.approx(0.996) and first_momentum(1_000_000) == 0.996


class TestTeacher:
    def test_it_begins_as_the_student(self):
        _, student = new_network("smit")
        teacher = Teacher(student, ("norm", "global", "patch")).network
        for name, tensor in teacher.state_dict().items():
            assert torch.equal(tensor, student.state_dict()[name])
        assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
        assert "voxels" not in teacher.heads and teacher.mask_token is None and "voxels" in student.heads

    def test_it_moves_by_one_minus_the_momentum(self):
        _, student = new_network("dino")
        teacher = Teacher(student, ("norm", "global"))
        before = {name: tensor.clone() for name, tensor in teacher.network.state_dict().items()}
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.add_(1.0)
        teacher.update(student, step=50_000, total=100_000)
        for name, tensor in teacher.network.state_dict().items():
            torch.testing.assert_close(tensor, before[name] + (1 - 0.998), rtol=0, atol=1e-6)

    def test_buffers_are_averaged_too(self):
        _, student = new_network("dino")
        student.heads["global"].register_buffer("statistic", torch.zeros(1))
        teacher = Teacher(student, ("norm", "global"))
        student.heads["global"].statistic += 1.0
        teacher.update(student, step=0, total=100_000)
        assert float(teacher.network.heads["global"].statistic) == pytest.approx(0.004)

    def test_it_drops_no_path_and_sees_no_mask(self):
        task = new_task("ibot")
        task.network.train()
        batch = new_batch(task, drop_path=True)
        found = batch.encode_unmasked(task.teacher.network)
        plain = task.teacher.network.encode(batch.rows("images"))
        assert torch.equal(found.tokens, plain.tokens) and not found.tokens.requires_grad


class TestCentre:
    def test_it_is_the_running_mean_of_all_rows(self):
        centre = Centre(3, device=CPU)
        parts = [torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]), torch.tensor([[[5.0, 5.0, 5.0]]])]
        for part in parts:
            centre.observe(part)
        assert torch.equal(centre.value, torch.zeros(3))  # not before the step has ended
        centre.update()
        torch.testing.assert_close(centre.value, torch.tensor([3.0, 3.0, 3.0]))  # the first mean, as it is
        centre.update()  # nothing was observed
        centre.observe(torch.tensor([[0.0, 1.0, 13.0]]))
        centre.update()
        torch.testing.assert_close(centre.value, torch.tensor([2.7, 2.8, 4.0]))

    def test_a_teacher_that_always_says_the_same_ends_up_saying_nothing(self):
        centre, always = Centre(4, device=CPU), torch.tensor([[2.0, 0.0, 0.0, 0.0]])
        for _ in range(200):
            centre.observe(always)
            centre.update()
        assert entropy_share(teacher_distribution(always, centre.value, temperature=0.04)) == pytest.approx(1.0)


def plain_softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class TestErrors:
    def test_the_cross_entropy_is_the_formula(self):
        rng = np.random.default_rng(0)
        student, teacher, centre = rng.normal(size=(3, 7)), rng.normal(size=(3, 7)), rng.normal(size=7)
        target = plain_softmax((teacher - centre) / 0.05)
        expected = -(target * np.log(plain_softmax(student / 0.1))).sum(-1)
        distribution = teacher_distribution(torch.tensor(teacher), torch.tensor(centre).float(), temperature=0.05)
        found = distillation_error(torch.tensor(student), distribution)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)

    def test_a_view_is_compared_with_the_others_alone(self):
        student, teacher = torch.randn(2, 3, 5), torch.rand(2, 3, 5).softmax(-1)
        pairs = [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
        expected = torch.stack([distillation_error(student[:, s], teacher[:, t]) for s, t in pairs]).mean(0)
        torch.testing.assert_close(across_views(student, teacher), expected)

    def test_visible_tokens_do_not_leak_into_the_patch_loss(self):
        student, teacher = torch.randn(2, 1, 4, 5), torch.rand(2, 1, 4, 5).softmax(-1)
        mask = torch.tensor([[[True, False, True, False]], [[False, False, False, False]]])
        found = over_masked_tokens(student, teacher, mask)
        expected = distillation_error(student[0, 0, [0, 2]], teacher[0, 0, [0, 2]]).mean()
        assert float(found[0]) == pytest.approx(float(expected)) and float(found[1]) == 0

    def test_entropy_is_a_share_of_the_largest(self):
        assert entropy_share(torch.full((2, 8), 1 / 8)) == pytest.approx(1.0)
        assert entropy_share(torch.eye(8)) == pytest.approx(0.0, abs=1e-6)
        assert entropy_share(torch.tensor([[0.5, 0.5, 0.0, 0.0]])) == pytest.approx(math.log(2) / math.log(4))

    def test_information_is_none_where_all_rows_are_alike_and_all_where_each_has_its_own(self):
        assert information(torch.rand(8).softmax(0).expand(3, 2, 8)) == pytest.approx(0.0, abs=1e-6)
        assert information(torch.eye(8).view(4, 2, 8)) == pytest.approx(math.log(8))
        two = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]])  # entropy of the mean log 4 - 1/2 log 2, of each log 2
        assert information(two) == pytest.approx(math.log(4) - 1.5 * math.log(2))


class TestPrototypes:
    def test_logits_are_cosines_whatever_the_prototypes_length(self):
        head = PrototypeHead(6, prototypes=9)
        rows = torch.randn(4, 6)
        before = head(rows)
        assert before.abs().max() <= 1 + 1e-6
        with torch.no_grad():
            head.prototypes.mul_(3.0)
        torch.testing.assert_close(head(rows), before)

    def test_frozen_prototypes_get_no_gradient_and_the_layers_before_do(self):
        head = PrototypeHead(6, prototypes=9)
        head(torch.randn(4, 6), frozen=True).square().sum().backward()
        assert head.prototypes.grad is None and head.mlp[0].weight.grad.abs().sum() > 0
