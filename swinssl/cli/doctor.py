"""swinssl_doctor: what this machine and installation are, in a block for a report, and what to fix.

The one command on argparse: it has to run where typer, pydantic or rich are what is broken.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from swinssl.core.machine import limit_threads
from swinssl.core.provenance import __version__
from swinssl.core.terminal import print_lines
from swinssl.core.workspace import Workspace

if TYPE_CHECKING:
    from swinssl.diagnosis.diagnosis import Diagnosis

WIDTH = 100
EXIT_USER_ERROR = 2


def main() -> None:
    """Print the diagnosis; exit 2 where swinssl cannot work, else 0."""
    parser = argparse.ArgumentParser(
        prog="swinssl_doctor",
        description="Print environment, devices, versions and disk in a block for a report, and what to fix. "
        "Neither your name nor the machine's is in it. Exits 2 where swinssl cannot work.",
    )
    parser.add_argument("--json", action="store_true", help="Print the report as JSON on stdout.")
    parser.add_argument(
        "--root",
        type=Path,
        help="Folder with raw/, preprocessed/ and results/. Default: $SWINSSL_ROOT or ./swinssl_data.",
    )
    parser.add_argument(
        "--version", action="version", version=f"swinssl {__version__}", help="Print the version and exit."
    )
    arguments = parser.parse_args()
    limit_threads()  # as the other commands do
    from swinssl.diagnosis.diagnosis import diagnose

    found = diagnose(Workspace.locate(arguments.root).root)
    print_lines(_as_json(found) if arguments.json else _as_block(found))
    broken = any(advice.severity == "error" for advice in found.advice)
    raise SystemExit(EXIT_USER_ERROR if broken else 0)


def _as_json(found: Diagnosis) -> str:
    return json.dumps({"facts": found.facts, "advice": [vars(advice) for advice in found.advice]}, indent=2)


def _as_block(found: Diagnosis) -> str:
    """The sections as a block that a report shows as it is, then the advice."""
    from swinssl.diagnosis.facts import as_text

    sections = [as_text(name, section) for name, section in found.facts.items() if section]
    wrapped = textwrap.TextWrapper(WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    # A remedy begins a line of its own, so that a command in it is not broken.
    texts = [text for item in found.advice for text in (f"{item.severity}: {item.message}.", f"    {item.remedy}")]
    return "\n".join(["```", *map(wrapped.fill, sections), "```", *map(wrapped.fill, texts or ["no problem found"])])


if __name__ == "__main__":
    main()
