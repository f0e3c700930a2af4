"""swinssl_pretrain_<method>: one command for each pretext task, all from one function."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swinssl.cli.command import command
from swinssl.cli.json_report import print_json
from swinssl.cli.parameters import DryRun, Json, Root
from swinssl.cli.ranks import Gpus, first_attempt, start_ranks, warn_of_raw_changes
from swinssl.core.terminal import print, print_lines
from swinssl.core.text import dimensions
from swinssl.core.workspace import typed_dataset
from swinssl.ssl.config import config_of
from swinssl.ssl.methods.registry import METHODS, load_method

if TYPE_CHECKING:
    from swinssl.api.training import PretrainingEstimate
    from swinssl.ssl.pretraining import Pretrained

Datasets = Annotated[
    list[str],
    typer.Argument(
        help="Preprocessed data sets: folder, id (100), name or list of volumes (scans.txt) each.", metavar="DATASET..."
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="Folder of the run. Default: <root>/results/pretraining/<method>__<data set>."),
]
Restart = Annotated[
    bool, typer.Option("--restart", help="Put an earlier run in this folder aside and begin anew instead of going on.")
]

PLACES = """The encoder goes to encoder.safetensors in the run's folder; swinssl_plan and swinssl_train --init take it.

Ctrl-C, SIGTERM or a file named STOP in that folder end the run after the step in progress; rerun the command to
resume, to the same weights as if it had not been stopped.
"""


def pretrain_command(name: str) -> Callable[..., None]:
    """The function behind the command of the method `name`.

    Raises:
        UserError: no method has this name.
    """
    method = load_method(name)

    def pretrain(
        datasets: Datasets,
        config: Any,
        options: Any,
        out: Out = None,
        restart: Restart = False,
        gpus: Gpus = 1,
        root: Root = None,
        json: Json = False,
        dry_run: DryRun = False,
    ) -> None:
        if not dry_run and start_ranks(f"swinssl.cli.pretrain:{name}", gpus):
            return
        warn_of_raw_changes([*datasets, config.probe] if config.probe else datasets, root=root)
        from swinssl.api import training

        if dry_run:
            expected = training.estimate_pretraining(
                name, datasets, config=config, options=options, out=out, restart=restart, root=root
            )
            _print_estimate(expected, json=json)
            return
        anew = restart and first_attempt()
        done = training.pretrain(name, datasets, config=config, options=options, out=out, restart=anew, root=root)
        if done.first_rank:
            _report(done, root=root, json=json)

    pretrain.__doc__, pretrain.__name__ = f"{method.summary}\n\n{PLACES}", f"pretrain_{name}"
    pretrain.__annotations__ |= {"config": config_of(method), "options": method.Options}
    return pretrain


def _print_estimate(expected: PretrainingEstimate, *, json: bool) -> None:
    folder, plan = expected.folder, expected.plan
    if json:
        said = {"folder": folder, "volumes": [volume.name for volume in plan.sources.volumes], "preset": plan.preset}
        said |= {"patch_size": plan.images.patch_size, "spacing": plan.images.spacing, "batch_size": plan.batch_size}
        print_json({**said, "steps": plan.length.expected, "max_minutes": plan.length.minutes})
        return
    print(f"  volumes: {len(plan.sources.volumes)} of {', '.join(p.dataset_name for p in plan.sources.plans)}")
    print(f"  encoder: {plan.preset or 'as in the file'}, crops of {dimensions(plan.images.patch_size)} voxels")
    print(f"  grid: {dimensions(plan.images.spacing, 'g')} mm; batch {plan.batch_size}")
    minutes = plan.length.minutes
    limit = f", at most {minutes:g} minutes" if minutes is not None else ""
    length = f"{plan.length.expected} steps" if plan.length.steps is not None else "as many steps as fit"
    print(f"nothing written (would train {length}{limit} into {folder})")


def _report(done: Pretrained, *, root: Path | None, json: bool) -> None:
    if json:
        print_lines((done.folder / "run.json").read_text(encoding="utf-8"))
        return
    run = done.run
    speed = f", {run.images_per_second:g} samples a second" if run.images_per_second else ""
    print(f"{run.method}: {run.steps} steps in {run.seconds:g} s{speed}")
    if run.best_score is not None:
        print(f"frozen probe: mean Dice {run.best_score:.3f} at best, in epoch {run.best_epoch}: {done.best}")
    if run.unreadable:
        print(f"left out: {len(run.unreadable)} volumes that cannot be read; run.json names them")
    print(f"encoder: {done.encoder}")
    print(f"progress: {done.folder / 'progress.png'}; what it learnt: {done.folder / 'learnt.png'}")
    init = f"--init {shlex.quote(str(done.encoder))}"
    print(f"next: swinssl_plan_and_preprocess {typed_dataset('TARGET', root)} {init}")
    if run.shortfall is not None:
        print(run.shortfall)


@functools.cache
def _entry_point(name: str) -> Callable[[], None]:
    return command(pretrain_command(name))


def __getattr__(name: str) -> Callable[[], None]:
    """The entry point of a method's command, so that its script is `swinssl.cli.pretrain:<method>`."""
    if name not in METHODS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _entry_point(name)
