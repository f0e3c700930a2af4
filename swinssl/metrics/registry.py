"""The metrics: one table, from which CSV columns, summaries, tables, comparisons and help texts derive.

No numpy here, so that commands start fast.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from swinssl.core.geometry import Spacing
    from swinssl.metrics.case_metrics import StructureMetrics

    Masks = Callable[[NDArray[np.bool_], NDArray[np.bool_], Spacing], float | int | None]

Number = float | int | None
Shown = Literal["overlap", "surface", "page"]


@dataclass(frozen=True)
class Metric:
    """One metric of a structure in a case; give either `value` or `of_masks`.

    Args:
        name: in files and for `--metric`. With several tolerances, each is appended: `NSD_2mm`.
        better: None for counts and signed errors, which are not scores.
        value: reads it from the result of `case_metrics`; with several tolerances it also takes their index.
        of_masks: computes it from the masks of reference and prediction (Z, Y, X), cropped to the structure, and the
            spacing (z, y, x) in mm. Not called if both masks are empty.
        title: column heading.
        unit: shown with the title.
        form: format specifier for printing.
        shown: tables that contain it: `overlap` and `surface` of swinssl_evaluate, `page` of the HTML report.
        aliases: further names in score tables, in lower case.
        nnunet: whether nnU-Net's tools read it.
        lesions: whether only lesions have it.
        per_tolerance: whether it is measured at each tolerance.
    """

    name: str
    better: Literal["higher", "lower"] | None = None
    value: Callable[..., Number] | None = None
    of_masks: Masks | None = None
    title: str = ""
    unit: str = ""
    form: str = ".3f"
    shown: tuple[Shown, ...] = ()
    aliases: tuple[str, ...] = ()
    nnunet: bool = False
    lesions: bool = False
    per_tolerance: bool = False

    def __call__(self, metrics: StructureMetrics) -> Number:
        """The value for one structure; None if it is undefined."""
        return metrics.of_masks.get(self.name) if self.value is None else self.value(metrics)

    def heading(self, separator: str = " ") -> str:
        """Title and unit."""
        return f"{self.title or self.name}{separator}{self.unit}" if self.unit else self.title or self.name

    def at(self, index: int, tolerance: float) -> Metric:
        """The metric at the `index`-th tolerance; `tolerance` is in mm."""
        assert self.value is not None
        title, value = f"{self.title} {tolerance:g} mm", partial(self.value, index=index)
        return replace(self, name=f"{self.name}_{tolerance:g}mm", title=title, value=value, per_tolerance=False)

    def matches(self, name: str) -> bool:
        """Whether `name` is this metric, or this metric at some tolerance."""
        if self.per_tolerance:
            return re.fullmatch(rf"{self.name}_[0-9.e+-]+mm", name) is not None
        return name == self.name


def _overlap(name: str) -> Callable[[StructureMetrics], Number]:
    return lambda m: getattr(m.overlap, name)


def _surface(name: str) -> Callable[[StructureMetrics], Number]:
    return lambda m: getattr(m.surface, name) if m.surface else None


def _lesion(name: str) -> Callable[[StructureMetrics], Number]:
    return lambda m: getattr(m.lesions, name) if m.lesions else None


DICE = "Dice"
# In the order of the columns of metrics.csv.
METRICS: list[Metric] = [
    Metric(DICE, "higher", _overlap("dice"), shown=("overlap", "page"), aliases=("dsc", "dice"), nnunet=True),
    Metric("IoU", "higher", _overlap("iou"), nnunet=True),
    Metric("TP", None, _overlap("tp"), nnunet=True),
    Metric("FP", None, _overlap("fp"), nnunet=True),
    Metric("FN", None, _overlap("fn"), nnunet=True),
    Metric("TN", None, _overlap("tn"), nnunet=True),
    Metric("n_pred", None, _overlap("n_prediction"), nnunet=True),
    Metric("n_ref", None, _overlap("n_reference"), nnunet=True),
    Metric(
        "HD95_mm",
        "lower",
        _surface("hd95"),
        title="HD95",
        unit="mm",
        form=".1f",
        shown=("surface", "page"),
        aliases=("hd95",),
    ),
    Metric("MSD_mm", "lower", _surface("mean_distance"), title="MSD", unit="mm", form=".2f", shown=("surface",)),
    Metric(
        "NSD",
        "higher",
        lambda m, index: m.surface_dice(index),
        title="surface Dice",
        shown=("surface",),
        per_tolerance=True,
    ),
    Metric("reference_ml", None, lambda m: m.reference_ml),
    Metric("prediction_ml", None, lambda m: m.prediction_ml),
    Metric(
        "volume_error_ml",
        None,
        lambda m: m.volume_error_ml,
        title="volume error",
        unit="ml",
        form="+.2f",
        shown=("overlap",),
    ),
    Metric("volume_error_percent", None, lambda m: m.volume_error_percent),
    Metric(
        "absolute_volume_error_percent",
        "lower",
        lambda m: None if m.volume_error_percent is None else abs(m.volume_error_percent),
        title="abs.",
        unit="%",
        form=".1f",
        shown=("overlap",),
    ),
    Metric(
        "far_false_positives",
        "lower",
        lambda m: m.far_false_positives,
        title="far FP",
        form=".2f",
        shown=("surface",),
    ),
    Metric("lesions_reference", None, _lesion("reference"), lesions=True),
    Metric("lesions_found", None, _lesion("found"), lesions=True),
    Metric("lesions_predicted", None, _lesion("predicted"), lesions=True),
    Metric("lesions_true", None, _lesion("true"), lesions=True),
    Metric("lesion_sensitivity", "higher", _lesion("sensitivity"), lesions=True),
    Metric("lesion_precision", "higher", _lesion("precision"), lesions=True),
    Metric("lesion_F1", "higher", _lesion("f1"), lesions=True),
]


def metrics_at(tolerances: Sequence[float], *, lesions: bool) -> dict[str, Metric]:
    """The metrics of an evaluation by name, in the order of their columns.

    Args:
        tolerances: in mm, in the order in which `case_metrics` was given them.
        lesions: whether the metrics of lesions are among them.
    """

    def expanded() -> Iterator[Metric]:
        for metric in METRICS:
            if metric.per_tolerance:
                yield from (metric.at(index, mm) for index, mm in enumerate(tolerances))
            elif lesions or not metric.lesions:
                yield metric

    return {metric.name: metric for metric in expanded()}


def metric_named(name: str) -> Metric | None:
    """The metric that a file calls `name`; None for a score that swinssl does not compute."""
    return next((metric for metric in METRICS if metric.matches(name)), None)


def lower_is_better(name: str) -> bool:
    """Whether a lower value is better; of scores that swinssl does not compute, higher is."""
    metric = metric_named(name)
    return metric is not None and metric.better == "lower"


def aliases() -> dict[str, str]:
    """Names of metrics by the further names that tables of scores may use."""
    return {alias: metric.name for metric in METRICS for alias in metric.aliases}


def metric_help() -> str:
    """The scores that can be compared, for help texts."""
    names = [f"{m.name}_2mm" if m.per_tolerance else m.name for m in METRICS if m.better]
    return f"Column to compare, such as {', '.join(names)}."
