"""`loopctr prepare | schema | data`: from logs to a prepared folder."""

import sys
from pathlib import Path

import click

from loopctr_tf.cli.options import (
    JSON,
    PREPARED,
    given_text_options,
    text_options,
    with_text_options,
)
from loopctr_tf.errors import UsageError


def _help_build(context, parameter, value):
    if not value or context.resilient_parsing:
        return
    from loopctr_tf.prepare import rules

    click.echo(rules.__doc__.strip())
    context.exit()


@click.command()
@click.option(
    "--schema",
    required=True,
    type=click.Path(path_type=Path),
    help="schema.yaml with a section `build`; see --help-build.",
)
@click.option(
    "--events",
    multiple=True,
    metavar="EVENTS...",
    type=click.Path(path_type=Path),
    help="Parquet, CSV, TSV (also .gz) or JSON-lines files, or folders of them, in order.",
)
@click.option(
    "--rows",
    multiple=True,
    metavar="ROWS...",
    type=click.Path(path_type=Path),
    help="Instead of --events: files of rows that hold their histories (build: {histories: given}).",
)
@click.argument("more", nargs=-1, metavar="", type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="New folder to write; it appears only once it is complete.",
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
    help="Skip bad rows, count them in stats.json and list them in rejected.csv.",
)
@click.option(
    "--workers", type=click.IntRange(1), help="Writer processes; one per core by default."
)
@click.option(
    "--engine",
    type=click.Choice(["duckdb", "spark"]),
    default="duckdb",
    show_default=True,
    help="DuckDB on this machine, or Spark on a cluster: the same rows.",
)
@click.option(
    "--master", help="Spark's master, e.g. yarn or local[8]; by default its configuration."
)
@click.option(
    "--memory",
    default="2GB",
    show_default=True,
    help="Memory for DuckDB; what does not fit is on disk beside --out. Worker processes come on top.",
)
@click.option("--quiet", is_flag=True, help="No progress bars.")
@with_text_options
@click.option(
    "--help-build",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_help_build,
    help="Print everything that the section `build` may contain.",
)
def prepare(
    schema,
    events,
    rows,
    more,
    out,
    items,
    users,
    skip_bad,
    workers,
    engine,
    master,
    memory,
    quiet,
    **text,
):
    """Turn an event log into training rows: histories, sampled negatives, splits, vocabularies.

    The histories of a row hold only events of its user with an earlier time. Vocabularies and
    statistics come only from the training split. The same input gives the same bytes.

    \b
    Example:
      loopctr prepare --schema schema.yaml --events logs/*.parquet --items items.csv --out prepared
    """
    from loopctr_tf.prepare.given import prepare_given
    from loopctr_tf.prepare.prepare import REJECTED, prepare_events

    if bool(events) == bool(rows):
        raise UsageError(
            "--events and --rows are both given; name one"
            if events
            else "name the files: --events of a log, or --rows of rows that hold their histories"
        )
    if rows:
        for option, value in (("--items", items), ("--users", users), ("--master", master)):
            if value is not None:
                raise UsageError(
                    f"{option} is of --events; rows hold all of their columns; drop it"
                )
        if engine != "duckdb":
            raise UsageError(f"--engine is {engine!r}; --rows is read by duckdb alone")
    if master is not None and engine != "spark":
        raise UsageError(
            f"--master is {master!r}, which is of --engine spark; add that, or drop it"
        )
    make = None
    if engine == "spark":
        from loopctr_tf.prepare.spark_engine import SparkEngine

        def make(folder, workers):
            return SparkEngine(folder, master)

    common = {
        "text": text_options(**text),
        "skip_bad": skip_bad,
        "memory": memory,
        "workers": workers,
        "progress": not quiet,
        "say": lambda line: click.echo(f"note: {line}", err=True),
    }
    if rows:
        stats = prepare_given(schema, [*rows, *more], out, **common)
    else:
        stats = prepare_events(
            schema, [*events, *more], out, items=items, users=users, engine=make, **common
        )
    counts = ", ".join(f"{split} {count:,}" for split, count in stats["rows"].items())
    users = f"; {stats['users']:,} users" if "users" in stats else ""
    click.echo(f"{out}: rows {counts}{users}")
    for reason, count in stats["rejected"].items():
        click.echo(f"skipped: {count:,} rows, {reason} (see {out / REJECTED})")
    click.echo(f"next: loopctr train {out} run")


@click.group(name="schema")
def schema_group():
    """The file that defines what a row contains, and how rows are made of events."""


@schema_group.command()
@click.argument("events", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--items", type=click.Path(path_type=Path), help="Table of items to join.")
@click.option("--out", type=click.Path(path_type=Path), help="File to write; printed by default.")
@click.option(
    "--rows",
    type=click.IntRange(1),
    default=200_000,
    show_default=True,
    help="Rows to read, the first of each file.",
)
@with_text_options
def init(events, items, out, rows, **how):
    """Propose a schema.yaml for EVENTS (Parquet, CSV, JSON lines); a comment explains every guess.

    \b
    Example:
      loopctr schema init logs/*.parquet --items items.csv --out schema.yaml
      loopctr prepare --schema schema.yaml --events logs/*.parquet --items items.csv --out prepared
    """
    from loopctr_tf.files import require_new
    from loopctr_tf.prepare.proposal import propose_schema

    if out is not None:
        require_new(out)
    text = propose_schema(list(events), items, rows, text_options(**how))
    if out is None:
        click.echo(text, nl=False)
        return
    out.write_text(text, encoding="utf-8")
    named = " ".join(map(str, events)) + ("" if items is None else f" --items {items}")
    named += given_text_options(**how)
    click.echo(
        f"proposed {out}: read its comments and correct it\n"
        f"next: loopctr prepare --schema {out} --events {named} --out prepared"
    )


@click.group()
def data():
    """Statistics of prepared data."""


@data.command()
@PREPARED
@click.option("--plots", type=click.Path(path_type=Path), help="New folder for plots (PNG).")
@JSON
def describe(prepared, plots, as_json):
    """Rows, users, CTR by day, history lengths, vocabularies, unknown and missing values of PREPARED."""
    from loopctr_tf.features.prepared import read_stats
    from loopctr_tf.files import json_text, new_folder, require_new

    read_stats(prepared)
    if plots is not None:
        require_new(plots)
    from loopctr_tf.evaluation.describe import describe as describe_folder
    from loopctr_tf.evaluation.report import description_text

    found = describe_folder(prepared, progress=sys.stderr.isatty())
    if plots is not None:
        from loopctr_tf.evaluation.plots import draw_description

        with new_folder(plots) as folder:
            draw_description(folder, found)
    click.echo(json_text(found) if as_json else description_text(found))


@schema_group.command(name="json")
@click.option(
    "--of",
    "file",
    type=click.Choice(["schema", "config"]),
    default="schema",
    show_default=True,
    help="schema.yaml, or a run's config.yaml.",
)
def json_schema(file):
    """Print the JSON schema of schema.yaml or config.yaml, so that an editor completes and checks it.

    \b
    Example:
      loopctr schema json > schema.schema.json
      and as the first line of schema.yaml:
      # yaml-language-server: $schema=schema.schema.json
    """
    from loopctr_tf.files import json_text

    if file == "schema":
        from loopctr_tf.features.schema import json_schema as schema

        click.echo(json_text(schema()))
    else:
        from loopctr_tf.training.settings import RunConfig

        click.echo(json_text(RunConfig.json_schema()))
