"""Does pretraining help where five cases are labelled? Inits x seeds, each trained, and judged on the same test cases.

    python benchmarks/transfer.py scratch smit=SMIT.safetensors simmim=SIMMIM.safetensors zeroed resenc nnunet \\
        --raw RAW/Dataset101_HeadNeckOrgansCT --plan-for SMIT.safetensors --steps 3000 --peer-python peers/bin/python

Inits: `scratch`; NAME=ENCODER, any number (a file, or a name that comes with swinssl); `zeroed`, whose encoder gives
nothing but zeros (is the transformer used at all?); `averaged=ENCODER`, as many models as training cases, each trained
on all but one of them and validated on that one, averaged; `resenc`, nnU-Net's residual CNN in our engine; `nnunet`,
`nnunet_resencm` and `nnunet_small`, nnU-Net itself, in an environment of its own, on the same cases for the minutes
that scratch took. The small one, for machines where the others make a handful of steps, is planned by nnU-Net too, but
on our grid and for a GPU of 0.3 GB.

The test cases are the same for all; each seed draws its own training and validation cases from the others
(fold = seed). Ours all have one plan and one number of steps; the best checkpoint is chosen on the validation cases.
nnU-Net predicts with its last weights, as it always does, and mirrors left and right only where ours does. No test-time
augmentation.

A cell that is done is in --results (a row a test case) and is not run again, whatever becomes of --work; one that was
stopped goes on where it was. The plan and the settings are kept there too: other ones are refused. nnU-Net's minutes
mean something only on the machine that trained from scratch, doing nothing else.

The 21 patients of Dataset202_SarcomaTumourMR: --val 0 --test 16.

The encoders of the table in --results: smit=tiny_smit_headneck_ct simmim=benchmarks/encoders/simmim/encoder.safetensors
rotation=benchmarks/encoders/rotation/encoder.safetensors, with --steps 1500 --plan-for tiny_smit_headneck_ct
--plan-options "--patch 32 32 64 --batch-size 2".
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from commands import leave_after
from few_labels import SEEDS, TEST, TRAIN, VALIDATION, divide
from transfer_cells import run_cell, scratch_minutes
from transfer_rows import add_rows, is_done, read_rows
from transfer_study import RESENC, SCRATCH, ZEROED, Init, Study, prepare
from transfer_table import make_table

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.core.workspace import safe_name
from swinssl.dataset.raw_dataset import RawDataset
from swinssl.experiments.peers.nnunet_side import PEER_PLANS
from swinssl.networks.checkpoints.shipped_encoders import encoder_path
from swinssl.planning.target_spacing import show
from swinssl.preprocessing.plans import Plans

RESULTS = Path(__file__).with_name("results")
# What was known of a data set before anything ran on it.
KNOWN = {
    "202": "Five patients train, the 16 others test, and none is left to choose a checkpoint: the last weights count. "
    "With so few, differences under 0.08 cannot be told apart.",
}


def main() -> int:
    """What the command line asks for; 0, or 2 where a cell failed."""
    arguments = _parse()
    label = f"transfer_{arguments.raw.name.removeprefix('Dataset').partition('_')[0]}"
    if arguments.report_only:
        report(arguments.results, label, arguments.raw.name)
        return 0
    cases = [case.id for case in RawDataset.load(arguments.raw).cases]
    study = Study(
        raw=arguments.raw.resolve(),
        work=(arguments.work or Path(label)).resolve(),
        results=arguments.results.resolve(),
        label=label,
        cases=divide(cases, train=arguments.train, validation=arguments.val, test=arguments.test),
        steps=arguments.steps,
        device=arguments.device,
        options=_options(arguments.options),
        peer_python=arguments.peer_python and arguments.peer_python.absolute(),
    )
    every = [parse_init(text) for text in arguments.inits]
    inits = [init for init in every if not arguments.only or init.name in arguments.only]
    _check(inits, arguments.seeds)
    plan_for = arguments.plan_for or next((init.encoder for init in every if init.encoder is not None), None)
    todo = list(cells(study, inits, arguments.seeds))
    for init, seed, done in todo:
        waits = init.is_peer and scratch_minutes(study, seed) is None
        print(f"{init.name:20} seed {seed}  {'done' if done else f'after {SCRATCH}' if waits else 'to do'}")
    todo = [(init, seed) for init, seed, done in todo if not done]
    needed = list(dict.fromkeys(init for init, _ in todo))
    for init in needed:
        if init.encoder is not None:
            encoder_path(init.encoder)  # refuses what is missing, before anything takes time
    if arguments.dry_run:
        print(f"nothing done (would run {len(todo)} cells into {study.table})")
        return 0
    failed = []
    if todo:
        prepare(study, needed, plan_for=plan_for, plan_options=shlex.split(arguments.plan_options))
    for init, seed in todo:
        print(f"\n=== {init.name}, seed {seed}", flush=True)
        try:
            add_rows(study.table, run_cell(study, init, seed))
        except (UserError, subprocess.CalledProcessError) as error:  # the other cells may do
            print(error, file=sys.stderr)
            failed.append(f"{init.name} seed {seed}")
    report(study.results, label, study.raw.name)
    if failed:
        print(f"failed: {', '.join(failed)}; see above. The same command tries them again.", file=sys.stderr)
    return 2 if failed else 0


def cells(study: Study, inits: Sequence[Init], seeds: Sequence[int]) -> Iterator[tuple[Init, int, bool]]:
    """(init, seed, done) seed by seed, so that each seed gives a whole table, peers after what gives them minutes."""
    rows = study.rows
    for seed in seeds:
        for init in sorted(inits, key=lambda init: init.is_peer):
            steps = None if init.is_peer else study.steps
            yield init, seed, is_done(rows, init.name, seed, test=study.cases.test, steps=steps)


def parse_init(text: str) -> Init:
    """The init of an argument.

    Raises:
        UserError: neither a known name nor NAME=ENCODER.
    """
    name, given, encoder = text.partition("=")
    own = (SCRATCH, ZEROED, RESENC, *PEER_PLANS)
    if not given and name in own:
        return Init(name)
    if not (given and encoder) or name in own:
        raise UserError(f"{text}: expected {', '.join(own)}, or NAME=ENCODER with another name.")
    path = Path(encoder)
    return Init(safe_name(name, what=text), path.resolve() if path.exists() else path)


def report(results: Path, label: str, dataset: str) -> None:
    """Print the table of what is done and write it beside the rows."""
    text = make_table(
        read_rows(results / f"{label}.csv"), title=f"{dataset}, few labelled cases", facts=_facts(results, label)
    )
    path = results / f"{label}.md"
    files.write_text(path, text)
    print(f"\n{text}\ntable: {path}")


def _facts(results: Path, label: str) -> list[str]:
    """What all cells share, in sentences, as far as it is kept."""
    facts = []
    settings_file, plans_file = results / f"{label}_settings.json", results / f"{label}_plans.json"
    if settings_file.is_file():
        settings = files.read_json(settings_file, what="settings", remedy="Take them from the repository again.")
        facts.append(
            f"{len(settings['test'])} test cases, the same for all; {settings['steps']} steps for all of ours."
        )
        facts += [f"Options of {name}: `{shlex.join(own)}`." for name, own in settings["options"].items() if own]
    if plans_file.is_file():
        plans = Plans.read(plans_file)
        facts.append(
            f"Plan of ours: {plans.network.preset}, {plans.network.decoder} decoder, grid {show(plans.spacing)} mm, "
            f"patch {' x '.join(map(str, plans.patch_size))} (z y x), batch {plans.training.batch_size}, learning rate "
            f"{plans.training.learning_rate:g}."
        )
    number = label.removeprefix("transfer_")
    return facts + ([KNOWN[number]] if number in KNOWN else [])


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inits", nargs="*", default=[SCRATCH], metavar="INIT", help="see above; default: scratch")
    parser.add_argument("--raw", type=Path, required=True, help="the raw data set")
    parser.add_argument("--steps", type=int, default=3000, help="of every cell of ours; default: %(default)s")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of the inits, run these now")
    parser.add_argument("--plan-for", help="encoder to plan for; default: the first that is given")
    parser.add_argument("--plan-options", default="", help='of swinssl_plan, as one text: "--max-minutes 30"')
    parser.add_argument(
        "--options",
        action="append",
        default=[],
        metavar="NAME:OPTIONS",
        help='of swinssl_train for an init, or for all: "scratch:--lr 1e-3"; may be repeated',
    )
    parser.add_argument("--train", type=int, default=TRAIN, help="training cases; default: %(default)s")
    parser.add_argument("--val", type=int, default=VALIDATION, help="validation cases; default: %(default)s")
    parser.add_argument("--test", type=int, default=TEST, help="test cases; default: %(default)s")
    parser.add_argument("--device", default="auto", help="as of swinssl_train")
    parser.add_argument("--peer-python", type=Path, help="Python of an environment with nnunetv2 (requirements.txt)")
    parser.add_argument("--work", type=Path, help="for what can be made again; default: ./transfer_<id>")
    parser.add_argument("--results", type=Path, default=RESULTS, help="for what is kept; default: benchmarks/results")
    parser.add_argument("--dry-run", action="store_true", help="list the cells, done or not")
    parser.add_argument("--report-only", action="store_true", help="make the table of what is done")
    return parser.parse_args()


def _check(inits: Sequence[Init], seeds: Sequence[int]) -> None:
    names = [init.name for init in inits]
    twice = [name for name in names if names.count(name) > 1]
    if twice or not inits:
        raise UserError(f"{twice[0]}: given twice." if twice else "--only: none of the inits that are given.")
    if wrong := [seed for seed in seeds if not 0 <= seed < SEEDS]:
        raise UserError(f"--seeds {wrong[0]}: expected 0 to {SEEDS - 1}.")


def _options(given: Sequence[str]) -> dict[str, list[str]]:
    options: dict[str, list[str]] = {}
    for text in given:
        name, colon, own = text.partition(":")
        if not colon:
            raise UserError(f'--options {text}: expected NAME:OPTIONS, such as "scratch:--lr 1e-3".')
        options[name] = [*options.get(name, []), *shlex.split(own)]
    return options


if __name__ == "__main__":
    leave_after(main)
