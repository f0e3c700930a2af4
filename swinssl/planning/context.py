"""What every decision of a plan may look at: data, wishes, machine, and the cost of a step on it."""

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

# On a CPU: a night, unless the user says otherwise. Of the time, validation and checkpoints take the rest.
NIGHT_MINUTES, TRAINING_SHARE = 480.0, 0.85
# Steps and capacity share the time: of 4 times the minutes, 2 times the steps. 2500 steps in half an hour.
STEPS_IN_HALF_HOUR, LEAST_STEPS, MOST_STEPS = 2500, 400, 30_000
# More cores help less than proportionally; a documented guess.
CORE_EXPONENT = 0.8


@dataclass(frozen=True)
class PlanningContext:
    """What every decision may look at."""

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
        """Seconds that a step may take on this machine's CPU."""
        steps = STEPS_IN_HALF_HOUR * math.sqrt(self.minutes / 30)
        return self.minutes * 60 * TRAINING_SHARE / float(np.clip(steps, LEAST_STEPS, MOST_STEPS))

    @property
    def given_time(self) -> str:
        """The time for training, in words."""
        return duration(self.minutes * 60)

    def memory(self, network: NetworkPlan, patch: Shape, batch: int) -> float:
        """Of a step, in 10^9 bytes."""
        return step_memory_gb(network, patch_size=patch, batch_size=batch, bf16=self.machine.bf16, **self._channels())

    def seconds(self, network: NetworkPlan, patch: Shape, batch: int) -> float:
        """Of a step on this machine."""
        if not self.machine.on_cpu:
            return gpu_seconds_guess(network, patch_size=patch, batch_size=batch, **self._channels())
        two_cores = self.seconds_two_cores(network, patch, batch)
        return two_cores / (self.machine.cores / 2) ** CORE_EXPONENT

    def seconds_two_cores(self, network: NetworkPlan, patch: Shape, batch: int) -> float:
        """Of a step on two cores of a CPU."""
        return step_seconds_cpu(network, patch_size=patch, batch_size=batch, bf16=self.machine.bf16, **self._channels())

    def fits(self, network: NetworkPlan, patch: Shape, batch: int) -> bool:
        """Whether memory and, on a CPU, time allow a step."""
        in_time = not self.machine.on_cpu or self.seconds(network, patch, batch) <= self.step_budget
        return in_time and self.memory(network, patch, batch) <= self.machine.usable_gb

    def _channels(self) -> dict[str, int]:
        facts = self.fingerprint.swinssl
        return {"in_channels": len(facts.channel_names), "num_outputs": max(facts.labels.num_outputs, 1)}
