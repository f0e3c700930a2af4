"""Self-configuring 3D medical image segmentation with self-supervised Swin encoders, for few labels.

    import swinssl

    model = swinssl.load_model("swinssl_data/results/Dataset101_HeadNeck/small")
    prediction = model.predict("scan.nii.gz")
    prediction.save("segmentation.nii.gz")

Axis order is (z, y, x) in every array, shape and spacing; spacings are in mm. What a user can cause is raised as
`UserError`. Importing swinssl imports neither torch nor numpy: a name is loaded at its first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from swinssl.core.provenance import __version__

if TYPE_CHECKING:
    from swinssl.api.datasets import ExistingPlan, PlanResult, PreprocessResult, check, plan, preprocess, read_plan
    from swinssl.api.encoders import (
        Encoder,
        EncoderInfo,
        MethodInfo,
        PresetInfo,
        list_encoders,
        list_methods,
        list_presets,
        load_encoder,
    )
    from swinssl.api.evaluation import ComparisonResult, EvaluationResult, compare, evaluate
    from swinssl.api.images import Image, read_image, write_image
    from swinssl.api.model import InputWarning, Prediction, TrainedModel, load_model
    from swinssl.api.prediction import PredictionEstimate, PredictionJob, PredictionResult, open_prediction, predict
    from swinssl.api.training import (
        PretrainingEstimate,
        TrainingEstimate,
        TrainingResult,
        estimate_pretraining,
        estimate_training,
        pretrain,
        train,
    )
    from swinssl.core.errors import Interrupted, UserError
    from swinssl.inference.prediction_record import PredictionOptions
    from swinssl.planning.options import PlanOptions
    from swinssl.ssl.config import PretrainingConfig
    from swinssl.training.config import TrainingConfig

__all__ = [
    "ComparisonResult",
    "Encoder",
    "EncoderInfo",
    "EvaluationResult",
    "ExistingPlan",
    "Image",
    "InputWarning",
    "Interrupted",
    "MethodInfo",
    "PlanOptions",
    "PlanResult",
    "Prediction",
    "PredictionEstimate",
    "PredictionJob",
    "PredictionOptions",
    "PredictionResult",
    "PreprocessResult",
    "PresetInfo",
    "PretrainingConfig",
    "PretrainingEstimate",
    "TrainedModel",
    "TrainingConfig",
    "TrainingEstimate",
    "TrainingResult",
    "UserError",
    "__version__",
    "check",
    "compare",
    "estimate_pretraining",
    "estimate_training",
    "evaluate",
    "list_encoders",
    "list_methods",
    "list_presets",
    "load_encoder",
    "load_model",
    "open_prediction",
    "plan",
    "predict",
    "preprocess",
    "pretrain",
    "read_image",
    "read_plan",
    "train",
    "write_image",
]

_NAMES_OF = {
    "swinssl.api.datasets": (
        *("ExistingPlan", "PlanResult", "PreprocessResult"),
        *("check", "plan", "preprocess", "read_plan"),
    ),
    "swinssl.api.encoders": (
        *("Encoder", "EncoderInfo", "MethodInfo", "PresetInfo"),
        *("list_encoders", "list_methods", "list_presets", "load_encoder"),
    ),
    "swinssl.api.evaluation": ("ComparisonResult", "EvaluationResult", "compare", "evaluate"),
    "swinssl.api.images": ("Image", "read_image", "write_image"),
    "swinssl.api.model": ("InputWarning", "Prediction", "TrainedModel", "load_model"),
    "swinssl.api.prediction": (
        *("PredictionEstimate", "PredictionJob", "PredictionResult"),
        *("open_prediction", "predict"),
    ),
    "swinssl.inference.prediction_record": ("PredictionOptions",),
    "swinssl.core.errors": ("Interrupted", "UserError"),
    "swinssl.api.training": (
        *("PretrainingEstimate", "TrainingEstimate", "TrainingResult"),
        *("estimate_pretraining", "estimate_training", "pretrain", "train"),
    ),
    "swinssl.ssl.config": ("PretrainingConfig",),
    "swinssl.training.config": ("TrainingConfig",),
    "swinssl.planning.options": ("PlanOptions",),
}
_MODULE_OF = {name: module for module, names in _NAMES_OF.items() for name in names}


if not TYPE_CHECKING:  # else checkers would take any name for an attribute

    def __getattr__(name: str) -> Any:
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'swinssl' has no attribute {name!r}")
        value = getattr(importlib.import_module(_MODULE_OF[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
