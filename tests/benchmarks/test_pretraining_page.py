"""The table and the page of several pretraining runs, from the folders of real ones."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace

import pytest
from pretraining_page import row_of, write_page, write_table
from support.toy_dataset import make_preprocessed

from swinssl.ssl.config import config_of
from swinssl.ssl.methods.registry import load_method
from swinssl.ssl.pretraining import pretrain

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("work")
    folder = make_preprocessed(root, cases=4)
    config = config_of(load_method("simmim"))(device="cpu", precision="fp32", readers=0, steps=12, batch_size=2)
    return pretrain(
        "simmim", [folder], root / "run", config=config, options=load_method("simmim").Options(), probe=folder
    )


def test_a_row_says_what_the_log_says(run):
    row = row_of(run.folder)
    log = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert (row.method, row.steps, row.batch_size) == ("simmim", 12, 2)
    assert row.last_loss == pytest.approx(log[-1]["loss"], abs=1e-4)
    speeds = [entry["samples_per_second"] for entry in log]
    assert min(speeds) <= row.images_per_second + 0.01 and row.images_per_second <= max(speeds) + 0.01
    assert 0 <= row.waiting_percent < 100
    assert row.probe_untrained == pytest.approx(log[-1]["validation_untrained"], abs=1e-4)
    assert row.probe_best == pytest.approx(run.run.best_score, abs=1e-4)


def test_the_page_has_all_in_itself(run, tmp_path):
    rows = [row_of(run.folder), replace(row_of(run.folder), method="a<b", probe_last=None)]
    write_page(rows, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/png;base64,") == 4 and "a&lt;b" in page and "a<b" not in page
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    write_table(rows, tmp_path / "table.csv")
    with open(tmp_path / "table.csv", newline="") as stream:
        first, second = csv.DictReader(stream)
    assert first["steps"] == "12" and second["method"] == "a<b" and second["probe_last"] == ""
