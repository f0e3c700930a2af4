"""docs/api.md and examples/service.py do what they say."""

from __future__ import annotations

import doctest
import importlib.util
import threading
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from support.made_models import make_plans, smooth_noise, volume_of, write_model

import swinssl
from swinssl.imageio.writer import write_volume

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.filterwarnings("ignore::swinssl.api.model.InputWarning")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """With `model` and `scan.nii.gz`, and the working directory."""
    write_model(tmp_path / "model", make_plans(channel_names=("CT",)))
    volume = volume_of(smooth_noise((12, 14, 16)), (2.0, 1.0, 1.0))
    write_volume(tmp_path / "scan.nii.gz", volume.array[0], volume.geometry)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_examples_of_the_page(folder):
    failed, tried = doctest.testfile(str(ROOT / "docs" / "api.md"), module_relative=False)
    assert failed == 0 and tried > 15


def test_every_function_is_on_the_page():
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    functions = [name for name in swinssl.__all__ if name.islower() and not name.startswith("_")]
    assert [name for name in functions if name not in text] == []


def test_the_service_answers_with_the_segmentation(folder):
    spec = importlib.util.spec_from_file_location("service", ROOT / "examples" / "service.py")
    service = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(service)
    with service.make_server("model", port=0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}"
            with urllib.request.urlopen(url, data=(folder / "scan.nii.gz").read_bytes()) as answer:
                (folder / "answer.nii.gz").write_bytes(answer.read())
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(url, data=b"no image")
            assert refused.value.code == 400 and refused.value.read().startswith(b"scan.nii.gz: ")
        finally:
            server.shutdown()
            thread.join()
    expected = swinssl.load_model("model").predict("scan.nii.gz")
    np.testing.assert_array_equal(swinssl.read_image("answer.nii.gz").array, expected.labels)
    np.testing.assert_allclose(swinssl.read_image("answer.nii.gz").affine, expected.affine)
