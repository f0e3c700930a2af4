"""All nine pretraining methods on one data set, one after the other: curves, pictures and speed on one page.

    swinssl_plan 100 --preset small --spacing 3 3 3 --patch 64 64 64 --intensity window:-500:500
    swinssl_preprocess 100        # and the same for 101, which the frozen probe measures on
    python benchmarks/studies/pretraining_methods.py 100 --probe 101 --minutes 3 --out pretraining_methods

Each is an ordinary run of its command with its defaults; what follows `--` is handed on to every one. What is done is
not done again, and a run that was stopped goes on. `methods.csv` and `methods.html`, which needs no other file, are
written anew after each.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pretraining_page import Row, row_of, write_page, write_table

from swinssl.experiments.benchmark.commands import run_script, run_swinssl
from swinssl.ssl.methods.registry import METHODS, load_method


def main() -> int:
    """What the command line asks for; 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="preprocessed data set")
    parser.add_argument("--root", type=Path, help="as of the commands")
    parser.add_argument("--probe", help="preprocessed data set with labels, for the frozen probe")
    parser.add_argument("--minutes", type=float, default=3.0, help="of each method")
    parser.add_argument("--mask-cell", help="of the methods that mask; as of their commands")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--out", type=Path, default=Path("pretraining_methods"))
    # By hand: argparse gives what follows `--` to positional arguments that it has long filled.
    typed = sys.argv[1:]
    end = typed.index("--") if "--" in typed else len(typed)
    arguments = parser.parse_args(typed[:end])
    common = [arguments.dataset, "--max-minutes", f"{arguments.minutes:g}", *typed[end + 1 :]]
    for name in ("root", "probe"):
        if getattr(arguments, name) is not None:
            common += [f"--{name}", str(getattr(arguments, name))]
    rows: list[Row] = []
    for method in arguments.methods:
        folder = arguments.out / method
        own = ["--out", str(folder)]
        if arguments.mask_cell and "mask_cell" in load_method(method).Options.model_fields:
            own += ["--mask-cell", arguments.mask_cell]
        run_swinssl(f"pretrain_{method}", *common, *own)
        rows.append(row_of(folder))
        write_table(rows, arguments.out / "methods.csv")
        write_page(rows, arguments.out / "methods.html")
    print(f"{arguments.out / 'methods.html'} and {arguments.out / 'methods.csv'}")
    return 0


if __name__ == "__main__":
    run_script(main)
