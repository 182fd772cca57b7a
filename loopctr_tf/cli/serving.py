"""`loopctr serve | score`: the embedded server, and scoring a file through any server."""

import logging
from pathlib import Path

import click

from loopctr_tf.errors import UsageError


@click.command()
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
    help="Also serve this version, to clients that request the label, e.g. stable=1. Repeatable.",
)
def serve(base_path, name, host, port, workers, labels):
    """Serve the newest version in BASE_PATH over gRPC, as TensorFlow Serving would.

    For development, tests and small loads. Speaks PredictionService, ModelService and the gRPC health
    protocol; loads new versions as they appear; drains on SIGTERM.
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


@click.command()
@click.argument("rows", type=click.Path(path_type=Path))
@click.option("--target", default="127.0.0.1:8500", show_default=True, help="host:port of gRPC.")
@click.option("--name", default="loopctr", show_default=True, help="Model name.")
@click.option("--label", help="Version label, such as stable; the newest version by default.")
@click.option("--signature", default="serving_default", show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=512, show_default=True)
@click.option("--timeout", type=float, default=10.0, show_default=True, help="Seconds a call.")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="CSV to write; an existing one is replaced at the end.",
)
def score(rows, target, name, label, signature, batch_size, timeout, out):
    """Score ROWS through a server and write one line a row: its number (from 0) and probabilities.

    ROWS is a split of a prepared folder (prepared/test), a Parquet file, or JSON lines with the
    features of the schema, sequences as lists, oldest event first.
    """
    from loopctr_tf.scoring.rows import score_rows

    written = score_rows(rows, out, target, name, signature, batch_size, timeout, label)
    click.echo(f"{written:,} rows scored to {out}")
