"""`loopctr bench`: speed on this machine."""

from pathlib import Path

import click

from loopctr_tf.cli.options import JSON, PREPARED, whole_numbers
from loopctr_tf.errors import UsageError

SET = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of model or training, e.g. --set dim=32; see `loopctr train --help-config`.",
)
HISTORY = click.option(
    "--history",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Events of a made-up row.",
)
LONG_HISTORY = click.option(
    "--long-history",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Older events of a made-up row, compressed.",
)


def seconds_option(default: float, what: str):
    """How long to measure."""
    return click.option(
        "--seconds", type=click.FloatRange(0), default=default, show_default=True, help=what
    )


def batch_size_option(default: int, what: str):
    """Rows of a batch."""
    return click.option(
        "--batch-size", type=click.IntRange(1), default=default, show_default=True, help=what
    )


def _say(line: str) -> None:
    click.echo(line, err=True)


def _show(found, as_json: bool, text) -> None:
    from loopctr_tf.files import json_text

    click.echo(json_text(found) if as_json else text(found))


def _config(overrides):
    """Settings of a run; a batch size is the benchmark's own option."""
    from loopctr_tf.training.settings import RunConfig

    config = RunConfig.load(None, overrides)
    for pair in overrides:
        if pair.partition("=")[0].strip() in ("batch_size", "training.batch_size"):
            raise UsageError(f"--set {pair!r} has no effect here; give --batch-size")
    return config


@click.group()
def bench():
    """Measure speed on this machine, as shares of its own matrix-product rate.

    \b
    loopctr bench train     training steps, and where their time goes
    loopctr bench tables    training steps by the size of an embedding table
    loopctr bench score     rows scored through an export, and where the time goes
    loopctr bench serve     one user against N candidates, also over gRPC
    loopctr bench input     reading prepared rows, without a model
    loopctr bench load      any server: latency and requests/s of a signature
    loopctr bench hostile   any server: malformed requests, and whether each is refused
    loopctr bench soak      good and hostile requests while versions are swapped
    """


@bench.command("serve")
@click.option(
    "--history",
    default="50,50+1024,100",
    show_default=True,
    help="Events of the histories: recent, or recent+long. gRPC is measured on the last.",
)
@click.option("--candidates", default="100,500,2000", show_default=True, help="Numbers N.")
@click.option("--loops", default="0,1,2,3", show_default=True, help="Depths.")
@click.option("--clients", default="1,4,16", show_default=True, help="Concurrent callers.")
@seconds_option(1.0, "For each figure.")
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

    \b
      loopctr bench serve --history 50 --candidates 500 --loops 0 --clients 1
    """
    settings = _config(overrides).model
    histories = [whole_numbers(part, "--history", "+") for part in history.split(",")]
    if max(map(len, histories)) > 2:
        raise UsageError(f"--history is {history!r}; give events such as 50 or 50+1024")
    numbers = [
        whole_numbers(text, name)
        for text, name in ((candidates, "--candidates"), (loops, "--loops"), (clients, "--clients"))
    ]
    from loopctr_tf.bench.serve import Shape, bench_serve
    from loopctr_tf.bench.texts import serve_tables

    shapes = [Shape(*sizes) for sizes in histories]
    report = bench_serve(shapes, *numbers, seconds=seconds, settings=settings, say=_say)
    _show(report, as_json, serve_tables)


@bench.command("train")
@click.option(
    "--prepared",
    type=click.Path(path_type=Path),
    help="Rows of a prepared folder; made up by default.",
)
@HISTORY
@LONG_HISTORY
@batch_size_option(256, "Rows a step.")
@seconds_option(10.0, "To measure for; five steps at least.")
@SET
@JSON
def bench_training(prepared, history, long_history, batch_size, seconds, overrides, as_json):
    """Training steps: examples/s, their share of the machine's own rate, and where the time goes.

    The matrix-product rate is measured just before and just after the steps; then some more steps are
    profiled. A quick look:

    \b
      loopctr bench train --batch-size 64 --seconds 3
    """
    config = _config(overrides)
    if prepared is not None:
        from loopctr_tf.features.prepared import read_stats

        read_stats(prepared)
    from loopctr_tf.bench.texts import train_text
    from loopctr_tf.bench.train import bench_train

    found = bench_train(config, prepared, batch_size, history, long_history, seconds)
    _show(found, as_json, train_text)


@bench.command("tables")
@click.option(
    "--rows",
    default="10000,1000000",
    show_default=True,
    help="Sizes of the item table, all in memory at once.",
)
@HISTORY
@batch_size_option(256, "Rows a step.")
@seconds_option(10.0, "For each size; five steps at least.")
@SET
@JSON
def bench_table_sizes(rows, history, batch_size, seconds, overrides, as_json):
    """Training steps by the number of rows of an embedding table; sizes are interleaved.

    Memory: rows x embedding_dim x 4 bytes, three times that with AdamW. AdamW's update of a whole table
    needs six times more for the largest table while it runs; row-sparse rules do not:

    \b
      loopctr bench tables --rows 10000,1000000,10000000 \\
          --set table_optimizer=lazy_adamw
    """
    config = _config(overrides)
    sizes = whole_numbers(rows, "--rows")
    from loopctr_tf.bench.table_sizes import bench_tables
    from loopctr_tf.bench.texts import table_sizes_text

    report = bench_tables(config, sizes, batch_size, history, seconds, _say)
    _show(report, as_json, table_sizes_text)


@bench.command("score")
@click.option("--batch-size", default="2048", show_default=True, help="Rows a call: 1,64,256,2048.")
@click.option("--loops", default="0", show_default=True, help="Depths: 0,1,2,3.")
@HISTORY
@LONG_HISTORY
@seconds_option(5.0, "For each figure; five calls at least.")
@SET
@JSON
def bench_scoring(batch_size, loops, history, long_history, seconds, overrides, as_json):
    """Rows scored one by one through an export, in a graph session as in a model server.

    Gives examples/s, their share of the machine's own matrix-product rate, peak memory and where the
    time goes. A quick look:

    \b
      loopctr bench score --batch-size 64,256 --seconds 1
    """
    config = _config(overrides)
    sizes = whole_numbers(batch_size, "--batch-size")
    depths = whole_numbers(loops, "--loops")
    from loopctr_tf.bench.score import bench_score
    from loopctr_tf.bench.texts import score_text

    report = bench_score(config, sizes, depths, history, long_history, seconds, _say)
    _show(report, as_json, score_text)


@bench.command("input")
@PREPARED
@batch_size_option(512, "Rows a batch.")
@seconds_option(10.0, "To measure for.")
@JSON
def bench_reading(prepared, batch_size, seconds, as_json):
    """Reading, shuffling and parsing the training split of PREPARED, without a model.

    For example: loopctr bench input prepared --batch-size 1024
    """
    from loopctr_tf.features.prepared import read_stats

    read_stats(prepared)
    from loopctr_tf.bench.reading import bench_input
    from loopctr_tf.bench.texts import input_text

    _show(bench_input(prepared, batch_size, seconds), as_json, input_text)


def _metadata(context, parameter, values):
    pairs = [tuple(value.split("=", 1)) for value in values]
    if any(len(pair) != 2 for pair in pairs):
        raise click.BadParameter("give NAME=VALUE such as authorization='Bearer ...'")
    return pairs


def endpoint_options(command):
    """Which server, and how to call it; this machine's by default."""
    for option in (
        click.option(
            "--metadata", multiple=True, callback=_metadata, metavar="NAME=VALUE",
            help="Sent with every call. Repeatable.",
        ),
        click.option("--tls", metavar="FILE", help="PEM file of authorities, or `system`."),
        click.option("--timeout", default=10.0, show_default=True, help="Seconds a call."),
        click.option(
            "--schema", type=click.Path(path_type=Path),
            help="assets/schema.yaml of the export: known ids, and what tf.Examples hold.",
        ),
        click.option("--name", default="loopctr", show_default=True, help="Model name."),
        click.option(
            "--target", default="127.0.0.1:8500", show_default=True, help="host:port of gRPC."
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def _endpoint(target, name, schema, timeout, tls, metadata):
    from loopctr_tf.bench.requests import Endpoint
    from loopctr_tf.features.schema import Schema

    tls = {None: False, "system": True}.get(tls, tls)
    schema = None if schema is None else Schema.load(schema)
    return Endpoint(target, name, timeout, tls, metadata), schema


def _verdict(report, as_json: bool, text) -> None:
    """Prints a report; exit code 1 where it has problems."""
    _show(report, as_json, text)
    if report["problems"]:
        raise SystemExit(1)


@bench.command("load")
@endpoint_options
@click.option("--signature", default="rank_loop_0", show_default=True)
@click.option(
    "--candidates",
    type=click.IntRange(1),
    default=500,
    show_default=True,
    help="Of one user in a ranking request; rows of any other request.",
)
@click.option("--history", type=click.IntRange(0), default=100, show_default=True, help="Events.")
@click.option("--clients", default="1,4,16", show_default=True, help="A measurement each.")
@click.option(
    "--seconds",
    type=click.FloatRange(0, 3600, min_open=True),
    default=30.0,
    show_default=True,
    help="Of a measurement.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    help="Requests a second over all clients, in an open loop. Give enough clients: each has one "
    "request under way.",
)
@click.option("--seed", default=0, show_default=True, help="Of the random features.")
@JSON
def bench_server_load(
    signature, candidates, history, clients, seconds, rate, seed, as_json, **server
):
    """Load a TensorFlow Serving gRPC endpoint with random valid requests of one signature.

    For example: loopctr bench load --signature rank_loop_0 --clients 32 --rate 200
    """
    numbers = whole_numbers(clients, "--clients")
    from loopctr_tf.bench.load import bench_load
    from loopctr_tf.bench.texts import load_text

    endpoint, schema = _endpoint(**server)
    report = bench_load(
        endpoint, signature, candidates, history, numbers, seconds, rate, schema, seed, _say
    )
    _show(report, as_json, load_text)


@bench.command("hostile")
@endpoint_options
@click.option("--repairs", is_flag=True, help="The export was made with --bad-input repair.")
@JSON
def bench_hostile_requests(repairs, as_json, **server):
    """Send malformed requests to a server, each once, and check how it refuses them.

    Give --target only for a server of your own. Exit code 1 says that an answer was wrong.
    """
    from loopctr_tf.bench.hostile import bench_hostile
    from loopctr_tf.bench.texts import hostile_text

    endpoint, schema = _endpoint(**server)
    _verdict(bench_hostile(endpoint, schema, repairs, _say), as_json, hostile_text)


@bench.command("soak")
@click.argument("export_a", type=click.Path(path_type=Path))
@click.argument("export_b", type=click.Path(path_type=Path))
@click.option(
    "--minutes",
    type=click.FloatRange(0, 1440, min_open=True),
    default=5.0,
    show_default=True,
    help="Of mixed requests.",
)
@click.option("--clients", type=click.IntRange(1, 256), default=6, show_default=True)
@click.option(
    "--pause",
    type=click.FloatRange(0),
    default=5.0,
    show_default=True,
    help="Seconds between changes of versions.",
)
@click.option("--seed", default=0, show_default=True)
@JSON
def bench_server_soak(export_a, export_b, minutes, clients, pause, seed, as_json):
    """Soak an embedded server with EXPORT_A and EXPORT_B as versions that take turns.

    Good and hostile requests are mixed, on this machine alone. Both exports are of one schema, have
    different weights and the default --bad-input reject. Exit code 1 says that something was wrong.
    """
    from loopctr_tf.bench.soak import bench_soak
    from loopctr_tf.bench.texts import soak_text

    report = bench_soak([export_a, export_b], 60 * minutes, clients, pause, seed=seed, say=_say)
    _verdict(report, as_json, soak_text)
