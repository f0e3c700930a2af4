"""FIFOs, devices, folders and link loops where a file is expected are refused at once: reading them may never end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from swinssl.core.errors import UserError
from swinssl.dataset.case_tables import GROUPS_FILE, LABELS_PRESENT_FILE, read_groups, read_labels_present
from swinssl.dataset.description import DESCRIPTION_FILE, Description, read_description
from swinssl.dataset.splits import SPLITS_FILE, load_or_make_splits
from swinssl.evaluation.comparison.convergence import read_curve
from swinssl.evaluation.comparison.score_files import read_scores
from swinssl.evaluation.reference_labels import find_reference_labels
from swinssl.experiments.benchmark.config import read_config
from swinssl.inference.model_archive import import_model
from swinssl.inference.prediction_record import RECORD_FILE, PredictionRecord
from swinssl.networks.checkpoints.foreign_checkpoint import open_checkpoint
from swinssl.networks.checkpoints.shipped_encoders import encoder_path
from swinssl.networks.checkpoints.weights_file import read_shapes
from swinssl.preprocessing.plans import PLANS_FILE, Plans

pytestmark = [pytest.mark.skipif(os.name == "nt", reason="POSIX"), pytest.mark.timeout(30)]

MAKE = {
    "FIFO": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": lambda path: path.mkdir(),
    "loop": lambda path: path.symlink_to(path.name),
}
SAYS = {"FIFO": "is a FIFO", "device": "is a device", "folder": "a folder", "loop": "symbolic links"}


def description(folder: Path) -> None:
    _, findings = read_description(folder)
    raise UserError("; ".join(map(str, findings)))


READ = {
    DESCRIPTION_FILE: description,
    f"{DESCRIPTION_FILE} of references": lambda folder: find_reference_labels(folder, folder, None),
    LABELS_PRESENT_FILE: lambda folder: read_labels_present(folder, Description()),
    GROUPS_FILE: read_groups,
    SPLITS_FILE: lambda folder: load_or_make_splits(folder, structures={"a": ("b",)}, groups={}),
    PLANS_FILE: Plans.read,
    RECORD_FILE: PredictionRecord.read,
    "encoder.safetensors": lambda folder: read_shapes(folder / "encoder.safetensors"),
    "typed.safetensors": lambda folder: encoder_path(folder / "typed.safetensors"),
    "checkpoint.pt": lambda folder: open_checkpoint(folder / "checkpoint.pt"),
    "model.zip": lambda folder: import_model(folder / "model.zip", folder / "models"),
    "benchmark.toml": lambda folder: read_config(folder / "benchmark.toml"),
    "scores.csv": lambda folder: read_scores([str(folder / "scores.csv")]),
    "log.jsonl": lambda folder: read_curve(f"a={folder / 'log.jsonl'}"),
}


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("name", READ)
def test_is_refused_at_once_by_name(tmp_path, name, kind):
    if (name, kind) == ("log.jsonl", "folder"):
        pytest.skip("a run's folder may be given")
    path = tmp_path / name.split(" ")[0]
    MAKE[kind](path)
    with pytest.raises(UserError) as refused:
        READ[name](tmp_path)
    assert path.name in str(refused.value)
    assert SAYS[kind] in str(refused.value)
