"""Every stage of swinssl beside its peers, one after another, and the table of docs/performance.md.

    python3 -m venv peers && peers/bin/pip install -e . -c constraints.txt -r benchmarks/requirements.txt
    peers/bin/python benchmarks/speed/all.py --quick      # all stages, small inputs: under ten minutes on two cores
    peers/bin/python benchmarks/speed/all.py              # the figures of docs/performance.md

Figures are kept in benchmarks/speed/results, a file a stage, with machine and versions; those of --quick only where
--results says.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from swinssl.core import files
from swinssl.experiments.benchmark.commands import run_script

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
PAGE = HERE.parents[1] / "docs" / "performance.md"
STAGES = (
    "preprocess_case",
    "resampling",
    "store",
    "augmentation",
    "sliding_window",
    "export",
    "end_to_end",
    "metrics",
    "volumes",
    "cka",
)
BEGIN, END = "<!-- written by benchmarks/speed/all.py -->", "<!-- end -->"
HEAD = ("", "ours, CPU s", "beside", "faster (spread)", "by the clock", "our memory", "share of theirs", "goal")


def main() -> int:
    """Run the stages that are asked for; 2 where one fails or its outputs differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small inputs, few repetitions")
    parser.add_argument("--repeat", type=int, help="repetitions, instead of each stage's own")
    parser.add_argument("--only", nargs="+", choices=STAGES, default=STAGES, metavar="STAGE", help=", ".join(STAGES))
    parser.add_argument("--results", type=Path, help="for the figures; default: benchmarks/speed/results, quick: none")
    parser.add_argument("--report-only", action="store_true", help="write the page of what is there")
    given = parser.parse_args()
    if given.report_only:
        write_page(given.results or RESULTS)
        return 0
    if given.quick and given.results is None:
        with tempfile.TemporaryDirectory(prefix="speed-") as temporary:
            return run(given.only, Path(temporary), quick=True, repeat=given.repeat)
    code = run(given.only, given.results or RESULTS, quick=given.quick, repeat=given.repeat)
    if given.results is None:
        write_page(RESULTS)
    return code


def run(stages: Sequence[str], results: Path, *, quick: bool, repeat: int | None) -> int:
    """Each stage in a process of its own; returns 2 where one failed."""
    failed = []
    started = time.monotonic()
    for stage in stages:
        print(f"\n=== {stage}", flush=True)
        script = HERE / f"{stage}.py"
        command = [sys.executable, script, "--out", results / f"{stage}.json", *(["--quick"] if quick else [])]
        command += ["--repeat", repeat] if repeat else []
        if subprocess.run(list(map(str, command)), check=False).returncode:
            failed.append(stage)
    print(f"\n{len(stages)} stages in {(time.monotonic() - started) / 60:.1f} minutes")
    missed = [name for name, table in tables(results, stages) for goal in table["goals"] if not goal["reached"]]
    if missed:
        print(f"goals missed: {', '.join(dict.fromkeys(missed))}")
    if failed:
        print(f"failed: {', '.join(failed)}; see above", file=sys.stderr)
    return 2 if failed else 0


def tables(results: Path, stages: Sequence[str] = STAGES) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, table) of what is there, in the order of the stages."""
    for stage in stages:
        path = results / f"{stage}.json"
        if path.is_file():
            yield from json.loads(path.read_text(encoding="utf-8"))["tables"].items()


def write_page(results: Path) -> None:
    """Put the tables into docs/performance.md, between the two marks that are there."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    files.write_text(PAGE, f"{before}{BEGIN}\n{page_of(list(tables(results)))}\n{END}{after}")
    print(f"page: {PAGE}")


def page_of(found: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """The tables as Markdown."""
    lines = [_line(HEAD), _line(["---"] * len(HEAD))]
    for name, table in found:
        ours, *others = table["ways"].values()
        for peer in list(table["ways"])[1:]:
            own = table["ways"][peer]
            low, high = own["fastest_and_slowest"]
            goal = next((goal for goal in table["goals"] if goal["peer"] == peer), None)
            lines.append(
                _line(
                    [
                        name,
                        f"{ours['cpu']:.3g}",
                        peer,
                        f"{own['faster']:.3g}x ({low:.3g} - {high:.3g})",
                        f"{own['faster_by_the_clock']:.3g}x",
                        f"{ours['memory']:.0f} MiB",
                        f"{own['memory_share']:.2f}",
                        _goal(goal),
                    ]
                )
            )
        if not others:
            cells = [name, f"{ours['cpu']:.3g}", "-", "-", "-", f"{ours['memory']:.0f} MiB", "-", "-"]
            lines.append(_line(cells))
    lines += ["", "What was done, and what the outputs came to:", ""]
    for name, table in found:
        wrote = "; ".join(f"{way} wrote {own['wrote']}" for way, own in table["ways"].items() if own["wrote"])
        facts = "; ".join(f"{key}: {value}" for key, value in table["found"].items())
        text = ". ".join(part for part in (table["what"], facts, wrote) if part)
        lines.append(f"- {name}: {text}. {table['repetitions']} repetitions.")
    machines = {json.dumps(table["machine"]["versions"]): table["machine"] for _, table in found}
    for machine in machines.values():
        versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        lines += ["", f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}; {versions}."]
    return "\n".join(lines)


def _goal(goal: dict[str, Any] | None) -> str:
    if goal is None:
        return "-"
    memory = "" if goal["memory"] is None else f", {goal['memory']:g} of its memory"
    return f"{goal['cpu']:g}x{memory}: {'reached' if goal['reached'] else '**missed**'}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    run_script(main)
