"""What several test folders share: where real data are, if this machine has them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from swinssl.threads import spin_briefly

spin_briefly()

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real data (`raw/`, `volumes/`); the test is skipped where the machine has none."""
    folder = Path(os.environ.get("SWINSSL_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set SWINSSL_TEST_DATA to the folder with raw/ and volumes/")
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Networks compute in one thread: for toy sizes it is the fastest, and its sums have one order."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
