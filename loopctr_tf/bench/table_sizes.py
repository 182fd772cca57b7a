"""`loopctr bench tables`: the time of a training step by the number of rows of an embedding table."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from loopctr_tf.bench import machine
from loopctr_tf.bench.report import Log, check_least, described, silent
from loopctr_tf.bench.steps import TrainingSteps, made_up_batches
from loopctr_tf.bench.tables import bytes_in_words
from loopctr_tf.bench.timing import in_turns, quantiles
from loopctr_tf.bench.workload import workload_schema
from loopctr_tf.errors import UsageError
from loopctr_tf.training.settings import RunConfig

_BATCHES = 4
_COPIES = 3
"""A table and AdamW's two moments; with row-wise Adagrad it is one, and a figure a row."""
_WORKING_COPIES = 6
"""Extra copies of the largest table while Keras's dense update runs; measured on a CPU."""
_STARTING_COPIES = 2
"""Extra copies of the largest table while its first values are drawn."""
_MARGIN = 1.25
"""For what steps need at any table size."""


def bench_tables(
    config: RunConfig | None = None,
    table_rows: Sequence[int] = (10_000, 1_000_000),
    batch_size: int = 256,
    history: int = 100,
    seconds: float = 10.0,
    log: Log = silent,
) -> dict[str, Any]:
    """Measures training steps of models that differ in the rows of the item table alone.

    All sizes are in memory at the same time; their steps are interleaved, on the same made-up batches.
    Memory: rows x width x 4 bytes, three times with AdamW (table and two moments), and of the
    largest table six times more while a dense update runs.

    Args:
      config: of model and training; ``table_optimizer`` is what is to be compared.
      table_rows: sizes.
      batch_size: rows of data a step.
      history: events of a row.
      seconds: for each size; five steps at least.
      log: takes lines about progress.

    Returns:
      ``tables``: rows of ``table_rows``, quantiles of a step, ``times_smallest`` (the median over turns
      of the step's time over that of the smallest table) and ``state_bytes`` (all weights and what the
      optimizer keeps); ``distinct_ids`` (items in a batch, on average: a table has no more rows
      touched), ``batch_size``, ``history``, ``peak_memory_bytes``, and what
      :func:`~loopctr_tf.bench.report.described` gives.

    Raises:
      UsageError: for sizes below 1, or where the memory at hand does not hold them.
    """
    config = config or RunConfig()
    check_least("table rows", table_rows)
    check_least("batch sizes", [batch_size])
    sizes = sorted(set(table_rows))
    _check_memory(sizes, config)
    batches = made_up_batches(workload_schema(history), batch_size, _BATCHES)
    steps = []
    for size in sizes:
        log(f"a table of {size:,} rows: the first step")
        model = config.build_model(workload_schema(history, item_buckets=size))
        steps.append(TrainingSteps(model, config.training, batches))
        steps[-1]()
    log("steps in turns")
    times = in_turns(steps, seconds * len(steps))
    smallest = np.array(times[0])
    return {
        "tables": [
            {
                "table_rows": size,
                **quantiles(taken),
                "times_smallest": float(np.median(np.array(taken) / smallest)),
                "state_bytes": _state_bytes(step.model),
            }
            for size, step, taken in zip(sizes, steps, times, strict=True)
        ],
        "distinct_ids": float(np.mean([_distinct_items(features) for features, _ in batches])),
        "batch_size": batch_size,
        "history": history,
        "peak_memory_bytes": machine.peak_memory_bytes(),
        **described(config, batch_size=batch_size),
    }


def _check_memory(sizes: Sequence[int], config: RunConfig) -> None:
    there, training = machine.available_memory_bytes(), config.training
    if tf.config.list_physical_devices("GPU"):
        return
    width = config.model.embedding_dim or config.model.dim
    kept = 1 if training.table_optimizer == "rowwise_adagrad" else _COPIES
    dense = training.table_optimizer == "adamw" or training.ema_momentum > 0
    working = _WORKING_COPIES if dense else _STARTING_COPIES
    needed = _MARGIN * 4 * width * (kept * sum(sizes) + working * max(sizes))
    if needed > there:
        raise UsageError(
            f"table rows are {sizes}, which takes about {bytes_in_words(needed)} with table_optimizer "
            f"{training.table_optimizer!r}, and {bytes_in_words(there)} are at hand; give fewer rows"
            + (", or --set table_optimizer=lazy_adamw" if dense else ", or a smaller embedding_dim")
        )


def _state_bytes(model) -> int:
    variables = [*model.variables, *model.optimizer.variables]
    return sum(v.shape.num_elements() * v.dtype.size for v in variables)


def _distinct_items(features) -> int:
    items = [features["item_id"], features["clicks_item"]]
    return len(np.unique(np.concatenate([values.numpy().ravel() for values in items])))
