"""A pretext task, as a task of the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from swinssl.core.rng import KeyedRng
from swinssl.networks.swin.encoder import SwinEncoder
from swinssl.ssl.health import EVERY, Health
from swinssl.ssl.method import Method
from swinssl.ssl.parts.batch import Batch, StepContext
from swinssl.ssl.parts.crops import CropSampler
from swinssl.ssl.parts.distillation import Centre
from swinssl.ssl.parts.pretext_network import PretextNetwork
from swinssl.ssl.parts.teacher import Teacher
from swinssl.ssl.probe import Probe
from swinssl.training.engine.task import StepResult

Prepared = dict[str, NDArray]


class PretextTask:
    """Crops in, a method's loss out; validated by a frozen probe, if there is one.

    Args:
        network: encoder and heads, where they are trained.
        method: what is learnt.
        sampler: draws crops.
        batch_size: samples a step, over all ranks.
        save_best: called with the encoder when the probe has never found it better.
        probe: says what the encoder is worth.
        is_main: whether this process warns.
    """

    # What follows the run takes no time worth planning for.
    closing_cost = 0.0

    def __init__(
        self,
        network: PretextNetwork,
        method: Method,
        sampler: CropSampler,
        *,
        batch_size: int,
        save_best: Callable[[SwinEncoder], None],
        probe: Probe | None = None,
        is_main: bool = True,
    ) -> None:
        self.network, self.method, self.sampler, self.batch_size = network, method, sampler, batch_size
        self.save_best, self.probe, self.is_main = save_best, probe, is_main
        self.validation_cost = probe.cost(batch_size * method.seen_views) if probe is not None else 0.0
        # Of the encoder as the run began; NaN where nobody has measured it.
        self.untrained = torch.tensor(torch.nan)
        plan = network.encoder.plan
        self.blocks = sum(plan.depths)
        self.teacher = None
        if method.teacher_heads:
            self.teacher = Teacher(network, method.teacher_heads, momentum=method.options.teacher_momentum)
        device = next(network.parameters()).device
        self.centres = {name: Centre(method.options.prototypes, device=device) for name in method.centres}
        self.health = Health(method.seen_views, network.encoder.widths[3])
        self.done, self.share = 0, 0.0

    @property
    def averaged_networks(self) -> Sequence[nn.Module]:
        return () if self.teacher is None else (self.teacher.network,)

    def load(self, rng: KeyedRng) -> Prepared:
        return self.method.prepare(self.sampler.crops(rng), rng)

    def views(self, samples: Sequence[Prepared], rngs: Sequence[KeyedRng], device: torch.device) -> Batch:
        count = len(samples[0]["images"])
        depths = np.stack([rng("drop path").random((count, self.blocks, 2), dtype=np.float32) for rng in rngs])
        return Batch(
            {name: torch.from_numpy(np.stack([sample[name] for sample in samples])).to(device) for name in samples[0]},
            torch.tensor([rng.sample for rng in rngs], device=device),
            torch.from_numpy(depths).to(device),
        )

    def before_step(self, step: int, total: int) -> None:
        self.done, self.share = step, step / total
        if step == 0 and self.probe is not None:
            self.untrained = torch.tensor(self.probe.measure(self.best_network.encoder)["score"])

    def step(self, inputs: Batch) -> StepResult:
        outcome = self.method.losses(self.network, inputs, self.context)
        if self.done % EVERY == 0:
            pooled = inputs.encode_unmasked(self.network).tokens.mean((2, 3, 4))
            self.health.observe(pooled.unflatten(0, (-1, inputs.views)))
        measures = {**outcome.measures, **self.health.numbers()}
        if self.is_main:
            self.health.watch(measures, share=self.share)
        terms = {f"loss_{name}": float(values.detach().mean()) for name, values in outcome.terms.items()}
        return StepResult(outcome.losses, {**terms, **measures})

    def after_step(self, step: int, total: int) -> None:
        for centre in self.centres.values():
            centre.update()
        if self.teacher is not None:
            self.teacher.update(self.network, step=step, total=total)

    def validate(self) -> dict[str, float]:
        """The probe's Dice, and as `untrained` that of the encoder as the run began."""
        if self.probe is None:
            return {}
        return {**self.probe.measure(self.best_network.encoder), "untrained": float(self.untrained)}

    def extra_weights(self) -> dict[str, Tensor]:
        weights = {f"health.{name}": tensor for name, tensor in self.health.weights().items()}
        if torch.isfinite(self.untrained):  # nothing that is not finite enters a checkpoint
            weights["probe.untrained"] = self.untrained
        weights |= {f"centre.{name}": centre.value for name, centre in self.centres.items()}
        if self.teacher is not None:
            weights |= {f"teacher.{name}": tensor for name, tensor in self.teacher.network.state_dict().items()}
        return weights

    def load_extra_weights(self, weights: dict[str, Tensor]) -> None:
        by_owner: dict[str, dict[str, Tensor]] = {"health": {}, "probe": {}, "centre": {}, "teacher": {}}
        for name, tensor in weights.items():
            owner, _, rest = name.partition(".")
            by_owner[owner][rest] = tensor
        self.health.load_weights(by_owner["health"])
        self.untrained = by_owner["probe"].get("untrained", self.untrained)
        for name, centre in self.centres.items():
            centre.value = by_owner["centre"][name].to(centre.value.device)
        if self.teacher is not None:
            self.teacher.network.load_state_dict(by_owner["teacher"])

    def keep_best(self) -> None:
        """Without a probe nothing tells the best encoder from the others."""
        if self.probe is not None:
            self.save_best(self.best_network.encoder)

    @property
    def context(self) -> StepContext:
        """The present one of the run."""
        return StepContext(self.share, self.batch_size, self.teacher, self.centres)

    @property
    def best_network(self) -> PretextNetwork:
        """Whose encoder is the result: the teacher, where there is one and the user does not want the student."""
        student = self.teacher is None or self.method.options.keep == "student"
        return self.network if student else self.teacher.network  # type: ignore[union-attr]
