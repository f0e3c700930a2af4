"""Batch norm agrees over ranks, and equals torch's; both norms bear a map of one voxel."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn

from swinssl.networks.normalisation import BatchNorm, InstanceNorm, make_norm

CHANNELS, SHAPE = 3, (4, 3, 2, 3, 2)
# Samples of the batch that the two ranks have.
SPLITS = ((2, 2), (1, 3))


def batch_and_weights():
    """A batch of four with channels far from zero, and what the loss weighs its outputs with."""
    generator = torch.Generator().manual_seed(0)
    batch = 2.0 * torch.randn(SHAPE, generator=generator) + torch.tensor([0.0, 5.0, -9.0]).view(1, 3, 1, 1, 1)
    return batch, torch.randn(SHAPE, generator=generator)


def make(layer):
    norm = layer(CHANNELS)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.5, -0.7, 0.2]))
        norm.bias.copy_(torch.tensor([0.1, -2.0, 3.0]))
    return norm


def step(norm, batch, weights):
    """Output, input gradient, and the layer's gradients and statistics after one training step."""
    image = batch.clone().requires_grad_()
    out = norm.train()(image)
    (out * weights).sum().backward()
    return {
        "out": out.detach(),
        "image gradient": image.grad,
        "weight gradient": norm.weight.grad,
        "bias gradient": norm.bias.grad,
        "mean": norm.running_mean.clone(),
        "variance": norm.running_var.clone(),
    }


def test_in_one_process_batch_norm_is_torch_s():
    batch, weights = batch_and_weights()
    ours, theirs = step(make(BatchNorm), batch, weights), step(make(nn.BatchNorm3d), batch, weights)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_two_ranks_with_parts_of_the_batch_equal_one_process(tmp_path):
    torch.multiprocessing.spawn(_one_rank, args=(str(tmp_path),), nprocs=2)
    batch, weights = batch_and_weights()
    whole = step(make(nn.BatchNorm3d), batch, weights)
    for split in SPLITS:
        ranks = [torch.load(tmp_path / f"{split}-{rank}.pt", weights_only=True) for rank in (0, 1)]
        for name in ("out", "image gradient"):
            torch.testing.assert_close(torch.cat([r[name] for r in ranks]), whole[name], rtol=1e-4, atol=1e-5)
        for name in ("weight gradient", "bias gradient"):  # the engine adds them up over the ranks
            torch.testing.assert_close(ranks[0][name] + ranks[1][name], whole[name], rtol=1e-4, atol=1e-4)
        for name in ("mean", "variance"):
            torch.testing.assert_close(ranks[0][name], whole[name], rtol=1e-5, atol=1e-6)
            assert torch.equal(ranks[0][name], ranks[1][name])


def _one_rank(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    for split in SPLITS:
        batch, weights = (t.split(split)[rank] for t in batch_and_weights())
        torch.save(step(make(BatchNorm), batch, weights), f"{folder}/{split}-{rank}.pt")
    dist.destroy_process_group()


def test_after_training_batch_norm_uses_its_running_statistics():
    norm = make(BatchNorm)
    step(norm, *batch_and_weights())
    image = torch.zeros(1, 3, 1, 1, 1)
    expected = norm.bias - norm.running_mean / (norm.running_var + norm.eps).sqrt() * norm.weight
    torch.testing.assert_close(norm.eval()(image)[0, :, 0, 0, 0], expected)


def test_batch_norm_of_one_voxel_in_training_scales_it_and_learns_no_statistics():
    norm = make(BatchNorm).train()
    voxel = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1, 1)
    torch.testing.assert_close(norm(voxel)[0, :, 0, 0, 0], torch.tensor([1.6, -3.4, 3.6]))
    assert torch.equal(norm.running_mean, torch.zeros(3))


def test_instance_norm_is_torch_s_where_there_are_voxels():
    batch, _ = batch_and_weights()
    torch.testing.assert_close(make(InstanceNorm)(batch), make(lambda c: nn.InstanceNorm3d(c, affine=True))(batch))


@pytest.mark.parametrize("training", [True, False], ids=["training", "prediction"])
def test_instance_norm_of_one_voxel_keeps_it(training):
    norm = make(InstanceNorm).train(training)
    voxels = torch.randn(2, 3, 1, 1, 1)
    expected = voxels * norm.weight.view(1, 3, 1, 1, 1) + norm.bias.view(1, 3, 1, 1, 1)
    torch.testing.assert_close(norm(voxels), expected)


@pytest.mark.parametrize(("kind", "layer"), [("batch", BatchNorm), ("instance", InstanceNorm)])
def test_the_plan_s_word_chooses_the_layer(kind, layer):
    assert isinstance(make_norm(kind, 4), layer)
