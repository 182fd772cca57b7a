"""The run folder: what a training leaves behind, and how a model is made from it again.

``config.yaml``, ``schema.yaml`` (with ``vocab/``), ``metrics.json``, ``logs/`` (TensorBoard),
``checkpoints/`` (weights of every epoch) and ``weights/`` (those of the best one). ``metrics.json`` is
written last: a run without it did not end.
"""

import json
from pathlib import Path
from typing import Any

from loopctr_tf.errors import UsageError
from loopctr_tf.features.schema import Schema
from loopctr_tf.training.settings import RunConfig

CONFIG = "config.yaml"
METRICS = "metrics.json"
BEST_WEIGHTS = "weights/best.weights.h5"


def load_run(run: str | Path, precision: str | None = None):
    """(model with the best weights, RunConfig) of a finished run.

    Args:
      run: run folder.
      precision: another ``execution.precision`` than that of training; weights are the same.

    Raises:
      UsageError: for a folder that is not a run folder, a run that did not end, or an unknown precision.
    """
    run = Path(run)
    read_metrics(run)
    overrides = [] if precision is None else [f"execution.precision={precision}"]
    config = RunConfig.load(run / CONFIG, overrides)
    model = config.build_model(Schema.load(run))
    weights = run / BEST_WEIGHTS
    if not weights.is_file():
        raise UsageError(f"run {str(run)!r} has no {BEST_WEIGHTS}; train again")
    try:
        model.load_weights(weights)
    except (OSError, ValueError, KeyError) as error:
        problem = " ".join(str(error).split())[:200]
        raise UsageError(f"weights {str(weights)!r} cannot be read: {problem}") from error
    return model, config


def read_metrics(run: str | Path) -> dict[str, Any]:
    """``metrics.json`` of a finished run; UsageError where there is none."""
    run = Path(run)
    if not (run / CONFIG).is_file():
        raise UsageError(
            f"{str(run)!r} is not a run folder: it has no {CONFIG}; make one with `loopctr train`"
        )
    try:
        return json.loads((run / METRICS).read_text())
    except OSError as error:
        raise UsageError(
            f"run {str(run)!r} did not end: no {METRICS} in it; train again into a new folder"
        ) from error
    except ValueError as error:
        raise UsageError(f"{str(run / METRICS)!r} is not JSON ({error}); train again") from error
