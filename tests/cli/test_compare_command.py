"""swinssl_compare as it is typed, on the committed benchmark and on what swinssl_evaluate leaves."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROWS = Path(__file__).resolve().parents[2] / "benchmarks" / "studies" / "organs_few_labels" / "scores.csv.gz"
FIGURES = ("differences", "scores", "critical_difference", "order_probabilities")


def metrics_of(folder, levels):
    """A metrics.csv of one structure, by case."""
    folder.mkdir(parents=True)
    lines = [f"{case},organ,1,{dice},3.5" for case, dice in levels.items()]
    (folder / "metrics.csv").write_text("\n".join(["case,structure,label,Dice,HD95_mm", *lines, ""]))
    return folder


def test_everything_is_written_and_the_numbers_come_first(typed, tmp_path):
    done = typed("compare", ROWS, "--named", "smit:scratch", "--against", "scratch", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    names = {f"{name}.{ending}" for name in FIGURES for ending in ("svg", "png")}
    tables = {"comparison.json", "comparison.csv", "comparison.md", "table.md", "table.html", "table.csv"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == tables | names
    first = done.out.splitlines()[0]
    said = r"\+0\.039 \[\+0\.0\d\d, \+0\.0\d\d\] Dice, smit minus scratch \(3 draws of training cases, 20 patients, "
    assert re.match(said, first) and "a headline needs 5 draws, so this is not shown yet" in first
    # As the benchmark's own page has it.
    these = "For these trainings: typically +0.039 [+0.026, +0.052], p 1.3e-05 (Wilcoxon), 20 pairs."
    assert first.endswith(these)
    assert (tmp_path / "out" / "comparison.md").read_text().splitlines()[2] == f"- {first}"
    svg = (tmp_path / "out" / "differences.svg").read_text()
    assert "<text" in svg and "simmim - scratch" in svg


def test_the_report_has_the_corrected_p_of_the_benchmark(typed, tmp_path):
    done = typed("compare", ROWS, "--named", "smit:scratch", "--against", "scratch", "--out", tmp_path, "--json")
    report = json.loads(done.out)
    assert report == json.loads((tmp_path / "comparison.json").read_text())
    found = {(c["scope"], c["first"]): c for c in report["settings"][""]["comparisons"]}
    holm = {name: found["all structures", name]["p_holm"] for name in ("simmim", "rotation", "resenc", "zeroed")}
    assert {name: f"{p:.2g}" for name, p in holm.items()} == {
        "simmim": "0.0014", "rotation": "0.00019", "resenc": "0.00027", "zeroed": "1.1e-05"
    }  # fmt: skip
    with (tmp_path / "comparison.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == len(found) == 7 * 6


def test_runs_of_swinssl_evaluate_are_seeds_of_a_model(typed, tmp_path):
    cases = [f"c{i}" for i in range(7)]
    for name, level in (("a0", 0.8), ("a1", 0.7), ("b0", 0.6), ("b1", 0.5)):
        metrics_of(tmp_path / name, {case: level + i / 100 for i, case in enumerate(cases)})
    given = [f"{name[0]}={tmp_path / name}" for name in ("a0", "a1", "b0", "b1")]
    done = typed("compare", *given, "--named", "a:b", "--out", tmp_path / "out")
    assert done.out.startswith(
        "+0.200 [+0.200, +0.200] Dice, a minus b (2 draws of training cases, 7 patients, two-way "
    )
    assert "typically +0.200 [+0.200, +0.200], p 0.016 (Wilcoxon), 7 pairs" in done.out
    (tmp_path / "groups.csv").write_text("case,group\nc0,p\nc1,p\nc2,p\n")
    done = typed("compare", *given, "--named", "a:b", "--patients", tmp_path, "--out", tmp_path / "out")
    assert "5 pairs" in done.out and "no p can fall below 0.062" in done.out
    assert "a headline needs 5 draws, so this is not shown yet" in done.out


def test_five_draws_show_a_difference_or_say_that_they_do_not(typed, tmp_path):
    lines = ["model,seed,case,structure,Dice"]
    for seed in range(5):
        lines += [f"{m},{seed},c{i},s,{v + i / 100}" for m, v in (("a", 0.7), ("b", 0.6)) for i in range(6)]
        lines += [f"c,{seed},c{i},s,{0.6 + (seed - 2) / 10 + i / 100}" for i in range(6)]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    done = typed("compare", tmp_path / "t.csv", "--named", "a:b", "--named", "c:b", "--out", tmp_path / "o", "--json")
    shown, not_shown = json.loads(done.out)["settings"][""]["comparisons"][:2]
    assert (shown["draws"], shown["shown"], not_shown["shown"]) == (5, True, False)
    assert not_shown["over_draws_low"] < 0 < not_shown["over_draws_high"]
    first, second, *_ = (tmp_path / "o" / "comparison.md").read_text().splitlines()[2:]
    assert "named in advance): a is better than b." in first and "named in advance): not shown." in second


def test_one_training_of_each_says_nothing_about_other_training_cases(typed, tmp_path):
    text = "model,case,structure,Dice\n" + "".join(
        f"a,c{i},s,{0.8 + i / 99}\nb,c{i},s,{0.7 + i / 90}\n" for i in range(8)
    )
    (tmp_path / "t.csv").write_text(text)
    done = typed("compare", tmp_path / "t.csv", "--named", "a:b", "--out", tmp_path / "o")
    assert (
        "for these trainings" in done.out and "One draw of training cases says nothing about other draws." in done.out
    )
    assert "note: One draw of training cases (seeds), where a headline needs 5" in done.out


def test_a_model_that_has_hardly_learnt_is_compared_with_nothing(typed, tmp_path):
    text = "model,seed,case,structure,Dice\n"
    text += "".join(f"a,{k},c{i},s,0.8\nb,{k},c{i},s,0.0{i}\n" for k in range(5) for i in range(8))
    (tmp_path / "t.csv").write_text(text)
    done = typed("compare", tmp_path / "t.csv", "--named", "a:b", "--out", tmp_path / "o")
    assert "not a comparison, since b has hardly learnt the task (mean Dice 0.035)" in done.out
    assert "is better than" not in done.out


def test_of_distances_less_is_better(typed, tmp_path):
    text = "model,case,structure,HD95_mm\n" + "".join(f"near,c{i},s,{2 + i}\nfar,c{i},s,{9 + i}\n" for i in range(8))
    (tmp_path / "t.csv").write_text(text)
    done = typed("compare", tmp_path / "t.csv", "--metric", "HD95_mm", "--named", "near:far", "--out", tmp_path / "o")
    assert "near is better than far" in done.out and "2 models: two are compared by the paired test" in done.out


def test_settings_are_compared_apart_and_their_orders_with_each_other(typed, tmp_path):
    lines = ["model,task,case,structure,Dice"]
    for task, order in (("lung", "abc"), ("liver", "acb")):
        for rank, model in enumerate(order):
            lines += [f"{model},{task},{task}{i},s,{0.8 - rank / 10 + i / 1000 * (rank + 1)}" for i in range(8)]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    done = typed("compare", tmp_path / "t.csv", "--out", tmp_path / "o", "--json")
    report = json.loads(done.out)
    assert list(report["settings"]) == ["lung", "liver"]
    (agreement,) = report["rank_agreements"]
    assert agreement["spearman_rho"] == pytest.approx(0.5)
    assert (tmp_path / "o" / "liver" / "scores.png").exists()


@pytest.mark.slow
def test_convergence_of_logs_is_said(typed, tmp_path):
    (tmp_path / "run").mkdir()
    entries = [{"step": s, "loss": 1, "validation_score": v} for s, v in ((100, 0.2), (200, 0.58), (300, 0.6))]
    (tmp_path / "run" / "log.jsonl").write_text("\n".join(map(json.dumps, entries)))
    done = typed("compare", ROWS, "--out", tmp_path / "out", "--log", f"smit={tmp_path / 'run'}")
    assert "200 steps to 95 % of the last validation Dice: smit" in done.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x=/nowhere"], "/nowhere: no metrics.csv here"),
        ([ROWS, "--named", "smti:scratch"], "no model 'smti'. Did you mean"),
        ([ROWS, "--against", "me"], "--against me: no such model"),
        ([ROWS, "--metric", "HD95_mm"], "--metric HD95_mm: no such score"),
        ([ROWS, "--group", "x=liver"], "no structure 'liver'"),
        ([ROWS, "--patients", "/nowhere"], "no groups.csv here"),
    ],
)
def test_mistakes_are_answered_with_the_remedy(typed, tmp_path, arguments, said):
    done = typed("compare", *arguments, "--out", tmp_path / "out")
    assert done.code == 2 and said in done.error
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_neither_help_nor_the_work_needs_torch(tmp_path):
    program = "import sys; from swinssl.cli.compare import main; sys.argv[1:] = {}\ntry: main()\nfinally: print({})"
    told = "'torch' in sys.modules or 'numpy' in sys.modules"
    done = subprocess.run([sys.executable, "-c", program.format(["--help"], told)], capture_output=True, text=True)
    assert "--named" in done.stdout and done.stdout.rstrip().endswith("False")
    arguments = [str(ROWS), "--out", str(tmp_path)]
    told = "'torch' in sys.modules"
    done = subprocess.run([sys.executable, "-c", program.format(arguments, told)], capture_output=True, text=True)
    assert done.stdout.rstrip().endswith("False"), done.stderr
