"""`loopctr prepare | schema | data`: from logs to a prepared folder."""

import sys
from pathlib import Path

import click

from loopctr_tf.cli.options import JSON, PREPARED


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
    from loopctr_tf.prepare.prepare import REJECTED, prepare_events

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


@click.group(name="schema")
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
    from loopctr_tf.files import require_new
    from loopctr_tf.prepare.proposal import propose_schema

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


@click.group()
def data():
    """What is in prepared data."""


@data.command()
@PREPARED
@click.option("--plots", type=click.Path(path_type=Path), help="New folder for pictures (PNG).")
@JSON
def describe(prepared, plots, as_json):
    """Rows, users, CTR by day, history lengths, vocabularies, unknown and missing values of PREPARED."""
    from loopctr_tf.features.prepared import read_stats
    from loopctr_tf.files import new_folder, require_new
    from loopctr_tf.training.run_folder import json_text

    read_stats(prepared)
    if plots is not None:
        require_new(plots)
    from loopctr_tf.evaluation.describe import describe as describe_folder
    from loopctr_tf.evaluation.description import description_text, draw_description

    found = describe_folder(prepared, progress=sys.stderr.isatty())
    if plots is not None:
        with new_folder(plots) as folder:
            draw_description(folder, found)
    click.echo(json_text(found) if as_json else description_text(found))
