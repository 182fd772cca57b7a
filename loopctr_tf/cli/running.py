"""A command's end: exit codes, and one line for whoever made a mistake."""

import sys
import traceback
from collections.abc import Callable

import click

from loopctr_tf.errors import UsageError


def run_command(
    command: click.Command,
    name: str,
    mistake: Callable[[click.ClickException], str] | None = None,
) -> None:
    """Runs ``command``: exit code 2 for a mistake of the caller, 130 when interrupted, 1 for a bug.

    Args:
      command: reads its arguments from the command line.
      name: what it is called.
      mistake: the line that tells click's own errors; ``name: message`` where left out.
    """
    try:
        command(prog_name=name, standalone_mode=False)
    except UsageError as error:
        click.echo(f"{name}: {error}", err=True)
        sys.exit(2)
    except click.ClickException as error:
        told = mistake(error) if mistake else f"{name}: {error.format_message()}"
        click.echo(told, err=True)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo(f"{name}: interrupted", err=True)
        sys.exit(130)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
