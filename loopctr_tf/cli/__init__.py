"""The ``loopctr`` command: each subcommand is one thin call into the library."""

import os

import click

from loopctr_tf.cli.bench import bench
from loopctr_tf.cli.compare import compare
from loopctr_tf.cli.data import data, prepare, schema_group
from loopctr_tf.cli.models import evaluate, export, inspect, train
from loopctr_tf.cli.running import run_command
from loopctr_tf.cli.serving import score, serve
from loopctr_tf.version import __version__


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
      loopctr compare prepared --out build/compare        LoopCTR beside the other systems
      loopctr export run models/loopctr/1                 a SavedModel for TensorFlow Serving
      loopctr serve models/loopctr --port 8500            the embedded gRPC server
      loopctr score prepared/test --target localhost:8500 --out scores.csv

    Exit codes: 0 done, 2 an error in your input (explained in one line), 1 a bug of ours.
    """


for command in (
    prepare,
    schema_group,
    data,
    train,
    evaluate,
    compare,
    export,
    inspect,
    serve,
    score,
    bench,
):
    cli.add_command(command)


def _one_line(error: click.ClickException) -> str:
    message = error.format_message()
    if message.startswith("Usage:"):
        return message  # No subcommand was named: the help itself.
    command = getattr(error, "ctx", None)
    command = "loopctr" if command is None else command.command_path
    return f"loopctr: {' '.join(message.split()).rstrip('.')}; see `{command} --help`"


def main() -> None:
    """Runs the command: exit code 2 and one line for a caller's mistake, 1 for any other exception."""
    # TensorFlow's notices about graph rewriting would only confuse a command-line user, and our own
    # one-line errors replace what gRPC logs about a busy port or a missing server.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    run_command(cli, "loopctr", _one_line)
