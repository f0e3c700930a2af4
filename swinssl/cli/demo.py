"""swinssl_demo: the whole way on data made by code, in a few minutes and without a network."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from swinssl.cli.command import command, run_typed
from swinssl.terminal import print

DATASET = "Dataset999_Phantom"
CASES, TEST_CASES = 12, 4
# Minutes of pretraining for one of training. In so short a run the teacher hardly leaves its start, hence the
# encoder of the student.
PRETRAINING_SHARE = 0.25

Out = Annotated[Path, typer.Option("--out", help="Folder for the demo's data and results.")]
Minutes = Annotated[
    float,
    typer.Option(
        "--minutes",
        min=0.2,
        help="Minutes of training with labels; without labels a quarter of that more. The rest takes about one.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the phantoms and of training.")]


def demo(out: Out = Path("swinssl_demo"), minutes: Minutes = 2.0, seed: Seed = 0) -> None:
    """Check, plan, preprocess, pretrain, train, predict and evaluate phantom CTs, each command as you would type it.

    A second run goes on where the first was stopped.
    """
    from swinssl.cli.check import check
    from swinssl.cli.evaluate import evaluate
    from swinssl.cli.plan_and_preprocess import plan_and_preprocess
    from swinssl.cli.predict import predict
    from swinssl.cli.pretrain import pretrain_command
    from swinssl.cli.train import train
    from swinssl.dataset.phantom import write_phantom_dataset
    from swinssl.progress import duration
    from swinssl.ssl.methods import METHODS

    started = time.monotonic()
    raw = out / "raw" / DATASET
    model = out / "results" / DATASET / "demo"
    predictions, pretraining = out / "predictions", out / "results" / "pretraining" / "demo"
    encoder = pretraining / "encoder.safetensors"
    print(f"Making {CASES} phantom CTs for training and {TEST_CASES} for testing in {raw}")
    write_phantom_dataset(raw, cases=CASES, test_cases=TEST_CASES, seed=seed)
    common = ["999", "--root", str(out)]
    device, seeded = ["--device", "cpu"], ["--seed", str(seed)]
    unlabelled, limit = (["--max-minutes", f"{share * minutes:g}"] for share in (PRETRAINING_SHARE, 1.0))
    images, labels = str(raw / "imagesTs"), str(raw / "labelsTs")
    steps: list[tuple[Callable[..., None], list[str]]] = [
        (check, common),
        (plan_and_preprocess, [*common, *limit, *device]),
        (
            pretrain_command(METHODS["smit"]),
            [*common, "--out", str(pretraining), "--keep", "student", *unlabelled, *device, *seeded],
        ),
        (
            train,
            [*common, "--fold", "0", "--name", "demo", "--init", str(encoder), *limit, *device, *seeded],
        ),
        (predict, ["-i", images, "-o", str(predictions), "-m", str(model), *device]),
        (evaluate, ["--predictions", str(predictions), "--references", labels, "--images", images]),
    ]
    for function, arguments in steps:
        print()
        print(f"$ swinssl_{function.__name__} {shlex.join(arguments)}", flush=True)
        run_typed(function, arguments)
    print()
    print(f"The demo took {duration(time.monotonic() - started)}. Look at")
    print(f"  {pretraining / 'learnt.png'}   what the encoder made of images without labels")
    print(f"  {model / 'fold_0' / 'progress.png'}   how training went")
    print(f"  {predictions / 'overlays.png'}   the worst and the median test case")
    print("next: put your own data set into a raw folder (docs/quick-start.md) and type")
    print("  swinssl_plan_and_preprocess DATASET --explain")


main = command(demo)
