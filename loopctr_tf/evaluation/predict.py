"""Exact metrics of a model at every loop depth."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from loopctr_tf.errors import UsageError
from loopctr_tf.evaluation import exact as metrics
from loopctr_tf.features.dataset import data_errors, read_dataset


class Predictions(NamedTuple):
    """Labels [n], groups [n] and probabilities [n, depths] of a split, in the order of its rows."""

    labels: np.ndarray
    groups: np.ndarray
    probabilities: np.ndarray


def predict_depths(model, dataset: Iterable, loops: int | None = None) -> Predictions:
    """Probabilities at depths 0..``loops`` (default: those of training) over a dataset.

    Args:
      model: a LoopCTR or StackCTR.
      dataset: batches of ``read_dataset(..., group=True)``.
      loops: deepest depth.

    Raises:
      UsageError: for a depth that the model cannot run at, or rows that are not of its schema.
    """
    import tensorflow as tf

    loops = model.checked_loops(loops)
    group = model.schema.group

    specs = {
        name: tf.TensorSpec(spec.shape, tf.as_dtype(spec.dtype))
        for name, spec in model.schema.input_specs().items()
    }

    # The sizes are left open, so that batches of any size and length share one graph.
    @tf.function(autograph=False, input_signature=[specs])
    def forward(features):
        return tf.sigmoid(tf.cast(model(features, loops=loops, training=False), tf.float32))

    labels, groups, probabilities = [], [], []
    with data_errors():
        for features, label in dataset:
            if group not in features:
                raise UsageError(
                    f"the dataset has no group column {group!r}; read it with group=True"
                )
            groups.append(features[group].numpy())
            inputs = {name: features[name] for name in specs}
            probabilities.append(forward(inputs).numpy())
            labels.append(label.numpy())
    return Predictions(*map(np.concatenate, (labels, groups, probabilities)))


def depth_metrics(predictions: Predictions) -> list[dict[str, Any]]:
    """One row a depth: ``loops`` and everything of ``metrics.evaluate_scores``."""
    labels, groups, probabilities = predictions
    return [
        {"loops": loops, **metrics.evaluate_scores(labels, probabilities[:, loops], groups)}
        for loops in range(probabilities.shape[1])
    ]


def evaluate_run(
    model,
    prepared: str | Path,
    split: str = "test",
    loops: int | None = None,
    batch_size: int = 1024,
) -> tuple[list[dict[str, Any]], Predictions]:
    """Exact metrics of ``model`` by depth on a split of a prepared folder, and what they are made of.

    The model's own schema reads the rows, so that a shorter history than was prepared stays short.
    """
    dataset = read_dataset(Path(prepared) / split, model.schema, batch_size=batch_size, group=True)
    predictions = predict_depths(model, dataset, loops)
    return depth_metrics(predictions), predictions
