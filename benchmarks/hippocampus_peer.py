"""nnU-Net's side of hippocampus_vs_nnunet.py; runs in an environment with nnunetv2, and imports nothing of swinssl.

    python benchmarks/hippocampus_peer.py MINUTES OUT.json

Its trainer as it is, but for the length: as many iterations as fit into the minutes, timed beforehand.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

# As swinssl's commands do: waiting threads leave the cores to the processes that augment.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

NAME = "Dataset004_Hippocampus"
EPOCHS, VALIDATION_ITERATIONS = 20, 1
WARM_UP, TIMED = 4, 12


def main() -> None:
    minutes, out = float(sys.argv[1]), Path(sys.argv[2])
    trial = make_trainer("trial", epochs=1, iterations=1)
    trial.on_train_start()
    trial.on_train_epoch_start()
    for _ in range(WARM_UP):
        trial.train_step(next(trial.dataloader_train))
    started = time.monotonic()
    for _ in range(TIMED):
        trial.train_step(next(trial.dataloader_train))
    seconds = (time.monotonic() - started) / TIMED
    iterations = max(1, int(minutes * 60 / EPOCHS / seconds))
    del trial

    trainer = make_trainer(f"minutes{minutes:g}", epochs=EPOCHS, iterations=iterations)
    started = time.monotonic()
    trainer.run_training()
    took = (time.monotonic() - started) / 60
    trainer.inference_allowed_mirroring_axes = None  # no test-time augmentation, on either side
    trainer.perform_actual_validation(save_probabilities=False)
    found = {
        "validation": str(Path(trainer.output_folder) / "validation"),
        "minutes": took,
        "steps": EPOCHS * iterations,
        "batch": trainer.batch_size,
        "patch": list(trainer.configuration_manager.patch_size),
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
        "seconds_per_iteration_timed": seconds,
    }
    out.write_text(json.dumps(found, indent=2) + "\n")


def make_trainer(name: str, *, epochs: int, iterations: int) -> nnUNetTrainer:
    folder = Path(os.environ["nnUNet_preprocessed"]) / NAME  # noqa: SIM112 (their spelling)
    plans = {**load_json(folder / "nnUNetPlans.json"), "continue_training": False}
    trainer = nnUNetTrainer(plans, "3d_fullres", 0, load_json(folder / "dataset.json"), device=torch.device("cpu"))
    trainer.num_epochs, trainer.num_iterations_per_epoch = epochs, iterations
    trainer.num_val_iterations_per_epoch = VALIDATION_ITERATIONS
    trainer.output_folder = str(Path(trainer.output_folder).parent / name)
    Path(trainer.output_folder).mkdir(parents=True, exist_ok=True)
    trainer.initialize()
    return trainer


if __name__ == "__main__":
    main()
