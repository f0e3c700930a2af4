"""A new image format is one module and one row: everything else derives from the table."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from swinssl.core.errors import UserError
from swinssl.dataset.raw_dataset import RawDataset
from swinssl.imageio.formats import FORMATS, ImageFormat, format_of, image_ending, images_in, known_endings
from swinssl.imageio.image_fault import ImageFault
from swinssl.imageio.reader import header_remarks, read_case, read_geometry
from swinssl.imageio.volume import Geometry
from swinssl.imageio.writer import write_volume
from swinssl.inference.input_cases import InputCase

GRID = Geometry.from_parts((2, 3, 4), spacing=(3.0, 1.0, 2.0))


@pytest.fixture
def dummy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A format in JSON, `.toy`; `.toyhdr` stands for one with its voxels in a second file, `.toyvox`."""

    def read(path: Path) -> tuple[NDArray, Geometry]:
        content = json.loads(path.read_text())
        return np.array(content["voxels"], content["type"]), read_geometry(path)

    def read_geometry(path: Path) -> Geometry:
        content = json.loads(path.read_text())
        if "voxels" not in content:
            raise ImageFault(path, "not_an_image", "is not a toy file", "Get it anew.")
        z, y, x = np.shape(content["voxels"])
        return Geometry((z, y, x), np.array(content["affine"]))

    def write(path: Path, array: NDArray, geometry: Geometry, *, target: Path) -> None:
        content = {"type": str(array.dtype), "voxels": array.tolist(), "affine": geometry.affine.tolist()}
        path.write_text(json.dumps(content))

    module = ModuleType("toy_format")
    functions = {"read": read, "read_geometry": read_geometry, "header_remarks": lambda path: (), "write": write}
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    row = ImageFormat((".toy", ".toyhdr"), module.__name__, companions=(".toyvox",), single_file={".toyhdr": ".toy"})
    monkeypatch.setitem(FORMATS, "toy", row)


@pytest.mark.usefixtures("dummy")
def test_a_new_row_is_listed_written_read_and_used_in_data_sets(tmp_path: Path) -> None:
    assert ".toy" in known_endings() and image_ending("a.b.TOY") == ".toy"
    voxels = np.arange(24, dtype=np.int16).reshape(GRID.shape)
    for folder, name, array in (
        ("imagesTr", "a_0000.toy", voxels),
        ("labelsTr", "a.toy", (voxels > 5).astype(np.uint8)),
    ):
        (tmp_path / folder).mkdir()
        write_volume(tmp_path / folder / name, array, GRID)
    (tmp_path / "imagesTr" / "a_0000.toyvox").write_bytes(b"beside a header")
    description = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "organ": 1}, "file_ending": ".toy"}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    raw = RawDataset.load(tmp_path)
    (case,) = raw.cases
    image, label = read_case(case.images, case.label)
    assert label is not None
    np.testing.assert_array_equal(image.array[0], voxels)
    np.testing.assert_array_equal(label.array[0], voxels > 5)
    assert read_geometry(case.images[0]).spacing == GRID.spacing and header_remarks(case.images[0]) == ()
    assert images_in(tmp_path / "imagesTr") == list(case.images) and not raw.left_out
    assert InputCase("b", (Path("b_0000.toyhdr"),)).result_name == "b.toy"


def test_an_unknown_ending_is_refused_with_those_known(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.toy: not the name of an image that swinssl reads \(\.nii\.gz, \.nii, "):
        write_volume(tmp_path / "a.toy", np.zeros(GRID.shape), GRID)


@pytest.mark.parametrize("name", FORMATS)
def test_every_row_has_a_module_with_all_functions(name: str) -> None:
    for ending in FORMATS[name].endings:
        row = format_of(Path(f"a{ending}"))
        assert row is FORMATS[name]
        module = row.load()
        for function in ("read", "read_geometry", "header_remarks", "write"):
            assert callable(getattr(module, function))
