"""Rows of figures as Markdown that reads well in a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate


def table(rows: Sequence[Mapping[str, Any]], columns: str) -> str:
    """A Markdown table of figures by name.

    ``columns`` are headings with formats, such as ``"N {candidates:,}; p50 ms {p50_ms:.1f}"``.
    """
    heads, _, forms = zip(*(column.partition(" {") for column in columns.split("; ")), strict=True)
    cells = [[("{" + form).format(**row) for form in forms] for row in rows]
    words = [any(cell[:1].isalpha() for cell in column) for column in zip(*cells, strict=True)]
    align = ["left" if word else "right" for word in words or [True] * len(heads)]
    return tabulate(cells, heads, "pipe", colalign=align, disable_numparse=True)


def bytes_in_words(count: float) -> str:
    """A size in MiB, or in GiB where it is one or more."""
    mebibytes = count / 2**20
    return f"{mebibytes / 1024:,.1f} GiB" if mebibytes >= 1024 else f"{mebibytes:,.0f} MiB"
