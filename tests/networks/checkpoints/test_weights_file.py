"""Weights on disk: the same come back, and the same are always the same bytes."""

from __future__ import annotations

import json

import torch

from swinssl.networks.checkpoints.weights_file import read_weights, write_weights

WEIGHTS = {"b": torch.arange(6.0).reshape(2, 3).T, "a": torch.ones(3, dtype=torch.float16)}
METADATA = {name: f'{name}: "quoted", \\, ä, \n, \x07, \x7f' for name in "hgfedcba"}


def test_tensors_and_metadata_come_back(tmp_path):
    path = tmp_path / "weights.safetensors"
    for metadata in (METADATA, {}):
        write_weights(path, WEIGHTS, metadata=metadata)
        tensors, found = read_weights(path)
        assert found == metadata
        assert tensors.keys() == WEIGHTS.keys() and all(torch.equal(tensors[name], WEIGHTS[name]) for name in tensors)


def test_nothing_else_is_written_and_others_may_read_it(tmp_path):
    path = tmp_path / "weights.safetensors"
    write_weights(path, WEIGHTS, metadata=METADATA)
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    assert path.stat().st_mode == ordinary.stat().st_mode
    assert {*tmp_path.iterdir()} == {path, ordinary}


def test_the_metadata_are_in_order_whatever_order_they_were_given_in(tmp_path):
    path = tmp_path / "weights.safetensors"
    write_weights(path, WEIGHTS, metadata=METADATA)
    first = path.read_bytes()
    header = json.loads(first[8 : 8 + int.from_bytes(first[:8], "little")])
    assert list(header["__metadata__"]) == sorted(METADATA)
    write_weights(path, dict(reversed(WEIGHTS.items())), metadata=dict(reversed(METADATA.items())))
    assert path.read_bytes() == first


def test_changed_weights_are_sealed_anew_with_the_metadata_that_were_read(tmp_path):
    path = tmp_path / "weights.safetensors"
    write_weights(path, WEIGHTS, metadata={"format": "swinssl-encoder", "version": "2"})
    _, metadata = read_weights(path)
    changed = {name: tensor + 1 for name, tensor in WEIGHTS.items()}
    write_weights(path, changed, metadata=metadata)
    tensors, found = read_weights(path)
    assert all(torch.equal(tensors[name], changed[name]) for name in changed)
    assert found.keys() == metadata.keys() and found != metadata
