"""The files of a comparison of two encoders: `cka.json` with everything, `attention.csv` with a row a head.

JSON is strict: what is undefined is null, in CSV an empty field.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from swinssl.core import files, provenance
from swinssl.core.text import csv_text
from swinssl.evaluation.encoders.compared_encoder import ComparedEncoder
from swinssl.evaluation.encoders.encoder_comparison import LETTERS, Comparison, ComparisonPlan

CKA_FILE, ATTENTION_FILE = "cka.json", "attention.csv"
VERSION = 1
PAIRS = {"A_B": (0, 1), "A_A": (0, 0), "B_B": (1, 1)}


def write_files(comparison: Comparison, folder: Path) -> None:
    """Write `cka.json` and `attention.csv` into a folder."""
    files.write_json(folder / CKA_FILE, report(comparison))
    files.write_text(folder / ATTENTION_FILE, attention_csv(comparison))


def report(comparison: Comparison) -> dict[str, Any]:
    """The content of `cka.json`; docs/analysis.md describes its keys."""
    parts = {name: comparison.part(*which) for name, which in PAIRS.items()}
    return {
        "version": VERSION,
        **plan_report(comparison.plan),
        "unreadable": comparison.unreadable,
        "curve": [
            {
                "block_A": point.first.name,
                "block_B": point.second.name,
                "cka": _number(point.cka),
                "standard_error": _number(point.standard_error),
            }
            for point in comparison.curve
        ],
        "cka": {name: _rows(part.matrix) for name, part in parts.items()},
        "standard_error": {name: _rows(part.standard_error) for name, part in parts.items()},
        "attention": {letter: list(_heads(comparison, which)) for which, letter in enumerate(LETTERS)},
        "versions": provenance.versions(),
        "revision": provenance.revision(),
    }


def plan_report(plan: ComparisonPlan) -> dict[str, Any]:
    """What a comparison looks at."""
    return {
        "encoders": {
            letter: _encoder(encoder) | {"blocks": [block.name for block in blocks]}
            for letter, encoder, blocks in zip(LETTERS, plan.encoders, plan.blocks, strict=True)
        },
        "dataset": plan.dataset_name,
        "cases": list(plan.cases),
        "left_out": {letter: list(cases) for letter, cases in plan.left_out.items()},
        "spacing": list(plan.images.spacing),
        "patch_size": list(plan.images.patch_size),
        "seed": plan.seed,
        "counts": {
            "cases": len(plan.cases),
            "crops": plan.batch_size * plan.minibatches,
            "crops_of_a_minibatch": plan.batch_size,
            "tokens_of_a_crop": plan.tokens,
            "minibatches": plan.minibatches * plan.tokens,
        },
        "estimator": "minibatch CKA, linear kernel, unbiased HSIC_1",
        "form": plan.form,
        "notes": list(plan.notes),
    }


def attention_csv(comparison: Comparison) -> str:
    """One row a head, every number in its column."""
    return csv_text(
        {"encoder": letter, **row} for which, letter in enumerate(LETTERS) for row in _heads(comparison, which)
    )


def _encoder(encoder: ComparedEncoder) -> dict[str, Any]:
    plan, known = encoder.network.plan, encoder.trained_on
    return {
        "name": encoder.name,
        "path": str(encoder.path),
        "sha256": encoder.sha256,
        "embed_dim": plan.embed_dim,
        "depths": list(plan.depths),
        "heads": list(plan.heads),
        "window": plan.window,
        "trained_on_images": len(known.hashes),
        "runs": [str(path) for path in known.runs],
        "trained_on_unknown": known.unknown,
    }


def _heads(comparison: Comparison, which: int) -> Iterator[dict[str, Any]]:
    """A row a head of one encoder (0 A, 1 B)."""
    for block, span in zip(comparison.plan.blocks[which], comparison.attention[which], strict=True):
        for head in range(len(span.entropy)):
            yield {
                "block": block.name,
                "stage": block.stage,
                "head": head + 1,
                "distance_voxels": float(span.distance_voxels[head]),
                "distance_mm": float(span.distance_mm[head]),
                "entropy_nats": float(span.entropy[head]),
                "share_on_padding": float(span.on_padding[head]),
                "even_distance_voxels": span.even_distance_voxels,
                "even_distance_mm": span.even_distance_mm,
                "even_entropy_nats": span.even_entropy,
                "tokens": span.tokens,
            }


def _rows(matrix: NDArray) -> list[list[float | None]]:
    return [[_number(value) for value in row] for row in matrix.tolist()]


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
