"""`loopctr bench score`: rows scored one by one through an export, and where a call's time goes."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from loopctr_tf.bench import machine
from loopctr_tf.bench.flops import flops_of
from loopctr_tf.bench.profile import calls_for, where_time_goes
from loopctr_tf.bench.session import check_depths, check_least, exported, run_signature
from loopctr_tf.bench.timing import repeated, speeds
from loopctr_tf.bench.workload import candidate_features, user_features, workload_schema
from loopctr_tf.training.settings import RunConfig


def bench_score(
    config: RunConfig | None = None,
    batch_sizes: Sequence[int] = (2048,),
    depths: Sequence[int] = (0,),
    history: int = 100,
    long_history: int = 0,
    seconds: float = 5.0,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measures ``loop_i`` signatures on made-up rows with full histories, each row of another user.

    Args:
      config: of the model.
      batch_sizes: rows a call.
      depths: loops i.
      history, long_history: events of a row.
      seconds: for each figure; five calls at least.
      say: takes lines about progress.

    Returns:
      ``scoring``: a row for each depth and batch size with ``loops``, ``batch_size``,
      ``examples_per_s``, ``flops_per_example`` (active experts), the rates and the share as in
      :func:`~loopctr_tf.bench.train.bench_train`, quantiles of a call, ``peak_memory_bytes`` (of the
      process in these calls, where the system tells) and ``where_time_goes``. Beside it ``machine``,
      ``history``, ``long_history``, ``parameters``, ``settings`` and ``training``.

    Raises:
      UsageError: for batch sizes below 1 and depths that the model does not have.
    """
    config = config or RunConfig()
    check_least("batch sizes", batch_sizes)
    check_depths(depths, config.model.max_loops)
    model = config.build_model(workload_schema(history, long_history))
    row = {**user_features(model.schema, 1), **candidate_features((1,))}
    row = {name: tf.constant(value) for name, value in row.items()}
    flops = {depth: flops_of(model.score, row, loops=depth) for depth in depths}
    rows = []
    say("exporting")
    with exported(model, [f"loop_{depth}" for depth in depths], depths) as session:
        for size in batch_sizes:
            features = {**user_features(model.schema, size), **candidate_features((size,))}
            for depth in depths:
                say(f"batches of {size}, {depth} loops")
                call = functools.partial(run_signature, session, f"loop_{depth}", features)
                machine.forget_peak_memory()
                times, rates = machine.beside_matmul_rate(
                    functools.partial(repeated, call, seconds), model.compute_dtype
                )
                peak = machine.peak_memory_bytes()
                found = speeds(times, size, flops[depth], rates)
                rows.append(
                    {
                        "loops": depth,
                        "batch_size": size,
                        **found,
                        "peak_memory_bytes": peak,
                        "where_time_goes": where_time_goes(call, calls_for(found["p50_ms"] / 1e3)),
                    }
                )
    return {
        "scoring": rows,
        "history": history,
        "long_history": long_history,
        "parameters": model.count_params(),
        "machine": machine.describe(),
        "model": config.name,
        "settings": config.model.to_dict(),
        "execution": config.execution.to_dict(),
        "training": config.training.to_dict(),
    }
