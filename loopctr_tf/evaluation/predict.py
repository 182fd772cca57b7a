"""A model's probabilities on a split, and exact metrics of every head."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from loopctr_tf.errors import UsageError
from loopctr_tf.evaluation import exact
from loopctr_tf.features.dataset import data_errors, read_dataset


class Predictions(NamedTuple):
    """What a model says of a split, in the order of its rows.

    Attributes:
      labels: [n].
      groups: [n], the column that GAUC groups by.
      probabilities: [n, heads].
      heads: names of the columns of ``probabilities``.
    """

    labels: np.ndarray
    groups: np.ndarray
    probabilities: np.ndarray
    heads: tuple[str, ...]


def predict(model, dataset: Iterable, loops: int | None = None) -> Predictions:
    """Probabilities of every head over a dataset.

    Args:
      model: any registered model.
      dataset: batches of ``read_dataset(..., group=True)``.
      loops: deepest depth, of models that have loops; those of training by default.

    Raises:
      UsageError: for a depth that the model cannot run at, or rows that do not follow its schema.
    """
    import tensorflow as tf

    from loopctr_tf.models.base import probabilities

    heads, group = model.heads_to(loops), model.schema.group
    specs = {name: each.tensor_spec() for name, each in model.schema.inputs.items()}

    # The sizes are left open, so that batches of any size and length share one graph.
    @tf.function(autograph=False, input_signature=[specs])
    def forward(features):
        return probabilities(model.scores(features, False, heads).logits)

    labels, groups, scored = [], [], []
    with data_errors():
        for features, label, *_ in dataset:  # weights are of training
            if group not in features:
                raise UsageError(
                    f"the dataset has no group column {group!r}; read it with group=True"
                )
            groups.append(features[group].numpy())
            scored.append(forward({name: features[name] for name in specs}).numpy())
            labels.append(label.numpy())
    return Predictions(*map(np.concatenate, (labels, groups, scored)), heads)


def head_metrics(model, predictions: Predictions) -> list[dict[str, Any]]:
    """One row a head: ``model``, ``head``, ``loops`` where it has one, and exact metrics.

    The metrics are those of :func:`~loopctr_tf.evaluation.exact.evaluate_scores`.
    """
    rows = []
    for column, head in enumerate(predictions.heads):
        row = {"model": type(model).__name__, "head": head}
        if (loops := model.loops_of(head)) is not None:
            row["loops"] = loops
        scores = predictions.probabilities[:, column]
        rows.append(
            {**row, **exact.evaluate_scores(predictions.labels, scores, predictions.groups)}
        )
    return rows


def evaluate_run(
    model,
    prepared: str | Path,
    split: str = "test",
    loops: int | None = None,
    batch_size: int = 1024,
) -> tuple[list[dict[str, Any]], Predictions]:
    """Exact metrics of ``model`` by head on a split of a prepared folder, and its predictions.

    The model's own schema reads the rows, so that a shorter history than was prepared stays short.
    """
    dataset = read_dataset(Path(prepared) / split, model.schema, batch_size=batch_size, group=True)
    predictions = predict(model, dataset, loops)
    return head_metrics(model, predictions), predictions
