"""What a run keeps of its command line."""

from __future__ import annotations

import pytest

from swinssl.core.provenance import without_folders


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("/data/patients/Mueller/enc.safetensors", ".../enc.safetensors"),
        ("--init=/home/anna/enc.safetensors", "--init=.../enc.safetensors"),
        ("/a/b,/c/d", ".../b,.../d"),
        ("~/models/swin", ".../swin"),
        ("C:\\Users\\anna\\swin", ".../swin"),
        ("results/swin", "results/swin"),
        ("--fold", "--fold"),
        ("0.5", "0.5"),
    ],
)
def test_absolute_paths_lose_their_folders(typed, kept):
    assert without_folders(typed) == kept
