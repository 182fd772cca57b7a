"""`loopctr bench`: speed on this machine."""

from pathlib import Path

import click

from loopctr_tf.cli.options import JSON, PREPARED, whole_numbers
from loopctr_tf.errors import UsageError


def _option(name: str, default, what: str, kind=None):
    return click.option(name, type=kind, default=default, show_default=True, help=what)


def _seconds(default: float, what: str):
    return _option("--seconds", default, what, click.FloatRange(0))


def _batch_size(default: int, what: str):
    return _option("--batch-size", default, what, click.IntRange(1))


def _loops(default: str):
    """Depths of a model that has them, as text or None."""
    what = f"Numbers of loops of a model that has them, such as 0,1,2,3; {default} by default."
    return click.option("--loops", metavar="I,...", help=what, callback=_whole_numbers_or_none)


def _whole_numbers_or_none(context, parameter, text):
    return None if text is None else whole_numbers(text, "--loops")


SET = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of model or training, e.g. --set dim=32 or --set model.name=hstu; see "
    "`loopctr train --help-config`.",
)
HISTORY = _option("--history", 100, "Events of a made-up row.", click.IntRange(1))
LONG_HISTORY = _option(
    "--long-history", 0, "Older events of a made-up row, compressed.", click.IntRange(0)
)
PATH = click.Path(path_type=Path)


def _log(line: str) -> None:
    click.echo(line, err=True)


def _show(found, as_json: bool, text) -> None:
    """Prints a report; exit code 1 if it has problems."""
    from loopctr_tf.files import json_text

    click.echo(json_text(found) if as_json else text(found))
    if found.get("problems"):
        raise SystemExit(1)


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
@_option(
    "--history",
    "50,50+1024,100",
    "Events of the histories: recent, or recent+long. gRPC is measured on the last.",
)
@_option("--candidates", "100,500,2000", "Numbers N.")
@_loops("those of training")
@_option("--clients", "1,4,16", "Concurrent callers.")
@_seconds(1.0, "For each figure.")
@SET
@JSON
def bench_serving(history, candidates, loops, clients, seconds, overrides, as_json):
    """One user against N candidates: latency and candidates/s by path, head, size and callers.

    Of any model; a model without a user's state has no cached path.

    Takes several minutes with all defaults; a quick look:

    \b
      loopctr bench serve --history 50 --candidates 500 --loops 0 --clients 1
    """
    config = _config(overrides)
    histories = [whole_numbers(part, "--history", "+") for part in history.split(",")]
    counts = whole_numbers(candidates, "--candidates"), whole_numbers(clients, "--clients")
    from loopctr_tf.bench import serve, texts

    report = serve.bench_serve(histories, *counts, loops, seconds, config, _log)
    _show(report, as_json, texts.serve_tables)


@bench.command("train")
@click.option("--prepared", type=PATH, help="Rows of a prepared folder; made up by default.")
@HISTORY
@LONG_HISTORY
@_batch_size(256, "Rows a step.")
@_seconds(10.0, "To measure for; five steps at least.")
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
    from loopctr_tf.bench import texts, train

    found = train.bench_train(config, prepared, batch_size, history, long_history, seconds)
    _show(found, as_json, texts.train_text)


@bench.command("tables")
@_option("--rows", "10000,1000000", "Sizes of the item table, all in memory at once.")
@HISTORY
@_batch_size(256, "Rows a step.")
@_seconds(10.0, "For each size; five steps at least.")
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
    from loopctr_tf.bench import table_sizes, texts

    report = table_sizes.bench_tables(config, sizes, batch_size, history, seconds, _log)
    _show(report, as_json, texts.table_sizes_text)


@bench.command("score")
@_option("--batch-size", "2048", "Rows a call: 1,64,256,2048.")
@_loops("those of the served head")
@HISTORY
@LONG_HISTORY
@_seconds(5.0, "For each figure; five calls at least.")
@SET
@JSON
def bench_scoring(batch_size, loops, history, long_history, seconds, overrides, as_json):
    """Rows scored one by one through an export, in a graph session as in a model server.

    Gives examples/s, their share of the machine's own matrix-product rate, peak memory and where the
    time goes. A quick look:

    \b
      loopctr bench score --batch-size 64,256 --seconds 1
      loopctr bench score --set model.name=hstu
    """
    config = _config(overrides)
    sizes = whole_numbers(batch_size, "--batch-size")
    from loopctr_tf.bench import score, texts

    report = score.bench_score(config, sizes, loops, history, long_history, seconds, _log)
    _show(report, as_json, texts.score_text)


@bench.command("input")
@PREPARED
@_batch_size(512, "Rows a batch.")
@_seconds(10.0, "To measure for.")
@JSON
def bench_reading(prepared, batch_size, seconds, as_json):
    """Reading, shuffling and parsing the training split of PREPARED, without a model.

    For example: loopctr bench input prepared --batch-size 1024
    """
    from loopctr_tf.features.prepared import read_stats

    read_stats(prepared)
    from loopctr_tf.bench import reading, texts

    _show(reading.bench_input(prepared, batch_size, seconds), as_json, texts.input_text)


def _metadata(context, parameter, values):
    pairs = [tuple(value.split("=", 1)) for value in values]
    if any(len(pair) != 2 for pair in pairs):
        raise click.BadParameter("give NAME=VALUE such as authorization='Bearer ...'")
    return pairs


_SCHEMA_HELP = "assets/schema.yaml of the export: known ids, and what tf.Examples hold."
_METADATA = {"multiple": True, "callback": _metadata, "metavar": "NAME=VALUE"}


def endpoint_options(command):
    """Which server, and how to call it; this machine's by default."""
    for option in (
        click.option("--metadata", **_METADATA, help="Sent with every call. Repeatable."),
        click.option("--tls", metavar="FILE", help="PEM file of authorities, or `system`."),
        _option("--timeout", 10.0, "Seconds a call."),
        click.option("--schema", type=PATH, help=_SCHEMA_HELP),
        _option("--name", "loopctr", "Model name."),
        _option("--target", "127.0.0.1:8500", "host:port of gRPC."),
    ):
        command = option(command)
    return command


def _endpoint(target, name, schema, timeout, tls, metadata):
    from loopctr_tf.bench.requests import Endpoint
    from loopctr_tf.features.schema import Schema

    tls = {None: False, "system": True}.get(tls, tls)
    schema = None if schema is None else Schema.load(schema)
    return Endpoint(target, name, timeout, tls, metadata), schema


@bench.command("load")
@endpoint_options
@_option("--signature", "rank_loop_0", "Its name.")
@_option(
    "--candidates",
    500,
    "Of one user in a ranking request; rows of any other request.",
    click.IntRange(1),
)
@_option("--history", 100, "Events.", click.IntRange(0))
@_option("--clients", "1,4,16", "A measurement each.")
@_option("--seconds", 30.0, "Of a measurement.", click.FloatRange(0, 3600, min_open=True))
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    help="Requests a second over all clients, in an open loop. Give enough clients: each has one "
    "request under way.",
)
@_option("--seed", 0, "Of the random features.")
@JSON
def bench_server_load(
    signature, candidates, history, clients, seconds, rate, seed, as_json, **server
):
    """Load a TensorFlow Serving gRPC endpoint with random valid requests of one signature.

    For example: loopctr bench load --signature rank_loop_0 --clients 32 --rate 200
    """
    counts = whole_numbers(clients, "--clients")
    from loopctr_tf.bench import load, texts

    endpoint, schema = _endpoint(**server)
    sizes = (candidates, history, counts, seconds, rate)
    report = load.bench_load(endpoint, signature, *sizes, schema=schema, seed=seed, log=_log)
    _show(report, as_json, texts.load_text)


@bench.command("hostile")
@endpoint_options
@click.option("--repairs", is_flag=True, help="The export was made with --bad-input repair.")
@JSON
def bench_hostile_requests(repairs, as_json, **server):
    """Send malformed requests to a server, each once, and check how it refuses them.

    Give --target only for a server of your own. Exit code 1 says that an answer was wrong.
    """
    from loopctr_tf.bench import hostile, texts

    endpoint, schema = _endpoint(**server)
    _show(hostile.bench_hostile(endpoint, schema, repairs, _log), as_json, texts.hostile_text)


@bench.command("soak")
@click.argument("export_a", type=PATH)
@click.argument("export_b", type=PATH)
@_option("--minutes", 5.0, "Of mixed requests.", click.FloatRange(0, 1440, min_open=True))
@_option("--clients", 6, "Concurrent callers.", click.IntRange(1, 256))
@_option("--pause", 5.0, "Seconds between changes of versions.", click.FloatRange(0))
@_option("--seed", 0, "Of requests and their order.")
@JSON
def bench_server_soak(export_a, export_b, minutes, clients, pause, seed, as_json):
    """Soak an embedded server with EXPORT_A and EXPORT_B as versions that take turns.

    Good and hostile requests are mixed, on this machine alone. Both exports are of one schema, have
    different weights and the default --bad-input reject. Exit code 1 says that something was wrong.
    """
    from loopctr_tf.bench import soak, texts

    exports = [export_a, export_b]
    report = soak.bench_soak(exports, 60 * minutes, clients, pause, seed=seed, log=_log)
    _show(report, as_json, texts.soak_text)
