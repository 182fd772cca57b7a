"""Training steps on batches in memory, for the benchmarks of training."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from loopctr_tf.bench.workload import candidate_features, user_features
from loopctr_tf.errors import UsageError
from loopctr_tf.features.dataset import data_errors, read_dataset
from loopctr_tf.features.schema import Schema
from loopctr_tf.training.settings import TrainingConfig
from loopctr_tf.training.train import compile_model

_BATCHES = 16


class TrainingSteps:
    """Each call runs one step of ``model`` on the next batch and returns the loss.

    Args:
      model: not compiled yet.
      training: what it is compiled with.
      batches: of (features, label), repeated.
    """

    def __init__(self, model, training: TrainingConfig, batches: Sequence):
        if training.strategy != "none":
            raise UsageError(f"strategy is {training.strategy!r}; benchmarks run on one device")
        compile_model(model, training)
        self.model = model
        self._step = model.make_train_function()
        self._rows = iter(_again_and_again(batches))

    def __call__(self) -> float:
        """Runs one step and waits for it."""
        return float(self._step(self._rows)["loss"])


def made_up_batches(schema: Schema, batch_size: int, count: int = 1) -> list:
    """Batches for a schema of :mod:`loopctr_tf.bench.workload`, with full histories."""

    def batch(seed: int):
        users = user_features(schema, batch_size, 2 * seed)
        features = {**users, **candidate_features((batch_size,), 2 * seed + 1)}
        label = np.random.default_rng(seed).integers(0, 2, batch_size).astype(np.float32)
        return {name: tf.constant(value) for name, value in features.items()}, tf.constant(label)

    return [batch(seed) for seed in range(count)]


def prepared_batches(prepared: str | Path, batch_size: int) -> list:
    """The first batches of a prepared folder's training split, shuffled."""
    with data_errors():
        dataset = read_dataset(
            Path(prepared) / "train", batch_size=batch_size, shuffle=True, drop_remainder=True
        )
        batches = list(dataset.take(_BATCHES))
    if not batches:
        raise UsageError(f"the training split has fewer than {batch_size} rows; give --batch-size")
    return batches


def lengths(schema: Schema, batches: Sequence) -> dict[str, dict[str, float]]:
    """``mean_lengths`` of the rows and ``padded_lengths``, the batches' mean, both by sequence."""
    rows, batch = {}, {}
    for sequence in schema.sequences:
        counts = [features[sequence.length_name].numpy() for features, *_ in batches]
        padded = [features[sequence.fields[0].name].shape[1] for features, *_ in batches]
        rows[sequence.name] = float(np.concatenate(counts).mean())
        batch[sequence.name] = float(np.mean(padded))
    return {"mean_lengths": rows, "padded_lengths": batch}


def _again_and_again(batches: Sequence) -> tf.data.Dataset:
    """Repeats without passing through Python, with unknown shapes, like batches from files."""
    datasets = [tf.data.Dataset.from_tensors(batch).map(_of_unknown_shape) for batch in batches]
    return functools.reduce(tf.data.Dataset.concatenate, datasets).repeat().prefetch(1)


def _of_unknown_shape(*batch):
    return tf.nest.map_structure(
        lambda tensor: tf.compat.v1.placeholder_with_default(tensor, [None] * tensor.shape.rank),
        batch,
    )
