"""Every command shows its help without the libraries that take seconds to import."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

HELP = """
import contextlib, importlib, io, sys
for script in sys.argv[1:]:
    name, module, function = script.split(":")
    sys.argv = [name, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
        getattr(importlib.import_module(module), function)()
    assert shown.getvalue(), name
    heavy = {"torch", "scipy", "matplotlib", "SimpleITK", "blosc2"} & {*sys.modules}
    assert not heavy, f"{name} imports {heavy}"
"""


def test_needs_no_torch():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    scripts = [f"{name}:{entry}" for name, entry in project["project"]["scripts"].items()]
    assert len(scripts) > 20
    done = subprocess.run([sys.executable, "-c", HELP, *scripts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
