"""`--slurm`: a command as the script of a Slurm array, one job a fold, each going on where it was stopped."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

Slurm = Annotated[
    bool,
    typer.Option("--slurm", help="Print a script for sbatch that trains these folds, one job each; run nothing."),
]

# Of each process: what computes, and what reads ahead.
CPUS = 4
# Before a job's end, for the step in progress and the checkpoint.
SECONDS_TO_SAVE = 120
# What --max-minutes does not count: to start, to measure, to write.
MINUTES_BESIDE = 20

SCRIPT = """#!/bin/bash
# {about}
# Submit with: sbatch THIS_FILE. A job that reaches its time limit saves, stops and is queued again.
#SBATCH --job-name={name}
{array}#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task={cpus}
{gpus}{time}#SBATCH --output={log}
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:TERM@{seconds}

cd {folder} || exit 2
{exports}{command} &
training=$!
# Slurm tells this script alone, which passes it on: the command saves and stops.
asked=0
trap 'asked=$((asked + 1)); kill -TERM "$training" 2>/dev/null' TERM INT
while :; do
    before=$asked
    wait "$training"
    code=$?
    # A signal ends the waiting, not the command.
    [ "$asked" = "$before" ] && break
done
if [ "$asked" -gt 0 ] && [ "$code" -eq 130 ] && command -v scontrol >/dev/null; then
    scontrol requeue "$SLURM_JOB_ID" && exit 0
fi
exit "$code"
"""


def array_script(
    dataset: str, folds: Sequence[str], arguments: Sequence[str], *, gpus: int, on_cpu: bool, minutes: float | None
) -> str:
    """The script that trains `folds` with the other `arguments` as they were typed, one job a fold.

    Args:
        gpus: processes of each job.
        on_cpu: they need no GPU.
        minutes: longest time of a fold's run.
    """
    command = shlex.join([_program("swinssl_train"), *_without(arguments, "--slurm", valued=["--fold"])])
    numbered = folds != ("all",)
    about = f"One job a fold: {command} --fold {','.join(folds)}"
    if len(folds) > 1:
        about += f"\n# Afterwards, all folds together: {command} --fold {','.join(folds)}"
    name = "swinssl_" + "".join(c if c.isalnum() else "_" for c in Path(dataset).name)
    return _script(
        command=command + (' --fold "$SLURM_ARRAY_TASK_ID"' if numbered else " --fold all"),
        about=about,
        name=name,
        array=",".join(str(int(fold)) for fold in folds) if numbered else None,
        gpus=gpus,
        on_cpu=on_cpu,
        minutes=minutes,
        log=f"{name}_fold_{'%a' if numbered else 'all'}.log",
    )


def shared_work_script(name: str, jobs: int, arguments: Sequence[str], *, program: str, on_cpu: bool) -> str:
    """The script of several jobs that run one command, which takes what no other of them has in work.

    Args:
        name: of the work.
        arguments: of the command as they were typed, `--slurm N` among them.
    """
    command = shlex.join([_program(program), *_without(arguments, valued=["--slurm"])])
    about = f"{jobs} jobs that share the work of: {command}"
    label, array = f"swinssl_{name}", f"1-{jobs}"
    log = f"{label}_%a.log"
    return _script(command, about, label, array, gpus=1, on_cpu=on_cpu, minutes=None, log=log)


def _script(
    command: str, about: str, name: str, array: str | None, *, gpus: int, on_cpu: bool, minutes: float | None, log: str
) -> str:
    root = os.environ.get("SWINSSL_ROOT")
    return SCRIPT.format(
        about=about,
        name=name,
        array="" if array is None else f"#SBATCH --array={array}\n",
        cpus=CPUS * gpus,
        gpus="" if on_cpu else f"#SBATCH --gpus-per-node={gpus}\n",
        time="" if minutes is None else f"#SBATCH --time={round(minutes) + MINUTES_BESIDE}\n",
        log=log,
        seconds=SECONDS_TO_SAVE,
        folder=shlex.quote(str(Path.cwd())),
        exports=f"export SWINSSL_ROOT={shlex.quote(root)}\n" if root else "",
        command=command,
    )


def _program(name: str) -> str:
    """The command of the environment that this is, which a job may not have on its path."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name) or name


def _without(arguments: Sequence[str], *flags: str, valued: Sequence[str] = ()) -> list[str]:
    """The arguments without some flags, and without options that have a value."""
    kept: list[str] = []
    words = iter(arguments)
    for word in words:
        if word in valued:
            next(words, None)
        elif word not in flags and word.partition("=")[0] not in valued:
            kept.append(word)
    return kept
