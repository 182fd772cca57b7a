"""`loopctr bench train`: examples a second of training, and where a step's time goes."""

import time
from pathlib import Path
from typing import Any

from loopctr_tf.bench import machine
from loopctr_tf.bench.flops import training_flops
from loopctr_tf.bench.kinds import OPTIMIZER
from loopctr_tf.bench.profile import profiled
from loopctr_tf.bench.report import check_least, described
from loopctr_tf.bench.steps import TrainingSteps, lengths, made_up_batches, prepared_batches
from loopctr_tf.bench.workload import workload_schema
from loopctr_tf.features.schema import Schema
from loopctr_tf.training.settings import RunConfig


def bench_train(
    config: RunConfig | None = None,
    prepared: str | Path | None = None,
    batch_size: int = 256,
    history: int = 100,
    long_history: int = 0,
    seconds: float = 10.0,
) -> dict[str, Any]:
    """Measures training steps on this machine's default device.

    Args:
      config: of model and training; ``batch_size`` replaces the one in it.
      prepared: a prepared folder; its training split is read into memory before the clock starts.
        By default rows are made up, with full histories.
      batch_size: rows a step.
      history, long_history: events of made-up rows.
      seconds: to measure for, five steps at least, after three warm-up steps.

    Returns:
      ``examples_per_s`` (median step), ``flops_per_example`` (active experts only, padding
      included), ``matmul_rate`` and its parts (see
      :func:`~loopctr_tf.bench.machine.beside_matmul_rate`), ``share_of_matmul_rate``, quantiles of a
      step, ``peak_memory_bytes`` (of the process, with tracing and building),
      ``steps_memory_bytes`` (peak in the timed steps, on Linux), ``first_step_s``,
      ``where_time_goes`` (see :func:`~loopctr_tf.bench.profile.where_time_goes`), ``batch_size``,
      ``mean_lengths``, ``padded_lengths``, ``parameters``, and what
      :func:`~loopctr_tf.bench.report.described` gives.

    Raises:
      UsageError: for a batch size below 1 or above the split's rows, and for a strategy.
    """
    config = config or RunConfig()
    check_least("batch sizes", [batch_size])
    if prepared is None:
        schema = workload_schema(history, long_history)
        batches = made_up_batches(schema, batch_size)
    else:
        schema = Schema.load(prepared)
        batches = prepared_batches(prepared, batch_size)
    model = config.build_model(schema)
    step = TrainingSteps(model, config.training, batches)
    start = time.perf_counter()
    step()
    first = time.perf_counter() - start
    peak = machine.peak_memory_bytes()
    flops = training_flops(model, batches)
    optimizer = {model.optimizer.name: OPTIMIZER}
    found = profiled(step, seconds, batch_size, flops, model.compute_dtype, optimizer)
    return {
        **found,
        "peak_memory_bytes": max(peak, found["peak_memory_bytes"]),
        "steps_memory_bytes": found["peak_memory_bytes"],
        "first_step_s": first,
        "batch_size": batch_size,
        **lengths(schema, batches),
        "parameters": model.count_params(),
        **described(config, batch_size=batch_size),
    }
