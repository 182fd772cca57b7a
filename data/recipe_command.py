"""What the commands of all recipes share: their options, their warnings, and how they end."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
from bars import PROTOCOLS

from loopctr_tf.errors import UsageError
from loopctr_tf.features.prepared import SPLITS

WORKERS = click.option("--workers", type=int, help="Processes that write; all cores by default.")


class Recipe(click.Command):
    """A command that reports a ``UsageError`` in one line and exits with 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except UsageError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(2)


def recipe(
    raw: str | None = None,
    *,
    protocol: bool = False,
    min_count: int | None = None,
    files: bool = True,
) -> Callable[[Callable], click.Command]:
    """Makes a command with the options of a recipe, which come before its own.

    Args:
      raw: what the folder --raw holds; None leaves the option to the recipe.
      protocol: whether there is --protocol.
      min_count: default of --min-count; None leaves it out.
      files: whether there are --skip-bad and --workers, of recipes that read large files.
    """
    path = click.Path(path_type=Path)
    about_protocol = (
        "honest: the validation split is cut from the training rows, and histories keep their most "
        "recent events. bars: as BARS does, the test split is the validation split too."
    )
    about_bad = (
        "Leave bad lines and rows out; stats.json counts them, files of their own list them."
    )
    options = []
    if raw is not None:
        options.append(click.option("--raw", required=True, type=path, help=f"Folder with {raw}."))
    about_out = "Folder to write; must not exist. Temporary files lie beside it."
    options.append(click.option("--out", required=True, type=path, help=about_out))
    if protocol:
        kinds = {"type": click.Choice(PROTOCOLS), "default": PROTOCOLS[0], "show_default": True}
        options.append(click.option("--protocol", **kinds, help=about_protocol))
    if min_count is not None:
        about_count = "Values with fewer occurrences in training count as unknown."
        options.append(
            click.option("--min-count", default=min_count, show_default=True, help=about_count)
        )
    if files:
        options += [click.option("--skip-bad", is_flag=True, help=about_bad), WORKERS]

    def made(function: Callable) -> click.Command:
        for option in reversed(options):
            function = option(function)
        return click.command(cls=Recipe)(function)

    return made


def report(out: Path, stats: Mapping[str, Any], *facts: str) -> None:
    """Prints what was written, after the warnings in ``stats.json``."""
    for warning in stats.get("warnings", ()):
        click.echo(f"WARNING: {warning}", err=True)
    rows = ", ".join(f"{split} {stats['rows'][split]:,}" for split in SPLITS)
    click.echo("; ".join([f"{out}: rows {rows}", *facts]))
