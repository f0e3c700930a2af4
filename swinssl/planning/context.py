"""The inputs of every planning decision: data, options, machine, and the cost of a training step on it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from swinssl.core.geometry import Shape
from swinssl.core.text import duration
from swinssl.networks.network_plan import NetworkPlan
from swinssl.planning.cost_model import gpu_seconds_guess, step_memory_gb, step_seconds_cpu
from swinssl.planning.encoder_facts import EncoderFacts
from swinssl.planning.options import PlanOptions
from swinssl.planning.target_machine import TargetMachine
from swinssl.preprocessing.fingerprint import Fingerprint

# On a CPU: one night by default. Validation and checkpoints take the rest of the time.
NIGHT_MINUTES, TRAINING_SHARE = 480.0, 0.85
# Steps and capacity share the time: of 4 times the minutes, 2 times the steps. 2500 steps in half an hour.
STEPS_IN_HALF_HOUR, LEAST_STEPS, MOST_STEPS = 2500, 400, 30_000
# More cores help less than proportionally; a documented guess.
CORE_EXPONENT = 0.8


@dataclass(frozen=True)
class PlanningContext:
    """The inputs of every decision."""

    fingerprint: Fingerprint
    options: PlanOptions
    machine: TargetMachine
    encoder: EncoderFacts | None

    @property
    def paper(self) -> bool:
        return self.options.recipe == "paper"

    @property
    def minutes(self) -> float:
        return self.options.max_minutes or NIGHT_MINUTES

    @property
    def step_budget(self) -> float:
        """Maximum seconds per training step on this machine's CPU."""
        steps = STEPS_IN_HALF_HOUR * math.sqrt(self.minutes / 30)
        return self.minutes * 60 * TRAINING_SHARE / float(np.clip(steps, LEAST_STEPS, MOST_STEPS))

    @property
    def given_time(self) -> str:
        """The training time as text."""
        return duration(self.minutes * 60)

    def memory(self, network: NetworkPlan, patch: Shape, batch: int) -> float:
        """Memory of a training step, in 10^9 bytes."""
        return step_memory_gb(network, patch_size=patch, batch_size=batch, bf16=self.machine.bf16, **self._channels())

    def seconds(self, network: NetworkPlan, patch: Shape, batch: int) -> float:
        """Seconds per training step on this machine."""
        if not self.machine.on_cpu:
            return gpu_seconds_guess(network, patch_size=patch, batch_size=batch, **self._channels())
        two_cores = self.seconds_two_cores(network, patch, batch)
        return two_cores / (self.machine.cores / 2) ** CORE_EXPONENT

    def seconds_two_cores(self, network: NetworkPlan, patch: Shape, batch: int) -> float:
        """Seconds per training step on two CPU cores."""
        return step_seconds_cpu(network, patch_size=patch, batch_size=batch, bf16=self.machine.bf16, **self._channels())

    def fits(self, network: NetworkPlan, patch: Shape, batch: int) -> bool:
        """Whether a training step fits in memory and, on a CPU, in the step budget."""
        in_time = not self.machine.on_cpu or self.seconds(network, patch, batch) <= self.step_budget
        return in_time and self.memory(network, patch, batch) <= self.machine.usable_gb

    def _channels(self) -> dict[str, int]:
        facts = self.fingerprint.swinssl
        return {"in_channels": len(facts.channel_names), "num_outputs": max(facts.labels.num_outputs, 1)}
