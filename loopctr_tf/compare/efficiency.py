"""What scoring costs: parameters, operations, latency and memory of each system, in one process."""

import gc
from pathlib import Path
from typing import Any

import tensorflow as tf

from loopctr_tf.bench import machine
from loopctr_tf.bench.flops import flops_of
from loopctr_tf.bench.timing import in_turns, quantiles
from loopctr_tf.compare.protocol import Comparison
from loopctr_tf.compare.runs import chosen
from loopctr_tf.features.dataset import read_dataset
from loopctr_tf.features.schema import Schema
from loopctr_tf.scoring.server.saved_model import release_freed_memory
from loopctr_tf.training.optimizers.row_sparse import is_table

BATCH = 2048
_COUNTED = 64
"""Rows of the eager call in which operations are counted."""


def measure(
    out: Path, prepared: Path, comparison: Comparison, seconds: float = 60.0
) -> dict[str, Any]:
    """Measures every head of every system on a batch of the validation split.

    All systems are called in turn, so that a disturbance meets all of them, and ratios hold although
    times drift. Weights are fresh ones: they do not change what is measured.

    Args:
      out: folder of the comparison, with the settings that the search chose.
      prepared: prepared folder.
      comparison: its systems; ablations are left out.
      seconds: of the timed calls, all systems together.

    Returns:
      ``machine``, ``batch_size``, and ``heads``: rows with ``row``, ``head``, ``parameters`` and
      ``dense_parameters`` (beside the tables; at zero loops without the Loop Block, which is not
      deployed), ``flops`` (a sample, padded like the batch), ``p50_ms``, ``p95_ms`` (a batch) and
      ``peak_memory_bytes`` (of a call: on a GPU the device's, else what the process takes beyond what it
      held before).
    """
    batch = _batch(prepared)
    systems = [row for row in comparison.rows() if row.kind == "system"]
    rows, calls = [], []
    for row in systems:
        model = comparison.config(row, chosen(out, row)["choice"]).build_model(
            Schema.load(prepared)
        )
        few = {name: value[:_COUNTED] for name, value in batch.items()}
        for head in model.heads:
            unused = "loop_block" if model.loops_of(head) == 0 else None
            dense = sum(
                weight.shape.num_elements()
                for weight in model.trainable_weights
                if not is_table(weight) and not (unused and unused in weight.name)
            )
            rows.append(
                {
                    "row": row.name,
                    "head": head,
                    "parameters": model.count_params(),
                    "dense_parameters": dense,
                    "flops": flops_of(model.score, few, head=head) / _COUNTED,
                }
            )
            calls.append(_call(model, head, batch))
    for call, figures in zip(calls, rows, strict=True):
        call()
        figures["peak_memory_bytes"] = _peak(call)
    for times, figures in zip(in_turns(calls, seconds), rows, strict=True):
        figures.update(quantiles(times))
    return {"machine": machine.describe(), "batch_size": BATCH, "heads": rows}


def _batch(prepared: Path) -> dict[str, tf.Tensor]:
    """:data:`BATCH` rows of the validation split, repeated where it has fewer."""
    schema = Schema.load(prepared)
    dataset = read_dataset(prepared / "valid", schema, batch_size=BATCH)
    features, *_ = next(iter(dataset))
    places = tf.range(BATCH) % tf.shape(next(iter(features.values())))[0]
    return {name: tf.gather(features[name], places) for name in schema.inputs}


def _peak(call) -> int:
    if tf.config.list_physical_devices("GPU"):
        tf.config.experimental.reset_memory_stats("GPU:0")
        call()
        return tf.config.experimental.get_memory_info("GPU:0")["peak"]
    gc.collect()
    release_freed_memory()  # or the call would take what the one before left with the allocator
    machine.forget_peak_memory()
    before = machine.peak_memory_bytes()
    call()
    return max(machine.peak_memory_bytes() - before, 0)


def _call(model, head: str, batch):
    score = tf.function(lambda features: model.score(features, head=head), autograph=False)
    return lambda: score(batch).numpy()
