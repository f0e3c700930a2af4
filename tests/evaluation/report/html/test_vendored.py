"""The viewer in the package is the published one, comes with its licences, and gets into a wheel."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path

from swinssl.core import files
from swinssl.evaluation.report.html import vendored

ROOT = Path(__file__).resolve().parents[4]
FOLDER = Path(str(resources.files("swinssl.evaluation.report.html"))) / vendored.FOLDER


def test_the_hash_is_the_one_that_the_notice_states():
    assert files.sha256_of(FOLDER / vendored.VIEWER) == vendored.notice()["sha256"]


def test_the_notice_says_where_it_is_from():
    said = vendored.notice()
    assert said["name"] == "@niivue/niivue" and f"niivue-{said['version']}.tgz" in said["source"]
    licences = vendored.viewer_licences()
    for part in (
        "BSD 2-Clause",
        "Copyright (c) 2021, Niivue",
        "MIT License",
        "ISC License",
        "BSD 3-Clause",
        "zlib License",
    ):
        assert part in licences


def test_a_page_can_hold_it():
    source = vendored.viewer_source()
    assert "</script" not in source.lower() and "<!--" not in source


def test_it_is_in_a_wheel():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packed = {path for pattern in settings["package-data"]["swinssl"] for path in (ROOT / "swinssl").glob(pattern)}
    wanted = {path for name in ("vendor", "page") for path in (FOLDER.parent / name).iterdir()}
    assert len(wanted) == 8 and wanted <= packed
