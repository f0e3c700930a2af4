"""Fine-tuning a segmentor, as a task of the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from swinssl.core.rng import KeyedRng
from swinssl.preprocessing.plans import Plans
from swinssl.preprocessing.store import PreprocessedCase
from swinssl.training.engine.task import StepResult
from swinssl.training.engine.weight_average import WeightAverage
from swinssl.training.grid_validation import GridValidation
from swinssl.training.losses.registry import DEFAULT
from swinssl.training.losses.terms import deep_loss, segmentation_loss
from swinssl.training.sampling.patches import AugmentationName, load_patch
from swinssl.training.sampling.sampler import make_sampler


@dataclass(frozen=True)
class Sample:
    """One patch: (C, Z, Y, X) image, (Z, Y, X) label codes, (S,) whether structure s was looked for in its case."""

    image: Tensor
    codes: Tensor
    present: Tensor


@dataclass(frozen=True)
class Inputs:
    """A batch on the device, with the draws of stochastic depth, (B, blocks, 2)."""

    images: Tensor
    codes: Tensor
    present: Tensor
    drop_path_draws: Tensor


class SegmentationTask:
    """Patches in, a segmentation loss out; validated on whole volumes.

    Args:
        network: a segmentor of `plans.network`.
        cases: the training cases by id.
        validation: how its Dice is measured.
        ema: decay of the weight average that is validated and kept; 0 takes the network itself.
        loss: row of the table of losses.
        save_best: called with the network (in evaluation mode) when it is the best so far.
    """

    def __init__(
        self,
        network: nn.Module,
        cases: Mapping[str, PreprocessedCase],
        plans: Plans,
        *,
        validation: GridValidation,
        ema: float,
        augmentation: AugmentationName,
        loss: str = DEFAULT,
        save_best: Callable[[nn.Module], None],
    ) -> None:
        self.network, self.cases, self.plans = network, cases, plans
        self.batch_size = plans.training.batch_size
        self.validation, self.augmentation, self.save_best = validation, augmentation, save_best
        self.sampler = make_sampler(cases, plans)
        self.average = WeightAverage(network, decay=ema) if ema > 0 else None
        self.loss = segmentation_loss(
            loss, labels=plans.labels, activation=plans.training.loss, form=plans.training.dice
        )
        self.blocks = sum(plans.network.encoder.depths)
        self.validation_cost, self.closing_cost = validation.cost, validation.closing_cost

    @property
    def averaged_networks(self) -> Sequence[nn.Module]:
        return () if self.average is None else (self.average.network,)

    def load(self, rng: KeyedRng) -> Sample:
        patch = self.sampler.locate(rng, batch_size=self.batch_size)
        case = self.cases[patch.case_id]
        image, codes = load_patch(case, patch, plans=self.plans, rng=rng, augmentation=self.augmentation)
        annotated, names = case.properties.labels_present, self.plans.labels.names
        present = torch.tensor([annotated is None or name in annotated for name in names], dtype=torch.bool)
        return Sample(image, codes, present)

    def views(self, samples: Sequence[Sample], rngs: Sequence[KeyedRng], device: torch.device) -> Inputs:
        images = torch.stack([sample.image for sample in samples])
        depths = np.stack([rng("drop path").random((self.blocks, 2), dtype=np.float32) for rng in rngs])
        return Inputs(
            images.to(device, memory_format=torch.channels_last_3d, non_blocking=True),
            torch.stack([sample.codes for sample in samples]).to(device, non_blocking=True),
            torch.stack([sample.present for sample in samples]).to(device),
            torch.from_numpy(depths).to(device),
        )

    def before_step(self, step: int, total: int) -> None:
        """Nothing here depends on how far the run is."""

    def step(self, inputs: Inputs) -> StepResult:
        out = self.network(inputs.images, inputs.drop_path_draws)
        by_resolution = out if isinstance(out, list) else [out]
        losses = []
        for level, logits in enumerate(by_resolution):
            every = slice(None, None, 2**level)
            codes = inputs.codes[:, every, every, every]
            losses.append(self.loss(logits, codes, present=inputs.present))
        return StepResult(deep_loss(losses))

    def after_step(self, step: int, total: int) -> None:
        if self.average is not None:
            self.average.update(self.network, step)

    def validate(self) -> dict[str, float]:
        return self.validation.measure(self._best_network())

    def extra_weights(self) -> dict[str, Tensor]:
        if self.average is None:
            return {}
        return {f"average.{name}": tensor for name, tensor in self.average.weights().items()}

    def load_extra_weights(self, weights: dict[str, Tensor]) -> None:
        if self.average is not None:
            self.average.load_weights({name.removeprefix("average."): tensor for name, tensor in weights.items()})

    def keep_best(self) -> None:
        self.save_best(self._best_network())

    def _best_network(self) -> nn.Module:
        return (self.average.network if self.average is not None else self.network).eval()
