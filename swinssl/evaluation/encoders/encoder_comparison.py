"""Two encoders on the same crops of cases that neither was trained on: CKA of all blocks, and what heads look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from swinssl.core.errors import UserError
from swinssl.core.rng import KeyedRng
from swinssl.core.terminal import track
from swinssl.core.text import counted, dimensions, listed
from swinssl.evaluation.encoders.attention_span import AttentionSpan
from swinssl.evaluation.encoders.block_features import BlockReader, coarsest_tokens, draw_places
from swinssl.evaluation.encoders.cka import Cka, Form, MinibatchCka, cheaper_form
from swinssl.evaluation.encoders.compared_encoder import ComparedEncoder
from swinssl.evaluation.encoders.comparison_config import TOKENS, ComparisonConfig
from swinssl.networks.network_plan import SwinEncoderPlan
from swinssl.networks.swin.encoder import DIVISOR
from swinssl.planning.intensity import describe
from swinssl.preprocessing.plans import Plans
from swinssl.preprocessing.store import PreprocessedCase, PreprocessedDataset
from swinssl.ssl.method import Images
from swinssl.ssl.parts.crops import CropSampler
from swinssl.ssl.sources import SourceVolume

LETTERS = ("A", "B")
PURPOSE = "tokens of a comparison"


@dataclass(frozen=True)
class Block:
    """A block of an encoder: its stage and its number there, from 1."""

    stage: int
    number: int

    @property
    def name(self) -> str:
        """`3.8`: the eighth block of the third stage."""
        return f"{self.stage}.{self.number}"


def blocks_of(plan: SwinEncoderPlan) -> tuple[Block, ...]:
    """All blocks of an encoder in their order."""
    return tuple(Block(stage, number) for stage, depth in enumerate(plan.depths, 1) for number in range(1, depth + 1))


@dataclass(frozen=True, eq=False)
class ComparisonPlan:
    """What a comparison looks at, before anything is computed.

    Args:
        encoders: A and B.
        dataset_name: of the preprocessed data.
        images: of the crops.
        cases: that crops are drawn from, by id.
        left_out: by letter of the encoder, the cases that it was trained on.
        batch_size: crops of a minibatch.
        minibatches: number of them.
        tokens: of a crop; those of one crop never meet in a minibatch.
        form: in which CKA is computed.
        seed: of crops and tokens.
        notes: what a reader must know to believe the numbers, in words.
    """

    encoders: tuple[ComparedEncoder, ComparedEncoder]
    dataset_name: str
    images: Images
    cases: dict[str, PreprocessedCase]
    left_out: dict[str, tuple[str, ...]]
    batch_size: int
    minibatches: int
    tokens: int
    form: Form
    seed: int
    notes: tuple[str, ...]

    @property
    def blocks(self) -> tuple[tuple[Block, ...], tuple[Block, ...]]:
        """Those of A and of B."""
        first, second = (blocks_of(encoder.network.plan) for encoder in self.encoders)
        return first, second

    @property
    def new_to_both(self) -> str:
        """What can be said of the cases, after "cases that"."""
        told = all(encoder.trained_on.unknown is None for encoder in self.encoders)
        return "neither was trained on" if told else "neither is known to have been trained on"


@dataclass(frozen=True, eq=False)
class CurvePoint:
    """CKA between a block of A and the block of B in its place; NaN where features do not vary."""

    first: Block
    second: Block
    cka: float
    standard_error: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """What was found.

    Args:
        plan: what was looked at.
        cka: of all blocks of A, then those of B, with each other.
        attention: by encoder, of every block.
        unreadable: cases that could not be read, with the reason; left out.
    """

    plan: ComparisonPlan
    cka: Cka
    attention: tuple[tuple[AttentionSpan, ...], tuple[AttentionSpan, ...]]
    unreadable: dict[str, str]

    def part(self, first: int, second: int) -> Cka:
        """CKA of the blocks of one encoder (0 A, 1 B; rows) with those of another (columns)."""
        count = len(self.plan.blocks[0])
        rows, columns = (slice(None, count) if which == 0 else slice(count, None) for which in (first, second))
        return Cka(self.cka.matrix[rows, columns], self.cka.standard_error[rows, columns])

    @property
    def curve(self) -> tuple[CurvePoint, ...]:
        """Block by block; where the encoders have other depths, only the last block of every stage."""
        first, second = self.plan.blocks
        between = self.part(0, 1)
        places = (range(len(first)),) * 2 if first == second else (_ends(first), _ends(second))
        return tuple(
            CurvePoint(first[i], second[j], float(between.matrix[i, j]), float(between.standard_error[i, j]))
            for i, j in zip(*places, strict=True)
        )


def _ends(blocks: Sequence[Block]) -> list[int]:
    """Where the last block of every stage is."""
    return list({block.stage: place for place, block in enumerate(blocks)}.values())


def plan_comparison(
    first: ComparedEncoder,
    second: ComparedEncoder,
    preprocessed: Path,
    *,
    config: ComparisonConfig,
    cases: Sequence[str] = (),
) -> ComparisonPlan:
    """What a comparison would look at; nothing is computed.

    Args:
        first, second: the encoders A and B.
        preprocessed: `<root>/preprocessed/<name>`.
        config: what the user chose.
        cases: ids of the only ones to draw crops from; none takes all that neither encoder was trained on.

    Raises:
        UserError: an encoder was trained on all cases or on one that was asked for, or something does not fit.
    """
    dataset = PreprocessedDataset.open(preprocessed)
    plans, encoders = dataset.plans, (first, second)
    for letter, encoder in zip(LETTERS, encoders, strict=True):
        if encoder.in_channels != len(plans.channel_names):
            raise UserError(
                f"{encoder.path}: {letter} sees {counted(encoder.in_channels, 'image channel')}, "
                f"{plans.dataset_name} has {len(plans.channel_names)}. Give other data."
            )
    chosen, left_out = _unseen(dataset, encoders, cases)
    if config.crops < config.batch_size:
        raise UserError(
            f"--crops {config.crops}: under a minibatch of {config.batch_size}. Give more, or a smaller --batch-size."
        )
    patch = config.patch or plans.patch_size
    if any(edge < 1 or edge % DIVISOR for edge in patch):
        whose = "" if config.patch else f" (planned for {plans.dataset_name})"
        raise UserError(f"--patch {' '.join(map(str, patch))}{whose}: expected multiples of {DIVISOR}. Give such.")
    widths = [
        encoder.network.widths[block.stage - 1] for encoder in encoders for block in blocks_of(encoder.network.plan)
    ]
    return ComparisonPlan(
        encoders=encoders,
        dataset_name=plans.dataset_name,
        images=Images(patch, plans.spacing, len(plans.channel_names)),
        cases=chosen,
        left_out=left_out,
        batch_size=config.batch_size,
        minibatches=config.crops // config.batch_size,
        tokens=_tokens(config, patch),
        form=cheaper_form(config.batch_size, widths),
        seed=config.seed,
        notes=tuple(_notes(encoders, plans)),
    )


def compare(plan: ComparisonPlan, *, device: torch.device) -> Comparison:
    """Run both encoders over the crops, in float32.

    Raises:
        UserError: no case can be read.
    """
    images = plan.images
    volumes = [SourceVolume(name, case, 1 / len(plan.cases)) for name, case in plan.cases.items()]
    sampler = CropSampler(volumes, images, views=1, context=None)
    readers = [
        BlockReader(encoder.network.to(device), patch_size=images.patch_size, spacing=images.spacing)
        for encoder in plan.encoders
    ]
    cka = MinibatchCka()
    for step in track(range(plan.minibatches), "comparing, minibatches"):
        draws = [KeyedRng(plan.seed, step, sample) for sample in range(plan.batch_size)]
        crops = np.concatenate([sampler.crops(own) for own in draws])
        places = np.stack([draw_places(own(PURPOSE), images.patch_size, tokens=plan.tokens) for own in draws])
        blocks = [features for reader in readers for features in reader.read(crops, places)]
        # HSIC_1 takes samples for independent, and tokens of one crop are alike: with all tokens in one minibatch the
        # CKA of last blocks came out 0.01 too high (0.314 for 0.303). So a minibatch has one token of each crop.
        cka.add(*([features[:, token] for features in blocks] for token in range(plan.tokens)))
    first, second = (reader.attention() for reader in readers)
    return Comparison(plan, cka.result(), (first, second), sampler.damaged)


def _unseen(
    dataset: PreprocessedDataset, encoders: Sequence[ComparedEncoder], asked: Sequence[str]
) -> tuple[dict[str, PreprocessedCase], dict[str, tuple[str, ...]]]:
    """The cases to draw from, and by letter those that an encoder was trained on."""
    if unknown := sorted(set(asked) - set(dataset.case_ids)):
        raise UserError(
            f"--case {unknown[0]}: no such case in {dataset.folder}; there are {listed(dataset.case_ids)}. Correct it."
        )
    cases = {case_id: dataset.case(case_id) for case_id in dict.fromkeys(asked or dataset.case_ids)}
    hashes = {case_id: set(case.properties.image_sha256.values()) for case_id, case in cases.items()}
    left_out = {
        letter: tuple(case_id for case_id, own in hashes.items() if own & encoder.trained_on.hashes)
        for letter, encoder in zip(LETTERS, encoders, strict=True)
    }
    known = {case_id for own in left_out.values() for case_id in own}
    who = "; ".join(f"{letter} on {listed(own)}" for letter, own in left_out.items() if own)
    if asked and known:
        raise UserError(f"--case: {who} was trained. Leave these out: crops must be of images that neither has seen.")
    unseen = {case_id: case for case_id, case in cases.items() if case_id not in known}
    if not unseen:
        raise UserError(
            f"{dataset.folder}: every case was trained on ({who}). Give data that neither encoder has seen."
        )
    return unseen, left_out


def _tokens(config: ComparisonConfig, patch: tuple[int, int, int]) -> int:
    """Of a crop."""
    there = coarsest_tokens(patch)
    tokens = min(TOKENS, there) if config.tokens is None else config.tokens
    if tokens > there:
        raise UserError(
            f"--tokens {tokens}: a crop of {dimensions(patch)} has {there} tokens at the last stage, and "
            f"each counts once. Give 1 to {there}, or a larger --patch."
        )
    return tokens


def _notes(encoders: Sequence[ComparedEncoder], plans: Plans) -> list[str]:
    notes = []
    for letter, encoder in zip(LETTERS, encoders, strict=True):
        if encoder.trained_on.unknown is not None:
            notes.append(f"{letter}: {encoder.trained_on.unknown}; make sure yourself that no case here is among its.")
        if encoder.spacing is not None and encoder.spacing != plans.spacing:
            notes.append(f"{letter} was trained at {_mm(encoder.spacing)}; the crops have {_mm(plans.spacing)}.")
        ours, theirs = plans.intensity[0], encoder.intensity
        if theirs is not None and theirs != ours:
            notes.append(f"{letter} was trained on intensities of {describe(theirs)}; the crops have {describe(ours)}.")
    return notes


def _mm(spacing: tuple[float, float, float]) -> str:
    return dimensions(spacing, "g") + " mm"
