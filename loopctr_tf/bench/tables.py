"""Rows of figures as Markdown that reads well in a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """A Markdown table, columns aligned: numbers to the right, words to the left.

    Args:
      rows: of figures by name.
      columns: heading -> format, such as ``{"N": "{candidates:,}", "p50 ms": "{p50_ms:.1f}"}``.
    """
    body = [[form.format(**row) for form in columns.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *body, strict=True)]
    words = [any(cell[:1].isalpha() for cell in column) for column in zip(*body, strict=True)]
    words = words or [True] * len(widths)

    def line(cells) -> str:
        padded = [
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(cells, widths, words, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    rule = [
        "-" * (width + 2) if left else "-" * (width + 1) + ":"
        for width, left in zip(widths, words, strict=True)
    ]
    return "\n".join([line(columns), f"|{'|'.join(rule)}|", *map(line, body)])


def bytes_in_words(count: float) -> str:
    """A size in MiB, or in GiB where it is one or more."""
    mebibytes = count / 2**20
    return f"{mebibytes / 1024:,.1f} GiB" if mebibytes >= 1024 else f"{mebibytes:,.0f} MiB"
