"""The parameters that several commands share, described once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Dataset = Annotated[
    str,
    typer.Argument(
        help="Raw data set: its folder, its id (101), its name, or a list of volumes (scans.txt: a path a line).",
        metavar="DATASET",
    ),
]
Root = Annotated[
    Path | None,
    typer.Option(
        "--root", help="Folder with raw/, preprocessed/ and results/. Default: $SWINSSL_ROOT or ./swinssl_data."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the report as JSON on stdout.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")]
Device = Annotated[str, typer.Option("--device", help="auto (cuda, else mps, else cpu), cpu, cuda, cuda:1 or mps.")]
