"""Exact NumPy metrics for reports, and Keras metrics that add up over batches and replicas.

Only the Keras metrics need TensorFlow; they are loaded on first use.
"""

import importlib

from loopctr_tf.evaluation.exact import (
    EPSILON,
    WEIGHTINGS,
    GAUCResult,
    auc,
    calibration,
    evaluate_scores,
    gauc,
    log_loss,
    normalized_entropy,
)

_KERAS = ("Calibration", "GroupAUC", "NormalizedEntropy")

__all__ = [
    "EPSILON",
    "WEIGHTINGS",
    "Calibration",
    "GAUCResult",
    "GroupAUC",
    "NormalizedEntropy",
    "auc",
    "calibration",
    "evaluate_scores",
    "gauc",
    "log_loss",
    "normalized_entropy",
]


def __getattr__(name: str):
    if name in _KERAS:
        return getattr(importlib.import_module("loopctr_tf.evaluation.keras_metrics"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
