"""`loopctr bench score`: rows scored one by one through an export, and where a call's time goes."""

import functools
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from loopctr_tf.bench.flops import flops_of
from loopctr_tf.bench.profile import profiled
from loopctr_tf.bench.report import Log, check_least, described, silent
from loopctr_tf.bench.session import exported, heads_at, pointwise, run_signature
from loopctr_tf.bench.workload import candidate_features, user_features, workload_schema
from loopctr_tf.training.settings import RunConfig


def bench_score(
    config: RunConfig | None = None,
    batch_sizes: Sequence[int] = (2048,),
    loops: Sequence[int] | None = None,
    history: int = 100,
    long_history: int = 0,
    seconds: float = 5.0,
    log: Log = silent,
) -> dict[str, Any]:
    """Measures pointwise signatures on made-up rows with full histories, each row of another user.

    Args:
      config: of the model.
      batch_sizes: rows a call.
      loops: the depths of a model with loops; None means the served head, of any model.
      history, long_history: events of a row.
      seconds: for each figure; five calls at least.
      log: takes lines about progress.

    Returns:
      ``scoring``: a row for each head and batch size with ``head``, ``loops`` (None where the model has
      none), ``batch_size``, ``examples_per_s``, ``flops_per_example`` (active experts), the rates and
      the share as in :func:`~loopctr_tf.bench.train.bench_train`, quantiles of a call,
      ``peak_memory_bytes`` (of the process in these calls, where the system tells) and
      ``where_time_goes``. Beside it ``history``, ``long_history``, ``parameters``, and what
      :func:`~loopctr_tf.bench.report.described` gives.

    Raises:
      UsageError: for batch sizes below 1 and depths that the model does not have.
    """
    config = config or RunConfig()
    check_least("batch sizes", batch_sizes)
    model = config.build_model(workload_schema(history, long_history))
    heads = heads_at(model, loops) or (model.served,)
    row = {**user_features(model.schema, 1), **candidate_features((1,))}
    row = {name: tf.constant(value) for name, value in row.items()}
    flops = {head: flops_of(model.score, row, head=head) for head in heads}
    rows = []
    log("exporting")
    with exported(model, list(map(pointwise, heads)), heads) as session:
        for size in batch_sizes:
            features = {**user_features(model.schema, size), **candidate_features((size,))}
            for head in heads:
                log(f"batches of {size}, {head or config.name}")
                call = functools.partial(run_signature, session, pointwise(head), features)
                found = profiled(call, seconds, size, flops[head], model.compute_dtype)
                about = {"head": head, "loops": model.loops_of(head), "batch_size": size}
                rows.append({**about, **found})
    return {
        "scoring": rows,
        "history": history,
        "long_history": long_history,
        "parameters": model.count_params(),
        **described(config),
    }
