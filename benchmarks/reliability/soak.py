"""Does a long run grow? One pretraining command, watched from outside: memory, open files and threads by the minute.

    python benchmarks/reliability/soak.py --minutes 120 --out soak -- \\
        smit 100 --preset small --patch 32 32 32 --batch-size 16

What follows `--` is a method and the arguments of its command; its folder is OUT/run. `OUT/soak.csv` is written as the
run goes, `OUT/soak.json` at its end: medians of the first ten minutes after a warm-up of five, and of the last ten.
Stopped in between, the same command goes on, and the watch with it.
"""

from __future__ import annotations

import argparse
import csv
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import psutil

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.experiments.benchmark.commands import run_script

WARM_UP, WINDOW = 5, 10
COLUMNS = ("minute", "resident_mib", "open_files", "threads", "children")


def main() -> int:
    """What the command line asks for; 0, or the exit code of the run where it failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=120.0, help="of the run; default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("soak"))
    typed = sys.argv[1:]
    end = typed.index("--") if "--" in typed else len(typed)
    given, command = parser.parse_args(typed[:end]), typed[end + 1 :]
    if not command:
        raise UserError("Nothing to run. Give `-- METHOD DATASET …` at the end.")
    method, *arguments = command
    run = [Path(sys.executable).parent / f"swinssl_pretrain_{method}", *arguments]
    run += ["--max-minutes", f"{given.minutes:g}", "--out", given.out / "run"]
    given.out.mkdir(parents=True, exist_ok=True)
    table = given.out / "soak.csv"
    before = _rows(table)
    code = watch(list(map(str, run)), table, first_minute=len(before))
    if code == 0:
        seen = summary(_rows(table))
        files.write_json(given.out / "soak.json", {"command": [method, *arguments], "minutes": given.minutes} | seen)
        for name, (start, finish) in seen.items():
            print(f"{name:14}{start:10.1f} at the start{finish:10.1f} at the end")
    return code


def watch(command: list[str], table: Path, *, first_minute: int = 0) -> int:
    """Run it, and add a row a minute to the table; its exit code. SIGTERM and Ctrl-C are handed on to it."""
    process = subprocess.Popen(command)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: process.terminate())
    seen, minute = psutil.Process(process.pid), first_minute
    with table.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        if first_minute == 0:
            writer.writerow(COLUMNS)
        next_look = time.monotonic()
        while process.poll() is None:
            if time.monotonic() >= next_look:
                next_look += 60
                try:
                    writer.writerow([minute, *look(seen)])
                except psutil.Error:  # it has just ended
                    break
                stream.flush()
                minute += 1
            time.sleep(0.5)
    return process.wait()


def look(process: psutil.Process) -> tuple[float, int, int, int]:
    """Resident MiB, open file descriptors, threads, children."""
    with process.oneshot():
        resident = process.memory_info().rss / 2**20
        return round(resident, 1), process.num_fds(), process.num_threads(), len(process.children(recursive=True))


def summary(rows: list[dict[str, float]]) -> dict[str, tuple[float, float]]:
    """By column, the medians of the first and of the last minutes.

    Raises:
        UserError: too short to tell.
    """
    if len(rows) < WARM_UP + 2 * WINDOW:
        raise UserError(f"{len(rows)} minutes seen; growth shows after {WARM_UP + 2 * WINDOW} and more. Run it longer.")
    first, last = rows[WARM_UP : WARM_UP + WINDOW], rows[-WINDOW:]
    return {name: (median(r[name] for r in first), median(r[name] for r in last)) for name in COLUMNS[1:]}


def _rows(table: Path) -> list[dict[str, float]]:
    if not table.is_file():
        return []
    with table.open(newline="", encoding="utf-8") as stream:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(stream)]


if __name__ == "__main__":
    run_script(main)
