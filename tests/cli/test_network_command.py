"""swinssl_network, typed as a user would."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from swinssl.cli import network
from swinssl.networks.network_plan import PRESETS


@pytest.fixture
def typed(monkeypatch, capsys):
    """Runs the command in this process: exit code, stdout, stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["swinssl_network", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            network.main()
        out, err = capsys.readouterr()
        return end.value.code, out, err

    return run


@pytest.mark.parametrize(
    ("preset", "classes", "parameters"),
    [("smit96", 16, 64_700_336), ("smit96", 2, 64_699_650), ("smits", 16, 276_344_944)],
)
def test_json_has_the_published_parameters_at_the_top(typed, preset, classes, parameters):
    code, out, _ = typed("--preset", preset, "--classes", classes, "--json")
    report = json.loads(out)
    assert (code, report["parameters"]) == (0, parameters)
    assert sum(layer["parameters"] for layer in report["layers"]) == parameters


def test_json_has_layers_plan_and_cost(typed):
    _, out, _ = typed("--preset", "tiny", "--patch", 32, 64, 96, "--channels", 2, "--batch-size", 3, "--json")
    report = json.loads(out)
    assert report["layers"][-1] == {"name": "head", "kind": "Conv3d", "output": [2, 32, 64, 96], "parameters": 34}
    assert report["plan"]["patch"] == [32, 64, 96] and report["plan"]["preset"] == "tiny"
    cost = report["step"]
    assert cost["batch_size"] == 3
    assert cost["cpu"]["bf16"]["seconds_on_two_cores"] < cost["cpu"]["fp32"]["seconds_on_two_cores"]
    assert cost["cpu"]["fp32"]["memory_gb"] > 0 and cost["gpu"]["seconds_guess"] > 0


def test_the_encoder_s_part_is_told_for_every_architecture(typed):
    def encoder(*arguments):
        return json.loads(typed(*arguments, "--json")[1])["encoder_parameters"]

    assert encoder("--preset", "smit96") == 10_565_632
    assert 0 < encoder("--network", "plainconv") < encoder("--network", "resenc")


def test_on_screen_every_layer_has_its_shape_and_the_sum_stands_below(typed, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    code, out, _ = typed("--preset", "smit96", "--classes", 16)
    assert code == 0
    assert "encoder.stages.2.blocks" in out and "8 x SwinBlock" in out and "192 x 12 x 12 x 12" in out
    assert "64,700,336 parameters, of these 10,565,632 in the encoder" in out
    assert "16 classes (background included)" in out


def test_list_names_every_preset_and_calls_the_guess_a_guess(typed, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    _, out, _ = typed("--list")
    assert all(name in out for name in PRESETS)
    assert "documented guess" in out
    _, out, _ = typed("--list", "--classes", 16, "--json")
    listed = {row["preset"]: row for row in json.loads(out)}
    assert listed["smit96"]["parameters"] == 64_700_336 > listed["smit96"]["parameters_light"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "smit69"], "Did you mean smit96?"),
        (["--patch", 48, 96, 100], "The nearest is --patch 64 96 96."),
        (["--decoder", "lite"], "Did you mean light? Choose one of full, light."),
        (["--classes", 0], "--classes"),
    ],
)
def test_mistakes_are_answered_with_the_remedy(typed, arguments, message):
    code, out, err = typed(*arguments)
    assert (code, out) == (2, "")
    assert message in err and "Traceback" not in err


def test_help_says_what_classes_are_and_needs_no_torch():
    program = "import sys; from swinssl.cli.network import main; sys.argv[1:] = ['--help']\ntry: main()\nfinally: "
    program += "print('torch' in sys.modules or 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "background included" in done.stdout
    assert done.stdout.rstrip().endswith("False")
