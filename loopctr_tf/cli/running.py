"""How a command ends: its exit code, and one line for a caller's mistake."""

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

    A command may end with another code by ``click.exceptions.Exit``.

    Args:
      command: reads its arguments from the command line.
      name: the name of the program.
      mistake: makes the line for click's own errors; ``name: message`` by default.
    """
    try:
        code = command(prog_name=name, standalone_mode=False)
    except UsageError as error:
        click.echo(f"{name}: {error}", err=True)
        sys.exit(2)
    except click.ClickException as error:
        line = mistake(error) if mistake else f"{name}: {error.format_message()}"
        click.echo(line, err=True)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo(f"{name}: interrupted", err=True)
        sys.exit(130)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    if isinstance(code, int) and code:
        sys.exit(code)  # click returns the code of an Exit
