"""The picture of a run: loss, validation scores and learning rate over the steps, from its log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swinssl import files

# Okabe and Ito's colours, told apart by colour-blind readers and in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
# More curves than this would hide each other; the mean is always drawn.
MOST_CURVES = 8
PREFIX = "validation_"


def draw_progress(log: Sequence[dict[str, Any]], path: Path, *, title: str) -> None:
    """Write `path` (PNG) from the entries of `log.jsonl`."""
    # Without pyplot: no global state, no display, safe in any thread.
    from matplotlib.figure import Figure

    validated = [entry for entry in log if f"{PREFIX}score" in entry]
    figure = Figure(figsize=(8, 7 if validated else 4.5), layout="constrained")
    rows = [3, 3, 1] if validated else [3, 1]
    axes = figure.subplots(len(rows), 1, sharex=True, height_ratios=rows)
    steps = [entry["step"] for entry in log]

    loss = axes[0]
    loss.plot(steps, [entry.get("loss") for entry in log], color=COLOURS[0], linewidth=1)
    loss.set_ylabel("training loss")
    loss.set_title(title, fontsize=10)
    if validated:
        _draw_scores(axes[1], validated)
    rate = axes[-1]
    rate.plot(steps, [entry.get("learning_rate") for entry in log], color=COLOURS[6], linewidth=1)
    rate.set_ylabel("rate")
    rate.set_xlabel("step")
    for one in axes:
        one.grid(alpha=0.3)
        one.spines[["top", "right"]].set_visible(False)
    with files.atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)


def _draw_scores(axes: Any, validated: Sequence[dict[str, Any]]) -> None:
    steps = [entry["step"] for entry in validated]
    names = [name for name in validated[-1] if name.startswith(PREFIX) and name != f"{PREFIX}score"]
    # Of many structures the worst are those one looks for.
    names.sort(key=lambda name: validated[-1][name] if validated[-1][name] is not None else 2.0)
    for name, colour in zip(names[:MOST_CURVES], COLOURS, strict=False):
        values = [entry.get(name) for entry in validated]
        label = name.removeprefix(f"{PREFIX}dice_")
        axes.plot(steps, values, color=colour, linewidth=1, marker=".", markersize=3, label=label)
    scores = [entry[f"{PREFIX}score"] for entry in validated]
    axes.plot(steps, scores, color="black", linewidth=2, label="mean")
    best = max(range(len(scores)), key=lambda i: (scores[i], i))
    axes.annotate(
        f"{scores[best]:.3f}", (steps[best], scores[best]), textcoords="offset points", xytext=(0, 6), ha="center"
    )
    axes.set_ylabel("Dice of whole volumes")
    axes.set_ylim(0, 1)
    hidden = len(names) - MOST_CURVES
    axes.legend(fontsize=8, loc="lower right", title=f"(the worst {MOST_CURVES})" if hidden > 0 else None)
