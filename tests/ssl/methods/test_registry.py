"""Each method's loss against a straightforward computation, and how far its gradient reaches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.toy_dataset import ENCODER
from support.toy_pretraining import PATCH, context_of, new_batch, new_task

from swinssl.networks.swin.encoder import SwinEncoder
from swinssl.ssl.methods.registry import METHODS, load_method
from swinssl.ssl.parts.heads import VoxelShuffleHead

ALL = sorted(METHODS)


pytestmark = pytest.mark.usefixtures("one_thread")


# --- the losses again, sample by sample and view by view, straight from the formulas


def maps(network, image, mask=None):
    return network.encoder(image[None], mask=mask, mask_token=network.mask_token, feature_level=network.feature_level)


def masked_error(task, image, mask):
    """Squared error over the voxels of masked tokens (paper 3.2 item 1)."""
    reconstructed = task.network.heads["voxels"](maps(task.network, image, mask[None])[4])[0]
    squares = [
        float((reconstructed[0, z, y, x] - image[0, z, y, x]) ** 2)
        for z, y, x in np.ndindex(*PATCH)
        if mask[z // 2, y // 2, x // 2]
    ]
    return sum(squares) / len(squares)


def simmim(task, batch, sample, context):
    return masked_error(task, batch.tensors["images"][sample, 0], batch.tensors["mask"][sample, 0])


def whole_error(task, image, clean):
    reconstructed = task.network.heads["decoder"](maps(task.network, image)[4])[0]
    return float(F.mse_loss(reconstructed, clean))


def inpainting(task, batch, sample, context):
    return whole_error(task, batch.tensors["images"][sample, 0], batch.tensors["clean"][sample, 0])


def reconstruction(task, batch, sample, context):
    return whole_error(task, batch.tensors["images"][sample, 0], batch.tensors["images"][sample, 0])


def contrast(task, batch, sample):
    """NT-Xent from cosine similarities (paper 3.2 item 4)."""
    images = batch.tensors["images"]
    z = [task.network.heads["embedding"](maps(task.network, image)[4])[0] for image in images.flatten(0, 1)]
    losses = []
    for anchor in (2 * sample, 2 * sample + 1):
        e = [torch.exp(F.cosine_similarity(z[anchor], other, dim=0) / 0.5) for other in z]
        losses.append(-torch.log(e[anchor ^ 1] / (sum(e) - e[anchor])))
    return float(sum(losses) / 2)


def contrastive(task, batch, sample, context):
    return contrast(task, batch, sample)


def turn_error(task, batch, sample, view):
    logits = task.network.heads["turns"](maps(task.network, batch.tensors["images"][sample, view])[4])[0]
    return float(-logits.log_softmax(0)[batch.tensors["turns"][sample, view]])


def rotation(task, batch, sample, context):
    return turn_error(task, batch, sample, 0)


def swinunetr(task, batch, sample, context):
    images, clean = batch.tensors["images"][sample], batch.tensors["clean"][sample]
    turns = sum(turn_error(task, batch, sample, view) for view in range(2)) / 2
    reconstructed = sum(whole_error(task, images[view], clean[view]) for view in range(2)) / 2
    return turns + contrast(task, batch, sample) + reconstructed


def tokens(network, image, mask=None):
    tokens = maps(network, image, None if mask is None else mask[None])[5][0]
    return network.heads["norm"].norm(tokens.flatten(1).T)


def cross_entropy(student, teacher, centre):
    target = torch.softmax((teacher - centre) / 0.07, -1)
    return float(-(target * torch.log(torch.softmax(student / 0.1, -1))).sum())


def global_error(task, batch, sample, context):
    images, errors = batch.tensors["images"][sample], []
    for seen, other in ((0, 1), (1, 0)):
        mask = batch.tensors["mask"][sample, seen] if "mask" in batch.tensors else None
        student = task.network.heads["global"](tokens(task.network, images[seen], mask).mean(0))
        teacher = context.teacher.network.heads["global"](tokens(context.teacher.network, images[other]).mean(0))
        errors.append(cross_entropy(student, teacher, context.centres["global"].value))
    return sum(errors) / 2


def patch_error(task, batch, sample, context):
    images, errors = batch.tensors["images"][sample], []
    for view in range(2):
        mask = batch.tensors["mask"][sample, view]
        student = task.network.heads["patch"](tokens(task.network, images[view], mask))
        teacher = context.teacher.network.heads["patch"](tokens(context.teacher.network, images[view]))
        # Cells of 16 voxels are exactly the tokens at 1/16.
        hidden = [i for i, (z, y, x) in enumerate(np.ndindex(2, 2, 2)) if mask[8 * z, 8 * y, 8 * x]]
        centre = context.centres["patch"].value
        errors.append(sum(cross_entropy(student[i], teacher[i], centre) for i in hidden) / len(hidden))
    return sum(errors) / 2


def dino(task, batch, sample, context):
    return global_error(task, batch, sample, context)


def ibot(task, batch, sample, context):
    return global_error(task, batch, sample, context) + patch_error(task, batch, sample, context)


def smit(task, batch, sample, context):
    images, masks = batch.tensors["images"][sample], batch.tensors["mask"][sample]
    reconstructed = sum(masked_error(task, images[view], masks[view]) for view in range(2)) / 2
    distilled = patch_error(task, batch, sample, context) + global_error(task, batch, sample, context)
    return reconstructed + 0.1 * distilled


STRAIGHTFORWARD = {
    function.__name__: function
    for function in (simmim, inpainting, reconstruction, contrastive, rotation, dino, ibot, smit, swinunetr)
}


@pytest.mark.parametrize("method", ALL)
def test_the_loss_of_each_sample_is_the_formula(method):
    task = new_task(method)
    batch, context = new_batch(task), context_of(task)
    with torch.no_grad():
        found = task.method.losses(task.network, batch, context).losses
        expected = [STRAIGHTFORWARD[method](task, batch, sample, context) for sample in range(2)]
    assert found.tolist() == pytest.approx(expected, rel=2e-4)


@pytest.mark.parametrize("method", ALL)
def test_the_gradient_reaches_every_stage(method):
    task = new_task(method)
    task.method.losses(task.network, new_batch(task, drop_path=True), context_of(task)).losses.sum().backward()
    encoder = task.network.encoder

    def reached(parameters):
        return all(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)

    assert reached(encoder.patch_embed.parameters())
    for number, stage in enumerate(encoder.stages):
        assert reached(stage.blocks[0].attn.qkv.parameters()) and reached(stage.blocks[-1].mlp.parameters()), number
        if number < 3 or method not in ("dino", "ibot"):  # their heads read the map before the last merging
            assert reached(stage.merging.parameters()), number
        else:
            assert not reached(stage.merging.parameters())
    for head in task.network.heads.values():
        assert reached(head.parameters())
    if task.network.mask_token is not None:
        assert reached([task.network.mask_token])


@pytest.mark.slow
def test_learning_to_paint_keeps_features_apart():
    """From random weights, or from black, the first steps would leave the mean image in the features and no more."""
    rng = torch.Generator().manual_seed(0)
    images = F.interpolate(torch.rand(8, 1, 3, 3, 3, generator=rng), size=PATCH, mode="trilinear")
    torch.manual_seed(0)
    encoder = SwinEncoder(ENCODER, in_channels=1)
    head = VoxelShuffleHead(encoder.widths[4], channels=1, mean=float(images.mean()))
    optimiser = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=1e-3)

    def deviation():
        unit = F.normalize(encoder(images)[4].flatten(1), dim=-1)
        return float((unit - unit.mean(0)).detach().square().mean().sqrt())

    before = deviation()
    for _ in range(40):
        mask = torch.rand(8, 4, 4, 4, generator=rng) < 0.75
        for axis in (1, 2, 3):
            mask = mask.repeat_interleave(4, axis)
        reconstructed = head(encoder(images, mask=mask, mask_token=torch.zeros(encoder.widths[0]))[4])
        optimiser.zero_grad()
        F.mse_loss(reconstructed, images).backward()
        optimiser.step()
    assert deviation() > before


@pytest.mark.parametrize("method", ALL)
def test_a_sample_does_not_depend_on_how_the_batch_is_made(method):
    task = new_task(method, batch_size=4)
    first, second = (new_batch(task, samples=n) for n in (2, 4))
    for name, tensor in first.tensors.items():
        assert torch.equal(tensor, second.tensors[name][:2]), name


@pytest.mark.parametrize("method", ["simmim", "ibot", "smit"])
def test_masked_voxels_are_not_seen(method):
    task = new_task(method)
    batch = new_batch(task)
    other = dict(batch.tensors)
    hidden = batch.masked_voxels().view(2, -1, 1, *PATCH)
    other["images"] = batch.tensors["images"].masked_fill(hidden, 7.0)
    with torch.no_grad():
        before, after = (b.encode_student(task.network) for b in (batch, type(batch)(other, batch.samples, None)))
    assert torch.equal(before.last_map, after.last_map)


def test_smit_weighs_its_terms():
    task = new_task("smit")
    outcome = task.method.losses(task.network, new_batch(task), context_of(task))
    expected = outcome.terms["image"] + 0.1 * outcome.terms["patch"] + 0.1 * outcome.terms["global"]
    torch.testing.assert_close(outcome.losses, expected)


def test_the_last_layer_is_still_in_the_first_hundredth_of_the_run():
    task = new_task("dino")
    for step, moves in ((0, False), (4, False), (5, True)):
        task.network.zero_grad()
        task.before_step(step, 500)
        task.method.losses(task.network, new_batch(task), task.context).losses.sum().backward()
        assert (task.network.heads["global"].prototypes.grad is not None) == moves


def test_every_method_has_its_own_file_and_options():
    for name in METHODS:
        method = load_method(name)
        assert method.__module__ == f"swinssl.ssl.methods.{name}" and method.Options.__module__ == method.__module__
