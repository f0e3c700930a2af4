"""`import swinssl` is light, lists what it offers, and type checkers see all of it."""

from __future__ import annotations

import ast
import doctest
import importlib
import pydoc
import subprocess
import sys
from pathlib import Path

import pytest

import swinssl


def test_importing_it_imports_neither_torch_nor_numpy():
    heavy = "{'torch', 'numpy', 'nibabel', 'SimpleITK', 'scipy', 'pydantic'}"
    code = f"import sys, swinssl; swinssl.UserError; dir(swinssl); print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_every_name_is_there_and_listed():
    assert sorted(swinssl.__all__) == sorted({*swinssl._MODULE_OF, "__version__"})
    assert set(swinssl.__all__) <= set(dir(swinssl))
    for name in swinssl.__all__:
        assert getattr(swinssl, name) is not None
    with pytest.raises(AttributeError, match=r"module 'swinssl' has no attribute 'load_modell'"):
        _ = swinssl.load_modell


def test_checkers_see_every_name_where_it_is_loaded_from():
    tree = ast.parse(Path(swinssl.__file__).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and "swinssl" in (node.module or "")]
    seen = {alias.name: node.module for node in imports for alias in node.names}
    assert seen == {**swinssl._MODULE_OF, "__version__": "swinssl.core.provenance"}


def test_help_shows_functions_with_their_arguments():
    text = pydoc.plain(pydoc.render_doc(swinssl))
    for words in ("load_model(", "postprocessing: 'bool' = True", "read_image(", "load_encoder(", "class Prediction("):
        assert words in text


@pytest.mark.parametrize("module", ["swinssl.api.images", "swinssl.api.encoders"])
def test_examples_of_docstrings(module):
    assert doctest.testmod(importlib.import_module(module)).failed == 0
