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
# {command} --fold {folds}
# One job a fold. Submit with: sbatch THIS_FILE. A job that reaches its time limit saves, stops and is queued again.
{together}#SBATCH --job-name={name}
{array}#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task={cpus}
{gpus}{time}#SBATCH --output={log}
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:TERM@{seconds}

cd {folder} || exit 2
{exports}{command} --fold {fold} &
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
    others = _without_folds(arguments)
    numbered = folds != ("all",)
    command = shlex.join([_program(), *others])
    together = f"# Afterwards, all folds together: {command} --fold {','.join(folds)}\n" if len(folds) > 1 else ""
    name = "swinssl_" + "".join(c if c.isalnum() else "_" for c in Path(dataset).name)
    root = os.environ.get("SWINSSL_ROOT")
    return SCRIPT.format(
        command=command,
        folds=",".join(folds),
        fold='"$SLURM_ARRAY_TASK_ID"' if numbered else "all",
        together=together,
        name=name,
        array=f"#SBATCH --array={','.join(str(int(fold)) for fold in folds)}\n" if numbered else "",
        cpus=CPUS * gpus,
        gpus="" if on_cpu else f"#SBATCH --gpus-per-node={gpus}\n",
        time="" if minutes is None else f"#SBATCH --time={round(minutes) + MINUTES_BESIDE}\n",
        log=f"{name}_fold_{'%a' if numbered else 'all'}.log",
        seconds=SECONDS_TO_SAVE,
        folder=shlex.quote(str(Path.cwd())),
        exports=f"export SWINSSL_ROOT={shlex.quote(root)}\n" if root else "",
    )


def _program() -> str:
    """The command of the environment that this is, which a job may not have on its path."""
    beside = Path(sys.executable).with_name("swinssl_train")
    return str(beside) if beside.exists() else shutil.which("swinssl_train") or "swinssl_train"


def _without_folds(arguments: Sequence[str]) -> list[str]:
    kept: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--fold":
            next(words, None)
        elif word != "--slurm" and not word.startswith("--fold="):
            kept.append(word)
    return kept
