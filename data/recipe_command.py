"""What the commands of all recipes share: their options, their warnings, and how they end."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from bars import PROTOCOLS
from tqdm import tqdm

from loopctr_tf.errors import UsageError
from loopctr_tf.features.prepared import SPLITS


class Recipe(click.Command):
    """A command that reports a ``UsageError`` in one line and exits with 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except UsageError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(2)


def raw_option(files: str):
    """``--raw``, a folder with ``files``."""
    return click.option(
        "--raw", required=True, type=click.Path(path_type=Path), help=f"Folder with {files}."
    )


OUT = click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder to write; must not exist. Temporary files lie beside it.",
)
SKIP_BAD = click.option(
    "--skip-bad",
    is_flag=True,
    help="Leave bad lines and rows out, count them in stats.json and keep them in files of their own.",
)
WORKERS = click.option("--workers", type=int, help="Processes that write; all cores by default.")
PROTOCOL = click.option(
    "--protocol",
    type=click.Choice(PROTOCOLS),
    default=PROTOCOLS[0],
    show_default=True,
    help="honest: the validation split is cut from the training rows, and histories keep their most "
    "recent events. bars: as BARS does, the test split is the validation split too.",
)


def min_count_option(default: int):
    """``--min-count`` of vocabularies."""
    return click.option(
        "--min-count",
        default=default,
        show_default=True,
        help="Values in fewer training rows count as unknown.",
    )


def warn(line: str) -> None:
    """Prints a line to stderr without breaking a progress bar."""
    tqdm.write(line, file=sys.stderr)


def report(out: Path, stats: Mapping[str, Any], *facts: str) -> None:
    """Prints what was written, after the warnings that ``stats.json`` holds."""
    for warning in stats.get("warnings", ()):
        warn(f"WARNING: {warning}")
    rows = ", ".join(f"{split} {stats['rows'][split]:,}" for split in SPLITS)
    click.echo("; ".join([f"{out}: rows {rows}", *facts]))
