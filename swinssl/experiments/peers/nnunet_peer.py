"""nnU-Net's side of a comparison; runs in an environment with nnunetv2, and imports nothing of swinssl.

    python swinssl/experiments/peers/nnunet_peer.py Dataset004_Hippocampus OUT.json --minutes 30 [--fold 0]
        [--cases CASE ...]

Its trainer as it is, but for the length: as many iterations as fit into the minutes, timed beforehand. What it predicts
with is its last weights, as nnU-Net does.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

# As swinssl's commands do: waiting threads leave the cores to the processes that augment.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json, save_json
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

EPOCHS, VALIDATION_ITERATIONS = 20, 1
WARM_UP, TIMED = 4, 12
# Axis of an image (z, y, x) along which left and right lie.
LEFT_RIGHT = 2
STOPPED = 128 + signal.SIGTERM


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="folder name of the preprocessed data set")
    parser.add_argument("out", type=Path, help="write what was done here, as JSON")
    parser.add_argument("--minutes", type=float, required=True, help="0 trains nothing and keeps the network as it is")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--plans", default="nnUNetPlans", help="name of nnU-Net's plans")
    parser.add_argument("--seed", type=int, default=0, help="of the weights; nnU-Net's own draws have none")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--keep-sides", action="store_true", help="no mirroring of left and right")
    parser.add_argument("--split", type=Path, help='train and validate on these: {"train": [...], "val": [...]}')
    parser.add_argument("--cases", nargs="+", help="predict these. Default: those that the fold validates on")
    parser.add_argument("--images", type=Path, help="predict the images of this folder instead")
    parser.add_argument("--name", default="", help="of the run, which keeps it apart from others of the fold")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, stop)
    # A pool ends its workers by SIGTERM, at times one that waits for a lock: there only the default ends it.
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    if arguments.minutes == 0:
        untrained = make_trainer(arguments, "", epochs=1, iterations=1)
        untrained.save_checkpoint(str(Path(untrained.output_folder) / "checkpoint_final.pth"))
        # As the start of a training leaves them for nnUNetv2_predict.
        for content, name in ((untrained.plans_manager.plans, "plans.json"), (untrained.dataset_json, "dataset.json")):
            save_json(content, str(Path(untrained.output_folder_base) / name), sort_keys=False)
        return
    seconds = seconds_per_iteration(arguments)
    iterations = max(1, int(arguments.minutes * 60 / seconds))
    epochs = min(EPOCHS, iterations)

    trainer = make_trainer(
        arguments, f"{arguments.name}minutes{arguments.minutes:g}", epochs=epochs, iterations=iterations // epochs
    )
    started = time.monotonic()
    trainer.run_training()
    took = (time.monotonic() - started) / 60
    trainer.inference_allowed_mirroring_axes = None  # no test-time augmentation, on either side
    predictions = Path(trainer.output_folder) / "validation"
    if arguments.images:
        predictions = Path(trainer.output_folder) / "predictions"
        predict(trainer, arguments.images, predictions)
    else:
        if arguments.cases:
            trainer.do_split = lambda: ([], arguments.cases)
        trainer.perform_actual_validation(save_probabilities=False)
    found = {
        "predictions": str(predictions),
        "minutes": took,
        "steps": epochs * (iterations // epochs),
        "batch": trainer.batch_size,
        "patch": list(trainer.configuration_manager.patch_size),
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
        "seconds_per_iteration_timed": seconds,
    }
    arguments.out.write_text(json.dumps(found, indent=2) + "\n")


def predict(trainer: nnUNetTrainer, images: Path, out: Path) -> None:
    """As nnUNetv2_predict --disable_tta does, with the last weights."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(use_mirroring=False, device=trainer.device, verbose=False, allow_tqdm=False)
    trainer.set_deep_supervision_enabled(False)  # or it gives a prediction for every scale
    network = trainer.network
    plans, configuration = trainer.plans_manager, trainer.configuration_manager
    weights = [network.state_dict()]
    predictor.manual_initialization(
        network, plans, configuration, weights, trainer.dataset_json, type(trainer).__name__, None
    )
    processes = int(os.environ["nnUNet_n_proc_DA"])  # noqa: SIM112 (their spelling)
    predictor.predict_from_files(
        str(images),
        str(out),
        save_probabilities=False,
        overwrite=True,
        num_processes_preprocessing=processes,
        num_processes_segmentation_export=processes,
    )


def stop(*_: object) -> None:
    """End with the processes that augment, which a bare SIGTERM would leave behind, and wait for no pool's locks."""
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(STOPPED)


def seconds_per_iteration(arguments: argparse.Namespace) -> float:
    """Of a network that is thrown away."""
    trial = make_trainer(arguments, "trial", epochs=1, iterations=1)
    trial.on_train_start()
    trial.on_train_epoch_start()
    for _ in range(WARM_UP):
        trial.train_step(next(trial.dataloader_train))
    started = time.monotonic()
    for _ in range(TIMED):
        trial.train_step(next(trial.dataloader_train))
    return (time.monotonic() - started) / TIMED


def make_trainer(arguments: argparse.Namespace, name: str, *, epochs: int, iterations: int) -> nnUNetTrainer:
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(arguments.seed)
    folder = Path(os.environ["nnUNet_preprocessed"]) / arguments.dataset  # noqa: SIM112 (their spelling)
    plans = {**load_json(folder / f"{arguments.plans}.json"), "continue_training": False}
    device = torch.device(arguments.device)
    trainer = nnUNetTrainer(plans, "3d_fullres", arguments.fold, load_json(folder / "dataset.json"), device=device)
    trainer.num_epochs, trainer.num_iterations_per_epoch = epochs, iterations
    trainer.num_val_iterations_per_epoch = VALIDATION_ITERATIONS
    trainer.output_folder = str(Path(trainer.output_folder) / name)
    Path(trainer.output_folder).mkdir(parents=True, exist_ok=True)
    if arguments.split:
        own = json.loads(arguments.split.read_text())
        trainer.do_split = lambda: (own["train"], own["val"] or own["train"])
    if arguments.keep_sides:
        keep_sides(trainer)
    trainer.initialize()
    return trainer


def keep_sides(trainer: nnUNetTrainer) -> None:
    """Leave the left-right axis out of the mirroring; nnU-Net has trainers that do so, for fixed axes."""
    name = "configure_rotation_dummyDA_mirroring_and_inital_patch_size"
    planned = getattr(trainer, name)

    def without_left_right() -> tuple:
        *others, axes = planned()
        return *others, tuple(a for a in axes if trainer.plans_manager.transpose_forward[a] != LEFT_RIGHT)

    setattr(trainer, name, without_left_right)


if __name__ == "__main__":
    main()
