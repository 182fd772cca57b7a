"""Arguments and options that several subcommands share."""

import shlex
from pathlib import Path

import click

from loopctr_tf.errors import UsageError

PREPARED = click.argument("prepared", type=click.Path(path_type=Path))
RUN = click.argument("run", type=click.Path(path_type=Path))
TEXT_OPTIONS = (
    click.option(
        "--delimiter", help="Between the values of text files; by default seen in the file."
    ),
    click.option("--no-header", is_flag=True, help="The first line of text files holds values."),
    click.option("--names", help="Columns of text files without a header: user_id,item_id,..."),
    click.option(
        "--quoting/--no-quoting",
        default=None,
        help="Whether double quotes enclose values; by default seen in the file.",
    ),
)
"""How text files are written; see :func:`text_options`."""
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")


def with_text_options(command):
    """Adds ``TEXT_OPTIONS`` to a command; their values make the argument of :func:`text_options`."""
    for option in reversed(TEXT_OPTIONS):
        command = option(command)
    return command


def text_options(delimiter: str | None, no_header: bool, names: str | None, quoting: bool | None):
    """The :class:`~loopctr_tf.prepare.files.TextOptions` that the options ask for."""
    from loopctr_tf.prepare.files import TextOptions

    given = () if names is None else tuple(name.strip() for name in names.split(","))
    delimiter = {"tab": "\t", "\\t": "\t"}.get(delimiter, delimiter)
    return TextOptions(delimiter, given, not no_header, quoting)


def given_text_options(
    delimiter: str | None, no_header: bool, names: str | None, quoting: bool | None
) -> str:
    """The options as somebody would write them, after a blank."""
    words = ["--delimiter", delimiter] if delimiter is not None else []
    words += ["--no-header"] if no_header else []
    words += ["--names", names] if names is not None else []
    words += [] if quoting is None else ["--quoting" if quoting else "--no-quoting"]
    return "".join(f" {shlex.quote(word)}" for word in words)


def whole_numbers(text: str, option: str, separator: str = ",") -> list[int]:
    """The numbers in an option's text; UsageError for anything else."""
    try:
        return [int(part) for part in text.split(separator)]
    except ValueError as error:
        raise UsageError(f"{option} is {text!r}; give whole numbers such as 100,500") from error
