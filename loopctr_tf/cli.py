"""The ``loopctr`` command: one thin call into the library a subcommand."""

import logging
import os
import sys
import traceback
from pathlib import Path

import click

from loopctr_tf.errors import UsageError
from loopctr_tf.version import __version__

PREPARED = click.argument("prepared", type=click.Path(path_type=Path))
RUN = click.argument("run", type=click.Path(path_type=Path))
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, package_name="loopctr-tf")
def cli():
    """Train LoopCTR with L loops of one shared block, serve it with none.

    \b
    A first tour:
      python data/movielens/prepare.py --out prepared     rows with histories, from public data
      loopctr prepare --schema schema.yaml --events log.parquet --out prepared    or from your own
      loopctr train prepared run --set dim=32             train; figures at every loop depth
      loopctr evaluate run prepared                       exact AUC, GAUC and NE on the test split
      loopctr export run models/loopctr/1                 a SavedModel for TensorFlow Serving
      loopctr serve models/loopctr --port 8500            the embedded gRPC server
      loopctr score prepared/test --target localhost:8500 --out scores.csv

    Exit codes: 0 done, 2 something you gave is wrong (one line says what), 1 a bug of ours.
    """


def _help_build(context, parameter, value):
    if not value or context.resilient_parsing:
        return
    from loopctr_tf.building import rules

    click.echo(rules.__doc__.strip())
    context.exit()


@cli.command()
@click.option(
    "--schema",
    required=True,
    type=click.Path(path_type=Path),
    help="schema.yaml with a section `build`; see --help-build.",
)
@click.option(
    "--events",
    required=True,
    multiple=True,
    metavar="EVENTS...",
    type=click.Path(path_type=Path),
    help="Parquet or CSV files (also .csv.gz), or folders of them, in their order.",
)
@click.argument("more", nargs=-1, metavar="", type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder to write; must not exist, and appears only once it is complete.",
)
@click.option(
    "--items", type=click.Path(path_type=Path), help="Table of items, joined by `build: item`."
)
@click.option(
    "--users", type=click.Path(path_type=Path), help="Table of users, joined by `build: user`."
)
@click.option(
    "--skip-bad",
    is_flag=True,
    help="Leave bad rows out, count them in stats.json and keep them in rejected.csv.",
)
@click.option(
    "--workers", type=click.IntRange(1), help="Processes that write; all cores if left out."
)
@click.option("--quiet", is_flag=True, help="No progress bars.")
@click.option(
    "--help-build",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_help_build,
    help="Print all that the section `build` may hold.",
)
def prepare(schema, events, more, out, items, users, skip_bad, workers, quiet):
    """Make training rows of an event log: histories, sampled negatives, splits, vocabularies.

    A row's histories hold events of its user with a strictly earlier time. Vocabularies and statistics
    come from the training split alone. The same input gives the same bytes.

    \b
    Example:
      loopctr prepare --schema schema.yaml --events logs/*.parquet --items items.csv --out prepared
    """
    from loopctr_tf.building.prepare import REJECTED, prepare_events

    stats = prepare_events(
        schema,
        [*events, *more],
        out,
        items=items,
        users=users,
        skip_bad=skip_bad,
        workers=workers,
        progress=not quiet,
    )
    rows = ", ".join(f"{split} {count:,}" for split, count in stats["rows"].items())
    click.echo(f"{out}: rows {rows}; {stats['users']:,} users")
    for reason, count in stats["rejected"].items():
        click.echo(f"left out: {count:,} rows, {reason} (see {out / REJECTED})")
    click.echo(f"next: loopctr train {out} run")


@cli.group(name="schema")
def schema_group():
    """The file that says what a row holds, and how rows are made of events."""


@schema_group.command()
@click.argument("events", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--items", type=click.Path(path_type=Path), help="Table of items to be joined.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="File to write; printed where left out."
)
@click.option(
    "--rows",
    type=click.IntRange(1),
    default=200_000,
    show_default=True,
    help="Rows to look at, from the beginning.",
)
def init(events, items, out, rows):
    """Propose a schema.yaml for the Parquet or CSV files EVENTS, every guess with a comment.

    \b
    Example:
      loopctr schema init logs/*.parquet --items items.csv --out schema.yaml
      loopctr prepare --schema schema.yaml --events logs/*.parquet --items items.csv --out prepared
    """
    from loopctr_tf.building.proposal import propose_schema
    from loopctr_tf.files import require_new

    if out is not None:
        require_new(out)
    text = propose_schema(list(events), items, rows)
    if out is None:
        click.echo(text, nl=False)
        return
    out.write_text(text, encoding="utf-8")
    named = " ".join(map(str, events)) + ("" if items is None else f" --items {items}")
    click.echo(
        f"proposed {out}: read its comments, correct it\n"
        f"next: loopctr prepare --schema {out} --events {named} --out prepared"
    )


@cli.group()
def data():
    """What is in prepared data."""


@data.command()
@PREPARED
@click.option("--plots", type=click.Path(path_type=Path), help="New folder for pictures (PNG).")
@JSON
def describe(prepared, plots, as_json):
    """Rows, users, CTR by day, history lengths, vocabularies, unknown and missing values of PREPARED."""
    from loopctr_tf.files import new_folder, require_new
    from loopctr_tf.prepared import read_stats
    from loopctr_tf.runs import json_text

    read_stats(prepared)
    if plots is not None:
        require_new(plots)
    from loopctr_tf.analysis.describe import describe as describe_folder
    from loopctr_tf.analysis.description import description_text, draw_description

    found = describe_folder(prepared, progress=sys.stderr.isatty())
    if plots is not None:
        with new_folder(plots) as folder:
            draw_description(folder, found)
    click.echo(json_text(found) if as_json else description_text(found))


@cli.command()
@PREPARED
@RUN
@click.option(
    "--config", type=click.Path(path_type=Path), help="YAML with sections `model` and `training`."
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="NAME=VALUE",
    help="Override a setting, e.g. --set dim=32 --set training.epochs=3. Repeatable.",
)
@click.option(
    "--schema",
    type=click.Path(path_type=Path),
    help="Another schema.yaml for the same rows, e.g. with shorter histories.",
)
@click.option("--quiet", is_flag=True, help="One line an epoch instead of a progress bar.")
def train(prepared, run, config, overrides, schema, quiet):
    """Train on the folder PREPARED and leave everything in the new folder RUN.

    RUN keeps config.yaml, schema.yaml, metrics.json, logs/ (TensorBoard), checkpoints/ (every epoch)
    and weights/ (the best one, by training.monitor on the validation split).

    \b
    All settings with their defaults:
      loopctr train --help-config
    """
    from loopctr_tf.config import RunConfig
    from loopctr_tf.files import require_new
    from loopctr_tf.prepared import read_stats
    from loopctr_tf.schema import Schema

    # What can be told before TensorFlow is loaded.
    read_stats(prepared)
    require_new(run)
    settings = RunConfig.load(config, overrides)
    schema = None if schema is None else Schema.load(schema)
    from loopctr_tf.training import train as run_training

    results = run_training(
        prepared, run, settings, schema, verbose=2 if quiet else "auto", say=click.echo
    )
    click.echo(
        f"best epoch {results['best_epoch']} of {len(results['history']['loss'])} "
        f"by {results['monitor']}, {results['seconds']:.0f} s"
    )
    _print_depths(results["valid"], settings.model.loops)
    click.echo(f"\nnext: loopctr evaluate {run} {prepared}")


def _help_config(context, parameter, value):
    if not value or context.resilient_parsing:
        return
    import yaml

    from loopctr_tf.config import LoopCTRConfig, RunConfig, TrainingConfig

    click.echo(yaml.safe_dump(RunConfig().to_dict(), sort_keys=False))
    for cls in (LoopCTRConfig, TrainingConfig):
        click.echo(cls.__doc__.partition("Attributes:")[2].rstrip())
    context.exit()


train.params.append(
    click.Option(
        ["--help-config"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_help_config,
        help="Print all settings with their defaults and meanings.",
    )
)


@cli.command()
@RUN
@PREPARED
@click.option("--split", default="test", show_default=True, help="train, valid or test.")
@click.option("--loops", type=int, help="Deepest depth; those of training where left out.")
@click.option("--batch-size", type=click.IntRange(1), default=1024, show_default=True)
@JSON
def evaluate(run, prepared, split, loops, batch_size, as_json):
    """Exact AUC, GAUC, NE and calibration of RUN at every loop depth, on a split of PREPARED.

    Choose settings by the validation split; read the test split once.
    """
    from loopctr_tf.runs import json_text, load_run, read_metrics

    read_metrics(run)
    from loopctr_tf.prepared import read_stats

    protocol = read_stats(prepared).get("protocol")
    from loopctr_tf.evaluation import evaluate_run

    model, config = load_run(run)
    depths, _ = evaluate_run(model, prepared, split, loops, batch_size)
    if as_json:
        click.echo(json_text({"split": split, "protocol": protocol, "depths": depths}))
        return
    if protocol is not None:
        click.echo(f"protocol: {protocol}")
    _print_depths(depths, config.model.loops)


@cli.command()
@RUN
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--signatures", help="Comma-separated names; all where left out. serving_default always is."
)
@click.option("--loops", type=int, help="Deepest depth; those of training where left out.")
@click.option(
    "--bad-input",
    type=click.Choice(["reject", "repair"]),
    default="reject",
    show_default=True,
    help="Requests with impossible lengths or numbers that are not finite: refuse, or mend (for "
    "servers that batch).",
)
@click.option(
    "--state-dtype",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="Of the user states of encode_user_loop_i.",
)
@click.option(
    "--warmup-batch-sizes",
    default="1",
    show_default=True,
    help="Comma-separated sizes that a server is warmed up with; allowed_batch_sizes of a server "
    "that batches.",
)
def export(run, path, signatures, loops, bad_input, state_dtype, warmup_batch_sizes):
    """Export RUN as a SavedModel to the new folder PATH, e.g. models/loopctr/1.

    The last part of PATH is the version that a server will show. Inputs are raw features.
    """
    from loopctr_tf.files import require_new
    from loopctr_tf.runs import load_run, read_metrics

    metrics = read_metrics(run)
    require_new(path)
    try:
        sizes = [int(size) for size in warmup_batch_sizes.split(",")]
    except ValueError as error:
        raise UsageError(
            f"--warmup-batch-sizes is {warmup_batch_sizes!r}; give whole numbers such as 1,8,32"
        ) from error
    from loopctr_tf.export import export_saved_model

    model, _ = load_run(run)
    names = None if signatures is None else [name.strip() for name in signatures.split(",")]
    export_saved_model(
        model,
        path,
        loops=loops,
        signatures=names,
        bad_input=bad_input,
        state_dtype=state_dtype,
        warmup_batch_sizes=sizes,
        metrics=metrics,
    )
    click.echo(f"exported to {path}\nnext: loopctr serve {path.parent} --port 8500")


@cli.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--signature", help="Print the ready request of this signature alone, as JSON.")
@JSON
def inspect(model, signature, as_json):
    """Signatures, inputs, sizes and ready requests of the export MODEL (or of its newest version).

    A request is a body for TensorFlow Serving's REST interface:
    POST /v1/models/NAME:predict, with :classify and :regress for those two.
    """
    from loopctr_tf.inspection import inspect_saved_model
    from loopctr_tf.runs import json_text

    found = inspect_saved_model(model)
    if signature is not None and signature not in found["signatures"]:
        raise UsageError(
            f"signature {signature!r} is not in {found['path']!r}; "
            f"choose {', '.join(found['signatures'])}"
        )
    if signature is not None:
        click.echo(json_text(found["signatures"][signature]["request"]))
    elif as_json:
        click.echo(json_text(found))
    else:
        _print_export(found)


@cli.command()
@click.argument("base_path", type=click.Path(path_type=Path))
@click.option("--name", default="loopctr", show_default=True, help="Model name in requests.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8500,
    show_default=True,
    help="0 takes a free port.",
)
@click.option("--workers", type=click.IntRange(1), default=8, show_default=True)
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="LABEL=VERSION",
    help="Serve this version too, to who asks for the label, e.g. --label stable=1. Repeatable.",
)
def serve(base_path, name, host, port, workers, labels):
    """Serve the newest version in BASE_PATH over gRPC, as TensorFlow Serving would.

    For development, tests and small loads. Speaks PredictionService, ModelService and the gRPC health
    protocol; takes up new versions; drains on SIGTERM.
    """
    versions = _versions(labels)
    from loopctr_tf.scoring import PredictionServer

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    server = PredictionServer(
        base_path,
        model_name=name,
        version_labels=versions,
        host=host,
        port=port,
        workers=workers,
    )
    server.start()
    click.echo(f"serving {name!r} from {base_path} at {server.target}; Ctrl-C stops")
    server.serve_forever()


def _versions(labels):
    found = {}
    for text in labels:
        label, _, version = text.partition("=")
        if not label or not version.isdecimal():
            raise UsageError(f"--label is {text!r}; give LABEL=VERSION such as stable=1")
        if label in found:
            raise UsageError(f"--label {label} is given twice; give it one version")
        found[label] = int(version)
    return found


@cli.command()
@click.argument("rows", type=click.Path(path_type=Path))
@click.option("--target", default="127.0.0.1:8500", show_default=True, help="host:port of gRPC.")
@click.option("--name", default="loopctr", show_default=True, help="Model name.")
@click.option("--label", help="Version label, such as stable; the newest version where left out.")
@click.option("--signature", default="serving_default", show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=512, show_default=True)
@click.option("--timeout", type=float, default=10.0, show_default=True, help="Seconds a call.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="CSV to write.")
def score(rows, target, name, label, signature, batch_size, timeout, out):
    """Score ROWS through a server and write one line a row: its number, from 0, and probabilities.

    ROWS is a split of a prepared folder (prepared/test), a Parquet file, or JSON lines with the
    features of the schema, sequences as lists, oldest event first.
    """
    from loopctr_tf.scoring.rows import score_rows

    written = score_rows(rows, out, target, name, signature, batch_size, timeout, label)
    click.echo(f"{written:,} rows scored to {out}")


@cli.group()
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
    histories = [_whole_numbers(part, "--history", "+") for part in history.split(",")]
    if max(map(len, histories)) > 2:
        raise UsageError(f"--history is {history!r}; give events such as 50 or 50+1024")
    numbers = [
        _whole_numbers(text, name)
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


def _whole_numbers(text: str, option: str, separator: str = ",") -> list[int]:
    try:
        return [int(part) for part in text.split(separator)]
    except ValueError as error:
        raise UsageError(f"{option} is {text!r}; give whole numbers such as 100,500") from error


def _print_depths(depths, loops):
    from loopctr_tf.analysis.report import depth_rows, metrics_table

    click.echo(metrics_table(depth_rows(depths, loops)))


def _print_export(found):
    click.echo(
        f"{found['path']}: {found['bytes']:,} bytes, {found['variable_bytes']:,} of them variables, "
        f"{found['loop_block_bytes']:,} of those the Loop Block's"
    )
    families = {}  # what goes in and out -> names of the signatures
    for name, signature in found["signatures"].items():
        lines = [f"  ({signature['method'].rpartition('/')[2]})"]
        for arrow, side in (("<-", "inputs"), ("->", "outputs")):
            for key, info in signature[side].items():
                sizes = ", ".join("?" if size < 0 else str(size) for size in info["shape"])
                lines.append(f"  {arrow} {key}: {info['dtype']} [{sizes}]")
        families.setdefault("\n".join(lines), []).append(name)
    for lines, names in families.items():
        click.secho(f"\n{', '.join(names)}", bold=True, nl=False)
        click.echo(lines)
    click.echo(f"\na ready request: loopctr inspect {found['path']} --signature serving_default")


def _one_line(error: click.ClickException) -> str:
    message = error.format_message()
    if message.startswith("Usage:"):
        return message  # No subcommand was named: the help itself.
    command = getattr(error, "ctx", None)
    command = "loopctr" if command is None else command.command_path
    return f"loopctr: {' '.join(message.split()).rstrip('.')}; see `{command} --help`"


def main() -> None:
    """Runs the command; a mistake of the caller is one line and exit code 2, any other exception 1."""
    # TensorFlow's notices about its own graph rewriting are no news to who types a command, and what
    # gRPC logs on a busy port or a server that is not there, our own line says.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        cli(prog_name="loopctr", standalone_mode=False)
    except UsageError as error:
        click.echo(f"loopctr: {error}", err=True)
        sys.exit(2)
    except click.ClickException as error:
        click.echo(_one_line(error), err=True)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("loopctr: interrupted", err=True)
        sys.exit(130)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
