"""`loopctr bench train` and `bench input`: examples a second of training, and of reading alone."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from loopctr_tf import optimizers
from loopctr_tf.bench import machine
from loopctr_tf.bench.flops import training_work
from loopctr_tf.bench.timing import quantiles
from loopctr_tf.bench.workload import candidate_features, user_features, workload_model
from loopctr_tf.config import LoopCTRConfig
from loopctr_tf.errors import UsageError
from loopctr_tf.inputs import data_errors, read_dataset
from loopctr_tf.models import LoopCTR
from loopctr_tf.schema import Schema

_WARM = 2
"""Steps before the clock starts: the first is traced, the second optimised."""


def bench_train(
    settings: LoopCTRConfig | None = None,
    prepared: str | Path | None = None,
    batch_size: int = 256,
    history: int = 100,
    long_history: int = 0,
    seconds: float = 10.0,
) -> dict[str, Any]:
    """Measures training steps with AdamW on this machine's default device.

    Args:
      settings: of the model.
      prepared: a prepared folder; its training split is read into memory before the clock starts.
        None makes up rows with full histories.
      batch_size: rows a step.
      history, long_history: events of made-up rows.
      seconds: to measure for, after two warm-up steps.

    Returns:
      ``examples_per_s`` (median step), ``flops_per_example`` (active experts, mean history lengths),
      ``matmul_rate``, ``share_of_matmul_rate``, ``peak_memory_bytes``, ``first_step_s`` (tracing and
      building included), quantiles of a step, ``machine`` and ``settings``.
    """
    _check(batch_size, seconds)
    settings = settings or LoopCTRConfig()
    if prepared is None:
        model = workload_model(history, long_history, settings)
        batches = [_made_up(model.schema, batch_size)]
    else:
        model = LoopCTR(Schema.load(prepared), settings, name="loopctr")
        with data_errors():
            dataset = read_dataset(
                Path(prepared) / "train", batch_size=batch_size, shuffle=True, drop_remainder=True
            )
            batches = list(dataset.take(16))
    if not batches:
        raise UsageError(f"the training split has fewer than {batch_size} rows; give --batch-size")
    model.compile(optimizers.adamw(1e-3))
    lengths = {
        sequence.name: float(
            np.mean([features[sequence.length_name].numpy().mean() for features, _ in batches])
        )
        for sequence in model.schema.sequences
    }
    rate = machine.matmul_rate()
    step = model.make_train_function()
    rows = _repeated(batches)
    start = time.perf_counter()
    step(rows)
    first = time.perf_counter() - start
    for _ in range(_WARM - 1):
        step(rows)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        float(step(rows)["loss"])
        times.append(time.perf_counter() - start)
    flops = training_work(model, lengths)
    speed = batch_size / float(np.median(times))
    return {
        "examples_per_s": speed,
        "flops_per_example": flops,
        "matmul_rate": rate,
        "share_of_matmul_rate": speed * flops / rate,
        "peak_memory_bytes": machine.peak_memory_bytes(),
        "first_step_s": first,
        **quantiles(times),
        "batch_size": batch_size,
        "mean_lengths": lengths,
        "parameters": model.count_params(),
        "machine": machine.describe(),
        "settings": settings.to_dict(),
    }


def bench_input(
    prepared: str | Path,
    batch_size: int = 512,
    seconds: float = 10.0,
    shuffle: bool = True,
    deterministic: bool = True,
) -> dict[str, Any]:
    """Measures how fast the training split of a prepared folder is read, shuffled and parsed.

    Args:
      prepared: the folder.
      batch_size: rows a batch.
      seconds: to measure for; the split is read again and again.
      shuffle, deterministic: of :func:`~loopctr_tf.inputs.read_dataset`.

    Returns:
      ``examples_per_s``, ``batches``, ``peak_memory_bytes``, ``machine``.
    """
    _check(batch_size, seconds)
    with data_errors():
        dataset = read_dataset(
            Path(prepared) / "train",
            batch_size=batch_size,
            shuffle=shuffle,
            deterministic=deterministic,
        )
        batches = iter(dataset.repeat())
        next(batches)  # fills the shuffle buffer
        rows = count = 0
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            _, label = next(batches)
            rows += int(label.shape[0])
            count += 1
        passed = time.perf_counter() - start
    return {
        "examples_per_s": rows / passed,
        "batches": count,
        "batch_size": batch_size,
        "peak_memory_bytes": machine.peak_memory_bytes(),
        "machine": machine.describe(),
    }


def _check(batch_size: int, seconds: float) -> None:
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size!r}; give 1 or more")
    if seconds < 0:
        raise UsageError(f"seconds is {seconds!r}; give 0 or more")


def _made_up(schema: Schema, rows: int):
    features = {**user_features(schema, rows), **candidate_features((rows,))}
    label = np.random.default_rng(2).integers(0, 2, rows).astype(np.float32)
    return {name: tf.constant(value) for name, value in features.items()}, tf.constant(label)


def _repeated(batches) -> Iterator:
    specs = tf.nest.map_structure(
        lambda tensor: tf.TensorSpec([None] * tensor.shape.rank, tensor.dtype), batches[0]
    )

    def endless():
        while True:
            yield from batches

    return iter(tf.data.Dataset.from_generator(endless, output_signature=specs))
