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
@click.option("--out", required=True, type=click.Path(path_type=Path), help="CSV to write.")
@click.option("--overwrite", is_flag=True, help="Replace an --out that exists, at the end.")
@click.option(
    "--ids",
    multiple=True,
    metavar="COLUMN",
    help="Column to repeat in --out; by default those named like ids of users and items. Repeatable.",
)
@click.option(
    "--separator",
    "separators",
    multiple=True,
    metavar="COLUMN=CHARACTER",
    help="Between the values of a list in a cell, e.g. history=|; without, JSON: [1, 2]. Repeatable.",
)
@click.option(
    "--delimiter", help="Between the cells of a CSV; a comma, or a tab in .tsv, by default."
)
@click.option("--no-quoting", is_flag=True, help="Quotes in a CSV are ordinary characters.")
def score(
    rows,
    target,
    name,
    label,
    signature,
    batch_size,
    timeout,
    out,
    overwrite,
    ids,
    separators,
    delimiter,
    no_quoting,
):
    """Score ROWS through a server and write one line a row: its number (from 0), ids, probabilities.

    ROWS is a split of a prepared folder (prepared/test), a Parquet file, JSON lines (.jsonl), or a CSV
    or TSV file with a header, the text files also with .gz behind, with the features of the schema,
    sequences as lists, oldest event first.

    Values are spelt as prepare spells them: NA, null and the like are missing, 117.0 is 117. A whole
    number beyond 2^53 that was stored as a double is refused, not rounded.
    """
    separators = _separators(separators)
    if delimiter is not None:
        delimiter = delimiter.replace("\\t", "\t")
        if len(delimiter.encode()) != 1:
            raise UsageError(
                f"--delimiter is {delimiter!r}; give one character, such as ';' or '\\t'"
            )
    from loopctr_tf.scoring.rows import score_rows

    written = score_rows(
        rows,
        out,
        target,
        name,
        signature,
        batch_size,
        timeout,
        label,
        ids=ids or None,
        separators=separators,
        delimiter=delimiter,
        quoting=not no_quoting,
        overwrite=overwrite,
    )
    click.echo(f"{written:,} rows scored to {out}")


def _separators(texts):
    found = {}
    for text in texts:
        column, equals, separator = text.partition("=")
        if not column or not equals or not separator:
            raise UsageError(f"--separator is {text!r}; give COLUMN=CHARACTER such as history=|")
        found[column] = separator.replace("\\t", "\t")
    return found
