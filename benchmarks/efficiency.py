"""What zero-loop LoopCTR costs beside other systems of the same width, called in turn in one process.

Rows are scored one by one, each with a full history of its own, in batches; then one user against as
many candidates, with whatever the system computes once a user. Weights are fresh: they cost the same.

    python benchmarks/efficiency.py --history 100
    python benchmarks/efficiency.py --history 50 --long-history 1024 --rows 256
"""

import json
from pathlib import Path

import click
import tensorflow as tf

import loopctr_tf as lc
from loopctr_tf.bench import machine
from loopctr_tf.bench.flops import flops_of
from loopctr_tf.bench.timing import in_turns, quantiles
from loopctr_tf.bench.workload import candidate_features, user_features, workload_schema
from loopctr_tf.evaluation.report import markdown_table
from loopctr_tf.models import MODELS, model_class

_SAMPLE = 16
"""Rows of the eager call in which operations are counted."""


def pointwise(model, head: str, rows: int):
    """A call of ``model.score`` on ``rows`` rows."""
    features = {**user_features(model.schema, rows), **candidate_features((rows,))}
    tensors = {name: tf.constant(value) for name, value in features.items()}
    score = tf.function(lambda features: model.score(features, head=head), autograph=False)
    few = {name: value[:_SAMPLE] for name, value in tensors.items()}
    return lambda: score(tensors).numpy(), flops_of(model.score, few, head=head) / _SAMPLE


def one_user(model, head: str, candidates: int):
    """A call that ranks ``candidates`` of one user, from raw features."""
    user = {name: tf.constant(value) for name, value in user_features(model.schema, 1).items()}
    items = candidate_features((1, candidates))
    items = {name: tf.constant(value) for name, value in items.items()}

    @tf.function(autograph=False)
    def rank(user, items):
        (state,) = model.encode_user(model.encoder(user), (head,))
        return model.rank(state, model.encoder(items), head)

    return lambda: rank(user, items).numpy()


@click.command()
@click.option("--history", default=100, show_default=True, help="Recent events of a row.")
@click.option("--long-history", default=0, show_default=True, help="Older events of a row.")
@click.option("--rows", default=2048, show_default=True, help="Rows a call, and candidates a user.")
@click.option("--dim", default=64, show_default=True, help="Width of every system.")
@click.option("--models", default="loopctr,onetrans,hstu", show_default=True)
@click.option("--seconds", default=120.0, show_default=True, help="Of timed calls, for each table.")
@click.option(
    "--json", "path", type=click.Path(path_type=Path), help="Also write the figures here."
)
def main(history, long_history, rows, dim, models, seconds, path):
    """Latency and operations of several systems, and their ratios to zero-loop LoopCTR's."""
    names = models.split(",")
    for name in names:
        if name not in MODELS:
            raise lc.UsageError(f"model {name!r} does not exist; choose from {', '.join(MODELS)}")
    schema = workload_schema(history, long_history)
    built = {name: model_class(name)(schema, dim=dim) for name in names}
    heads = {name: model.served for name, model in built.items()}
    calls, flops = zip(*(pointwise(built[n], heads[n], rows) for n in names), strict=True)
    users = [one_user(built[name], heads[name], rows) for name in names]
    figures = {
        "machine": machine.describe(),
        "matmul_rate": machine.matmul_rate(),
        "rows": rows,
        "history": history,
        "long_history": long_history,
        "systems": [
            {
                "model": name,
                "flops": count,
                "batch": quantiles(batch),
                "rank": quantiles(user),
            }
            for name, count, batch, user in zip(
                names, flops, in_turns(calls, seconds), in_turns(users, seconds), strict=True
            )
        ],
    }
    first = figures["systems"][0]
    table = [
        [
            found["model"],
            f"{found['flops'] / 1e6:.1f} M ({first['flops'] / found['flops']:.3f})",
            *(
                f"{found[key]['p50_ms']:.1f} ({first[key]['p50_ms'] / found[key]['p50_ms']:.3f})"
                for key in ("batch", "rank")
            ),
        ]
        for found in figures["systems"]
    ]
    head = ["", "FLOPs a row", f"{rows} rows, ms", f"one user, {rows} candidates, ms"]
    click.echo(f"In brackets {names[0]}'s share of it. {figures['machine']}")
    click.echo(markdown_table(head, table))
    if path:
        path.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
