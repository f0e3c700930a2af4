"""swinssl_convert: data sets of other forms as raw data sets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swinssl.cli.command import commands
from swinssl.cli.json_report import print_json
from swinssl.cli.parameters import DryRun, Json, Root
from swinssl.core.errors import UserError
from swinssl.core.terminal import print
from swinssl.core.text import counted
from swinssl.core.workspace import Workspace, safe_name, typed_dataset

if TYPE_CHECKING:
    from swinssl.dataset.conversion.raw_writer import Conversion

Source = Annotated[Path, typer.Argument(help="The task's folder, such as Task01_BrainTumour.", metavar="FOLDER")]
Target = Annotated[
    str | None,
    typer.Option(
        "--dataset", help="ID_Name of the raw data set, such as 1_BrainTumour. Default: the task's.", metavar="ID_Name"
    ),
]
NAME = re.compile(r"(?:Dataset)?(\d{1,3})_(.+)")
TASK = re.compile(r"Task(\d{1,3})_(.+)")


def msd(folder: Source, dataset: Target = None, root: Root = None, json: Json = False, dry_run: DryRun = False) -> None:
    """Convert a task of the Medical Segmentation Decathlon; 4D images become a file per channel.

    Voxels stay as they are stored. The source is only read. Rerun the command to resume.
    """
    from swinssl.dataset.conversion.msd import read_msd

    name = _target_name(folder, dataset)
    _convert(read_msd(folder), name, Workspace.locate(root), root=root, json=json, dry_run=dry_run)


def _target_name(folder: Path, dataset: str | None) -> str:
    """The raw data set's folder name.

    Raises:
        UserError: it has no number, or cannot be a file name.
    """
    match = NAME.fullmatch(dataset) if dataset is not None else TASK.fullmatch(folder.resolve().name)
    if match is None:
        wrong = f"--dataset {dataset}: " if dataset is not None else f"{folder}: is not named as a task is. "
        raise UserError(f"{wrong}Give --dataset a number and a name, such as 1_BrainTumour.")
    return safe_name(f"Dataset{int(match[1]):03d}_{match[2]}", what="--dataset")


def _convert(
    conversion: Conversion, name: str, workspace: Workspace, *, root: Path | None, json: bool, dry_run: bool
) -> None:
    target = workspace.root / "raw" / name
    _refuse_taken(name, workspace)
    conversion.check(target)
    done, cases = len(conversion.done(target)), len(conversion.cases)
    if not dry_run:
        conversion.write(target)
    if json:
        print_json({"folder": target, "cases": cases, "converted": 0 if dry_run else cases - done, "before": done})
        return
    channels = f"{counted(conversion.channels, 'channel')}"
    before = f", {done} done before" if done else ""
    if dry_run:
        print(f"nothing written (would convert {cases - done} of {cases} cases of {channels} into {target}{before})")
        return
    print(f"{cases - done} cases of {channels} converted{before}; raw data set: {target}")
    print(f"next: swinssl_check {typed_dataset(name, root)}")


def _refuse_taken(name: str, workspace: Workspace) -> None:
    """Refuse a number that another raw data set has, since both would answer to it."""
    number = name.split("_")[0]
    for parent in workspace.raw_roots:
        for other in sorted(parent.glob(f"{number}_*")):
            if other.name != name:
                raise UserError(f"--dataset {name}: {other} has this number. Give another one.")


main = commands("Data sets of other forms as raw data sets in nnU-Net v2's layout.", msd=msd)
