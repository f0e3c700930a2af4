"""Names with markup, mathematics, control characters and formulas, from the raw data set to the report."""

from __future__ import annotations

import csv
import json
from xml.etree import ElementTree

import numpy as np
from support.toy_dataset import SHAPE, ball
from support.whole_way import STEPS

from swinssl.core.text import printable
from swinssl.evaluation.report.html.content import Figure, HtmlReport, Section, Table
from swinssl.evaluation.report.html.write import write_report
from swinssl.imageio.volume import Geometry
from swinssl.imageio.writer import write_volume

NAMES = [
    "[/x]",
    "[left] lung",
    "a $_$",
    "vol $x_{$ \U0001f9e0",
    "\x1b[31mred\x1b]0;title\x07",
    "two\nerror: lines",
    "=cmd()",
    f"\u202eder {'long ' * 40}end",
]


def make_raw(folder):
    """Two cases of a ball whose octants are the structures."""
    grid = Geometry.from_parts(SHAPE, spacing=(1, 1, 1))
    octant = sum(2**axis * (part > n // 2) for axis, (part, n) in enumerate(zip(np.indices(SHAPE), SHAPE, strict=True)))
    for seed in range(2):
        image, label = ball(seed)
        write_volume(folder / "imagesTr" / f"ball_{seed}_0000.nii.gz", image, grid)
        write_volume(folder / "labelsTr" / f"ball_{seed}.nii.gz", ((label > 0) * (1 + octant)).astype(np.uint8), grid)
    labels = {"background": 0, **{name: value for value, name in enumerate(NAMES, start=1)}}
    known = {"channel_names": {"0": "noNorm"}, "labels": labels, "numTraining": 2, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(known))


def names_in(path):
    with path.open(newline="", encoding="utf-8") as stream:
        return {row["structure"] for row in csv.DictReader(stream)}


def assert_plain(said):
    assert printable(said, keep="\n\t") == said
    assert not any(line.startswith("error:") for line in said.splitlines())


def test_every_step_shows_them_as_they_are(tmp_path, typed, caplog, monkeypatch):
    monkeypatch.setenv("COLUMNS", "2000")
    make_raw(tmp_path / "raw" / "Dataset007_Toy")
    for step, arguments in STEPS.items():
        done = typed(step, *arguments(tmp_path))
        assert done.code == 0, (step, done.err)
        assert_plain(done.out + done.err)
        # Training and planning do not list structures.
        if step in ("check", "preprocess", "predict", "evaluate"):
            assert [name for name in NAMES if printable(name).strip() not in done.out] == [], step
    fold = tmp_path / "results" / "Dataset007_Toy" / "toy" / "fold_0"
    assert (fold / "progress.png").is_file() and (tmp_path / "Bericht" / "overlays.png").is_file()
    assert "not drawn" not in caplog.text

    # Two models on two patients: the same scores, and others a little below.
    metrics = tmp_path / "Bericht" / "metrics.csv"
    assert names_in(metrics) == {*NAMES[:-2], "'=cmd()", NAMES[-1]}
    out = tmp_path / "compared"
    done = typed("compare", f"@a $_$={metrics}", f"[/b]={metrics}", "--out", out)
    assert done.code == 0, done.err
    assert_plain(done.out + done.err)
    assert "not drawn" not in caplog.text
    drawn = [*out.rglob("*.svg")]
    assert drawn and all(ElementTree.parse(path) for path in drawn)
    for path in [*out.rglob("*.md"), *out.rglob("*.html"), *out.rglob("*.svg")]:
        assert_plain(path.read_text(encoding="utf-8"))

    table = Table(NAMES[4], ["init", *NAMES], [[NAMES[5], *[0.5] * len(NAMES)]], {})
    figures = [Figure(path, NAMES[3], NAMES[4]) for path in drawn]
    write_report(tmp_path / "report.html", HtmlReport(NAMES[0], NAMES[4], [Section(NAMES[7], [], [table], figures)]))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert_plain(page)
    assert "[left] lung" in page and r"\x1b[31mred" in page
