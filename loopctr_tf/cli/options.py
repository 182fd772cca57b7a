"""Arguments and options that several subcommands share."""

from pathlib import Path

import click

from loopctr_tf.errors import UsageError

PREPARED = click.argument("prepared", type=click.Path(path_type=Path))
RUN = click.argument("run", type=click.Path(path_type=Path))
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")


def whole_numbers(text: str, option: str, separator: str = ",") -> list[int]:
    """The numbers in an option's text; UsageError for anything else."""
    try:
        return [int(part) for part in text.split(separator)]
    except ValueError as error:
        raise UsageError(f"{option} is {text!r}; give whole numbers such as 100,500") from error
