"""The table of architectures: a new row is all that a new network needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from swinssl.core.errors import UserError
from swinssl.networks import architectures
from swinssl.networks.architectures import ARCHITECTURES, Architecture, build_network
from swinssl.networks.network_plan import NetworkPlan
from swinssl.planning import cost_model

# The names are types, made when modules are imported, so the row is added in a fresh interpreter.
NEW_ROW = """
import sys, types, torch
from swinssl.networks import architectures

class Tiny(torch.nn.Module):
    def __init__(self, plan, *, in_channels, num_outputs):
        super().__init__()
        self.deep_supervision = plan.deep_supervision
        self.layer = torch.nn.Conv3d(in_channels, num_outputs, 3, padding=1)

    def forward(self, image, drop_path_draws=None):
        return self.layer(image)

sys.modules["tiny_network"] = types.SimpleNamespace(Tiny=Tiny)
architectures.ARCHITECTURES["tiny"] = architectures.Architecture("a single convolution", "tiny_network:Tiny")

from swinssl.experiments.benchmark.config import Init
from swinssl.networks.network_plan import NetworkPlan
from swinssl.planning.cost_model import network_work, step_seconds_cpu
from swinssl.planning.options import PlanOptions
from swinssl.training.config import TrainingConfig

plan = NetworkPlan(architecture=PlanOptions(network="tiny").network)
assert TrainingConfig(network="tiny").network == plan.architecture == plan.short_name
assert Init(start="tiny").start == "tiny"
assert architectures.build_network(plan, in_channels=2, num_outputs=3)(torch.zeros(1, 2, 4, 4, 4)).shape[1] == 3
work = network_work(plan, patch_size=(32, 32, 32), in_channels=2, num_outputs=3)
assert (work.conv, work.parameters) == (27 * 2 * 3 * 32**3, 27 * 2 * 3 + 3)

from swinssl.cli import network
sys.argv = ["swinssl_network", "--network", "tiny", "--patch", "32", "32", "32"]
network.main()
"""


def test_a_new_row_is_planned_trained_benchmarked_built_and_shown():
    done = subprocess.run([sys.executable, "-c", NEW_ROW], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "tiny (small)" in done.stdout and "\n56 parameters" in done.stdout


def test_the_help_names_every_architecture():
    assert all(name in architectures.HELP and row.purpose in architectures.HELP for name, row in ARCHITECTURES.items())


@pytest.mark.parametrize("name", ["plainconv", "resenc"])
def test_counting_on_the_meta_device_agrees_with_the_formulas(name):
    plan = NetworkPlan(architecture=name, preset="tiny")
    shape = {"patch_size": (32, 64, 32), "in_channels": 2, "num_outputs": 3}
    formula, counted = cost_model.network_work(plan, **shape), cost_model._counted_work(plan, **shape)
    assert (counted.parameters, counted.conv, counted.products) == (formula.parameters, formula.conv, 0)
    assert counted.saved == pytest.approx(formula.saved, rel=0.03)  # the formula leaves small maps out


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    row = Architecture("missing", "absent_networks.unet:UNet", requires="absent-networks")
    monkeypatch.setitem(ARCHITECTURES, "plainconv", row)
    with pytest.raises(UserError, match="pip install absent-networks"):
        build_network(NetworkPlan(architecture="plainconv"), in_channels=1, num_outputs=2)
