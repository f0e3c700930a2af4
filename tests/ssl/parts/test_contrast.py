"""NT-Xent against its formula, anchor by anchor, and over ranks."""

from __future__ import annotations

import math

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
import torch.nn.functional as F

from swinssl.ssl.parts.contrast import nt_xent

COUNT, WIDTH = 6, 5


def by_hand(views, temperature):
    """Per sample, from the formula: no logsumexp, no matrix."""
    z = [F.normalize(v, dim=0) for v in views.flatten(0, 1).double()]
    losses = []
    for i, anchor in enumerate(z):
        s = [math.exp(float(anchor @ other) / temperature) for other in z]
        losses.append(-math.log(s[i ^ 1] / (sum(s) - s[i])))
    return torch.tensor(losses, dtype=torch.float64).view(-1, 2).mean(1)


def embeddings():
    return torch.randn(COUNT, 2, WIDTH, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_it_is_the_formula(temperature):
    views = embeddings()
    found = nt_xent(views, torch.arange(COUNT), count=COUNT, temperature=temperature)
    torch.testing.assert_close(found.double(), by_hand(views, temperature), rtol=1e-5, atol=1e-6)


def test_samples_of_another_part_are_no_negatives():
    views = embeddings()
    found = nt_xent(views[2:5], torch.tensor([2, 3, 4]), count=COUNT, temperature=0.5)
    torch.testing.assert_close(found.double(), by_hand(views[2:5], 0.5), rtol=1e-5, atol=1e-6)


def test_it_stays_finite_where_the_exponential_would_not():
    views = torch.eye(4).view(2, 2, 4)
    assert torch.isfinite(nt_xent(views, torch.arange(2), count=2, temperature=1e-3)).all()


def test_one_sample_alone_has_nothing_to_learn():
    assert float(nt_xent(embeddings()[:1], torch.tensor([0]), count=1, temperature=0.5)) == pytest.approx(0, abs=1e-6)


def test_two_ranks_are_one_process_in_loss_and_gradient(tmp_path):
    views = embeddings().requires_grad_()
    losses = nt_xent(views, torch.arange(COUNT), count=COUNT, temperature=0.5)
    losses.sum().backward()
    multiprocessing.spawn(_one_rank, (str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    torch.testing.assert_close(torch.cat([r["losses"] for r in ranks]), losses.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.cat([r["gradient"] for r in ranks]), views.grad, rtol=1e-5, atol=1e-6)


def _one_rank(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    mine = torch.arange(COUNT).split([2, 4])[rank]  # uneven parts
    views = embeddings()[mine].requires_grad_()
    losses = nt_xent(views, mine, count=COUNT, temperature=0.5)
    losses.sum().backward()
    torch.save({"losses": losses.detach(), "gradient": views.grad}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()
