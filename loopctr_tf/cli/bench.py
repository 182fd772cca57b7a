"""`loopctr bench`: speed on this machine."""

from pathlib import Path

import click

from loopctr_tf.cli.options import JSON, PREPARED, whole_numbers
from loopctr_tf.errors import UsageError


@click.group()
def bench():
    """Measure speed on this machine, as shares of its own matrix-product rate."""


@bench.command("serve")
@click.option(
    "--history",
    default="50,50+1024,100",
    show_default=True,
    help="Events of the histories: recent, or recent+long. gRPC is measured on the last.",
)
@click.option("--candidates", default="100,500,2000", show_default=True, help="Numbers N.")
@click.option("--loops", default="0,1,2,3", show_default=True, help="Depths.")
@click.option("--clients", default="1,4,16", show_default=True, help="Callers at the same time.")
@click.option(
    "--seconds", type=click.FloatRange(0), default=1.0, show_default=True, help="For each figure."
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of the model, e.g. --set dim=32. Default: dim 64, ffn_dim 256.",
)
@JSON
def bench_serving(history, candidates, loops, clients, seconds, overrides, as_json):
    """One user against N candidates: latency and candidates/s by path, depth, size and callers.

    Takes several minutes with all defaults; a quick look:
    loopctr bench serve --history 50 --candidates 500 --loops 0 --clients 1
    """
    from loopctr_tf.config import RunConfig

    settings = RunConfig.load(None, overrides).model
    histories = [whole_numbers(part, "--history", "+") for part in history.split(",")]
    if max(map(len, histories)) > 2:
        raise UsageError(f"--history is {history!r}; give events such as 50 or 50+1024")
    numbers = [
        whole_numbers(text, name)
        for text, name in ((candidates, "--candidates"), (loops, "--loops"), (clients, "--clients"))
    ]
    from loopctr_tf.bench.serve import Shape, bench_serve
    from loopctr_tf.bench.tables import serve_tables
    from loopctr_tf.runs import json_text

    report = bench_serve(
        [Shape(*sizes) for sizes in histories],
        *numbers,
        seconds=seconds,
        settings=settings,
        say=lambda line: click.echo(line, err=True),
    )
    click.echo(json_text(report) if as_json else serve_tables(report))


@bench.command("train")
@click.option(
    "--prepared", type=click.Path(path_type=Path), help="Rows of a prepared folder; else made up."
)
@click.option("--history", type=click.IntRange(1), default=100, show_default=True)
@click.option("--long-history", type=click.IntRange(0), default=0, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=256, show_default=True)
@click.option("--seconds", type=click.FloatRange(0), default=10.0, show_default=True)
@click.option("--set", "overrides", multiple=True, metavar="NAME=VALUE", help="Of the model.")
@JSON
def bench_training(prepared, history, long_history, batch_size, seconds, overrides, as_json):
    """Training steps: examples/s, and their share of the machine's own matrix-product rate."""
    from loopctr_tf.config import RunConfig

    settings = RunConfig.load(None, overrides).model
    if prepared is not None:
        from loopctr_tf.prepared import read_stats

        read_stats(prepared)
    from loopctr_tf.bench.train import bench_train
    from loopctr_tf.runs import json_text

    found = bench_train(settings, prepared, batch_size, history, long_history, seconds)
    if as_json:
        click.echo(json_text(found))
        return
    click.echo(
        f"{found['examples_per_s']:,.0f} examples/s; a step of {batch_size} rows takes "
        f"{found['p50_ms']:.0f} ms (p95 {found['p95_ms']:.0f}), the first one "
        f"{found['first_step_s']:.1f} s\n"
        f"{found['flops_per_example'] / 1e6:,.1f} MFLOP an example, active experts counted: "
        f"{found['share_of_matmul_rate']:.0%} of this machine's {found['matmul_rate'] / 1e9:,.0f} "
        f"GFLOP/s\npeak memory {found['peak_memory_bytes'] / 2**20:,.0f} MiB"
    )


@bench.command("input")
@PREPARED
@click.option("--batch-size", type=click.IntRange(1), default=512, show_default=True)
@click.option("--seconds", type=click.FloatRange(0), default=10.0, show_default=True)
@JSON
def bench_reading(prepared, batch_size, seconds, as_json):
    """Reading, shuffling and parsing the training split of PREPARED, without a model."""
    from loopctr_tf.prepared import read_stats

    read_stats(prepared)
    from loopctr_tf.bench.train import bench_input
    from loopctr_tf.runs import json_text

    found = bench_input(prepared, batch_size, seconds)
    if as_json:
        click.echo(json_text(found))
        return
    click.echo(
        f"{found['examples_per_s']:,.0f} examples/s; "
        f"peak memory {found['peak_memory_bytes'] / 2**20:,.0f} MiB"
    )
