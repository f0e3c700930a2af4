"""Opening other projects' checkpoints: every container they use, nothing executed, each fault in words."""

from __future__ import annotations

import argparse
import collections
import datetime
import pathlib
import pickle
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.networks.checkpoints.foreign_checkpoint import bare_name, open_checkpoint

STATE = {"patch_embed.proj.bias": torch.arange(3.0)}


@pytest.fixture
def saved(tmp_path):
    def save(content, name="file.pt", **options):
        torch.save(content, tmp_path / name, **options)
        return tmp_path / name

    return save


@pytest.mark.parametrize(
    ("content", "container"),
    [
        (STATE, "the top level"),
        ({"state_dict": STATE, "epoch": 3, "optimizer": {"lr": 1e-4}}, "'state_dict'"),
        ({"model": STATE}, "'model'"),
        ({"network_weights": STATE, "nnssl_adaptation_plan": {"key_to_encoder": "stages"}}, "'network_weights'"),
        ({"student": STATE, "args": argparse.Namespace(lr=1e-4)}, "'student'"),
        ({"teacher": STATE}, "'teacher'"),
    ],
    ids=["bare", "state_dict", "DAE", "nnssl", "student", "teacher"],
)
def test_the_state_dict_is_found_wherever_it_is_kept(saved, content, container):
    path = saved(content)
    checkpoint = open_checkpoint(path)
    assert checkpoint.container == container and checkpoint.sha256 == files.sha256_of(path)
    assert list(checkpoint.tensors) == list(STATE)
    assert torch.equal(checkpoint.tensors["patch_embed.proj.bias"], torch.arange(3.0))


def test_what_a_file_is_follows_from_its_content_and_not_from_its_name(saved, tmp_path):
    old = saved(STATE, "old.pth", _use_new_zipfile_serialization=False)
    save_file(STATE, tmp_path / "named.pt", metadata={"preset": "tiny"})
    assert list(open_checkpoint(old).tensors) == list(STATE)
    checkpoint = open_checkpoint(tmp_path / "named.pt")
    assert list(checkpoint.tensors) == list(STATE) and checkpoint.metadata == {"preset": "tiny"}


def test_of_a_student_and_a_teacher_one_must_be_chosen(saved):
    path = saved({"student": {"a.b": torch.zeros(1)}, "teacher": {"a.b": torch.ones(1)}})
    with pytest.raises(UserError, match=r"keeps a student and a teacher\. Say which with --branch"):
        open_checkpoint(path)
    assert open_checkpoint(path, branch="teacher").tensors["a.b"].item() == 1
    assert open_checkpoint(path, branch="student").tensors["a.b"].item() == 0
    with pytest.raises(UserError, match="keeps no teacher"):
        open_checkpoint(saved(STATE), branch="teacher")


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("module.swinViT.layers1.0.blocks.0.norm1.weight", "layers1.0.blocks.0.norm1.weight"),
        ("module.layers1.0.blocks.0.norm1.weight", "layers1.0.blocks.0.norm1.weight"),
        ("swin_vit.patch_embed.proj.bias", "patch_embed.proj.bias"),
        ("module.backbone.transformer.layers.0.blocks.0.norm1.weight", "layers.0.blocks.0.norm1.weight"),
        ("student.module.backbone.patch_embed.proj.bias", "patch_embed.proj.bias"),
        ("encoder.patch_embed.proj.bias", "patch_embed.proj.bias"),
        ("encoder.layers1.0.0.blocks.0.norm1.bias", "layers1.0.0.blocks.0.norm1.bias"),
        ("encoder.stages.0.blocks.0.norm1.bias", "stages.0.blocks.0.norm1.bias"),
        ("encoder.norm.weight", "encoder.norm.weight"),
        ("encoder1.layer.conv1.conv.weight", "encoder1.layer.conv1.conv.weight"),
        ("model", "model"),
    ],
)
def test_wrappers_prefixes_are_taken_off(name, bare):
    assert bare_name(name) == bare


def test_two_networks_in_one_dict_are_refused(saved):
    path = saved({"student.a.b": torch.zeros(1), "teacher.a.b": torch.ones(1)})
    with pytest.raises(UserError, match=r"student\.a\.b and teacher\.a\.b are both a\.b"):
        open_checkpoint(path)


def test_half_precision_is_read_as_float32_and_integers_stay(saved):
    checkpoint = open_checkpoint(saved({"a": torch.full((2,), 0.1).half(), "n": torch.tensor(3)}))
    assert checkpoint.tensors["a"].dtype == torch.float32 and checkpoint.tensors["n"].dtype == torch.int64
    assert torch.equal(checkpoint.tensors["a"], torch.full((2,), 0.1).half().float())


class Trap:
    """Unpickling it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
@pytest.mark.parametrize("place", [lambda trap: trap, lambda trap: {"state_dict": STATE, "args": trap}])
def test_code_in_a_pickle_is_refused_and_not_run(saved, tmp_path, place, zipped):
    sprung = tmp_path / "sprung"
    path = saved(place(Trap(sprung)), _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"file\.pt: holds .*could run code; nothing was executed.*state_dict"):
        open_checkpoint(path)
    assert not sprung.exists()


def test_a_bare_pickle_is_refused_and_not_run(tmp_path):
    path, sprung = tmp_path / "file.pkl", tmp_path / "sprung"
    path.write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(UserError, match=r"file\.pkl: .*nothing .*was executed"):
        open_checkpoint(path)
    assert not sprung.exists()


def test_a_pickled_network_is_refused_with_the_way_to_save_it(saved):
    with pytest.raises(UserError, match=r"holds torch\.nn\.modules\.linear\.Linear.*network\.state_dict\(\)"):
        open_checkpoint(saved(torch.nn.Linear(2, 2)))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_truncated_file_is_refused(saved, share, zipped):
    path = saved({"a": torch.zeros(1000)}, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=r"file\.pt: truncated, or not a checkpoint.*copy it again"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "a Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html>Not found</html>", "a web page"),
        (b"weights will be released soon", "truncated, or not a checkpoint"),
    ],
)
def test_what_is_no_checkpoint_is_told_apart(tmp_path, content, words):
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"model\.pt: {words}"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (torch.zeros(2), "holds a Tensor. Expected a state dict"),
        ([1, 2], "holds a list. Expected a state dict"),
        ({"weights": {"a": torch.zeros(2)}}, "no tensors found in the top level"),
        ({"state_dict": {"epoch": 3}}, "no tensors found in 'state_dict'"),
    ],
)
def test_an_unknown_container_is_refused(saved, content, words):
    with pytest.raises(UserError, match=words):
        open_checkpoint(saved(content))


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.pt: no such file"):
        open_checkpoint(tmp_path / "none.pt")
    with pytest.raises(UserError, match="a folder"):
        open_checkpoint(tmp_path)


FIRST = "patch_embed.proj.weight"
NETWORK = torch.nn.Linear(2, 2)


def harmless():
    network = torch.nn.Linear(2, 2)
    optimiser = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    return {
        "numpy number": np.mean([0.8, 0.9]),
        "numpy flag": np.bool_(True),
        "numpy array": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "array of objects": np.array([{}, None]),
        "random state": np.random.get_state(),
        "arguments": argparse.Namespace(rate=np.float64(0.1), out=pathlib.Path("/runs/1")),
        "date": datetime.datetime(2024, 5, 6, tzinfo=datetime.timezone.utc),  # noqa: UP017
        "defaults": collections.defaultdict(list, {"a": [1]}),
        "optimiser": optimiser.state_dict(),
        "schedule": torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 10).state_dict(),
        "namespace": types.SimpleNamespace(a=1),
    }


@pytest.mark.parametrize("what", harmless())
def test_what_research_code_keeps_beside_the_weights_is_read(tmp_path, what):
    path = tmp_path / "model.pt"
    torch.save(
        {"state_dict": collections.OrderedDict([(FIRST, torch.ones(4, 1, 2, 2, 2))]), "x": harmless()[what]}, path
    )
    assert open_checkpoint(path).tensors.keys() == {FIRST}


def test_numpy_arrays_as_weights_are_read_in_their_order_of_bytes(tmp_path):
    path = tmp_path / "model.pt"
    expected = np.arange(32, dtype=np.float32).reshape(4, 1, 2, 2, 2)
    torch.save({FIRST: expected, "big": expected.astype(">f4"), "fortran": np.asfortranarray(expected)}, path)
    for tensor in open_checkpoint(path).tensors.values():
        assert np.array_equal(tensor.numpy(), expected)


@pytest.mark.parametrize(
    ("what", "name"),
    [
        (NETWORK, r"torch\.nn\.modules\.linear\.Linear"),
        (torch.nn.functional.relu, r"torch\.nn\.functional\.relu"),
        (np.random.default_rng(0), r"numpy\.random\._pickle\."),
    ],
)
def test_what_is_refused_is_named_with_what_to_type(tmp_path, what, name):
    torch.save({"state_dict": {FIRST: torch.ones(3)}, "x": what}, tmp_path / "model.pt")
    with pytest.raises(
        UserError, match=rf"model\.pt: holds {name}.*torch\.save\(checkpoint\['state_dict'\], 'weights\.pt'\)"
    ):
        open_checkpoint(tmp_path / "model.pt")


def test_a_later_pickle_protocol_is_named(tmp_path):
    torch.save({FIRST: torch.ones(3)}, tmp_path / "model.pt", pickle_protocol=4)
    with pytest.raises(UserError, match=r"saved with pickle_protocol 3 or later"):
        open_checkpoint(tmp_path / "model.pt")
