"""Training steps of the library against LoopCTR written down straight from its equations.

Both models have the same weights, and must give the same logits at every depth and the same loss before
anything is timed. Then their steps take turns in one process, so that what the machine does besides
meets both alike. The straightforward step (see plain_model.py) is one uncompiled tf.function with
Keras's AdamW over everything. Under --xla all of it but the look-up of strings is compiled, and of the
library's step what its setting xla=True compiles.

    python benchmarks/straightforward.py
    python benchmarks/straightforward.py --xla --dispatch batched --batch-size 64 --json
"""

import json
import sys

import click
import numpy as np
import tensorflow as tf
import tf_keras as keras
from plain_model import PlainLoopCTR

from loopctr_tf.bench import machine
from loopctr_tf.bench.flops import training_flops
from loopctr_tf.bench.steps import TrainingSteps, made_up_batches
from loopctr_tf.bench.tables import table
from loopctr_tf.bench.timing import in_turns, speeds
from loopctr_tf.bench.workload import workload_schema
from loopctr_tf.models import LoopCTR
from loopctr_tf.models.loopctr.settings import LoopCTRConfig
from loopctr_tf.models.settings import ExecutionConfig
from loopctr_tf.training.settings import TrainingConfig

LEARNING_RATE, WEIGHT_DECAY, CLIP_NORM = 1e-3, 1e-2, 1.0
TOLERANCE = 1e-4
CHECKED_ROWS = 8
"""Few, because a token whose second and third expert are level may go to either."""


def straightforward_step(plain: PlainLoopCTR, batch, xla: bool = False):
    """A call is one step of ``plain`` on ``batch`` (features, label), to its end: the loss."""
    optimizer = keras.optimizers.AdamW(
        LEARNING_RATE, weight_decay=WEIGHT_DECAY, global_clipnorm=CLIP_NORM
    )
    optimizer.build(plain.trainable_variables)

    def learn(rows, labels):
        with tf.GradientTape() as tape:
            loss = plain.loss(labels, *plain(rows))
        optimizer.minimize(loss, plain.trainable_variables, tape=tape)
        return loss

    compiled = tf.function(learn, jit_compile=True) if xla else learn

    @tf.function
    def step(features, labels):
        return compiled(plain.lookup(features), labels)

    return lambda: float(step(*batch))


def differences(ours, plain: PlainLoopCTR, seed: int = 0) -> dict[str, float]:
    """Largest difference of logits and difference of losses, at random weights and ragged histories.

    ``ours`` is compiled. Both models keep the weights that ``ours`` came with.
    """
    start, rng = ours.get_weights(), np.random.default_rng(seed)
    # As they start, experts are copies and hyper-connections plain residuals: anything would be equal.
    ours.set_weights(
        [w + 0.1 * rng.standard_normal(w.shape).astype(w.dtype) for w in ours.get_weights()]
    )
    plain.take_weights(ours)
    ((features, labels),) = made_up_batches(ours.schema, CHECKED_ROWS)
    (sequence,) = ours.schema.sequences
    lengths = np.linspace(0, sequence.max_length, CHECKED_ROWS).astype(np.int32)
    features[sequence.length_name] = tf.constant(lengths)
    logits, losses = ours.scores(features, True, ours.heads)
    others, balance = plain(plain.lookup(features))
    loss = ours.objective(labels, logits, losses) - plain.loss(labels, others, balance)
    ours.set_weights(start)
    plain.take_weights(ours)
    return {"logits": float(tf.reduce_max(abs(logits - others))), "loss": abs(float(loss))}


def compare(config, execution: ExecutionConfig, history, batch_size, table_optimizer, seconds):
    """What is printed; exits where the models differ by more than :data:`TOLERANCE`."""
    ours = LoopCTR(workload_schema(history), config, execution, name="loopctr")
    batches = made_up_batches(ours.schema, batch_size)
    training = TrainingConfig(
        learning_rate=LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
        clip_norm=CLIP_NORM,
        table_optimizer=table_optimizer,
    )
    step = TrainingSteps(ours, training, batches)
    plain = PlainLoopCTR(ours)
    found = differences(ours, plain)
    if max(found.values()) > TOLERANCE:
        sys.exit(f"the models differ by {found}; no ratio where they are not the same model")
    plain_step = straightforward_step(plain, batches[0], execution.xla)
    (slow, fast), rates = machine.beside_matmul_rate(lambda: in_turns([plain_step, step], seconds))
    work = training_flops(ours, batches)
    return {
        "ratio": float(np.median(np.divide(slow, fast))),
        "straightforward": speeds(slow, batch_size, work, rates),
        "library": speeds(fast, batch_size, work, rates),
        "difference": found,
        "batch_size": batch_size,
        "history": history,
        "table_optimizer": table_optimizer,
        "settings": config.to_dict(),
        "execution": execution.to_dict(),
        "dispatch": execution.dispatch,
        "machine": machine.describe(),
    }


def text(found) -> str:
    """For people."""
    rows = [{"step": name, **found[name]} for name in ("straightforward", "library")]
    columns = (
        "step {step}; examples/s {examples_per_s:.1f}; p50 ms {p50_ms:.0f}; steps {calls}; "
        "share of the matrix-product rate {share_of_matmul_rate:.1%}"
    )
    rates = found["library"]
    return "\n".join(
        [
            table(rows, columns),
            "",
            f"The library's steps are {found['ratio']:.2f} times as fast (median of rounds); "
            f"logits differ by {found['difference']['logits']:.1e} at most.",
            f"{rates['flops_per_example'] / 1e6:,.0f} MFLOP an example (active experts); float32 "
            f"products {rates['matmul_rate'] / 1e9:.0f} GFLOP/s (before "
            f"{rates['matmul_rate_before'] / 1e9:.0f}, after {rates['matmul_rate_after'] / 1e9:.0f}).",
        ]
    )


@click.command()
@click.option("--history", default=100, show_default=True, help="Events; 4 globals come on top.")
@click.option("--dim", default=64, show_default=True)
@click.option("--heads", default=4, show_default=True)
@click.option("--ffn-dim", default=256, show_default=True)
@click.option("--experts", default=4, show_default=True)
@click.option("--active-experts", default=2, show_default=True)
@click.option("--streams", default=2, show_default=True)
@click.option("--loops", default=3, show_default=True)
@click.option("--batch-size", default=128, show_default=True)
@click.option("--dispatch", default="auto", show_default=True, help="The library's.")
@click.option("--table-optimizer", default="adamw", show_default=True, help="The library's.")
@click.option("--xla", is_flag=True, help="Compiles both.")
@click.option("--seconds", default=60.0, show_default=True, help="Five rounds at least.")
@click.option("--json", "as_json", is_flag=True)
def main(history, batch_size, dispatch, table_optimizer, xla, seconds, as_json, **sizes):
    """Examples a second of both, and their ratio."""
    sizes["max_loops"] = max(sizes["loops"], 8)
    try:
        # The plain version has the norm before the tower; zeros at first would hide a difference.
        config = LoopCTRConfig(**sizes, global_norm=True, zero_outputs=False)
        execution = ExecutionConfig(expert_dispatch=dispatch, xla=xla)
        found = compare(config, execution, history, batch_size, table_optimizer, seconds)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    click.echo(json.dumps(found, indent=2) if as_json else text(found))


if __name__ == "__main__":
    main()
