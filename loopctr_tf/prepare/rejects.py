"""Bad rows: an error that names the cell, or a reject that is counted and written to a file."""

import csv
from dataclasses import dataclass
from pathlib import Path

from loopctr_tf.errors import UsageError

COLUMNS = ("file", "row", "column", "reason", "value")
_SHOWN, _WRITTEN = 40, 200


@dataclass(frozen=True)
class Problem:
    """A kind of bad row: ``reason`` under which it is counted, and ``remedy``."""

    reason: str
    remedy: str


@dataclass(frozen=True)
class BadRow:
    """One bad row and what is wrong with it.

    Attributes:
      row: number of the row in its file, data rows counted from 1; None if unknown.
      column: name, or "" if the row could not be split into columns.
      problem: what is wrong.
      value: the cell (or the row's text), whole or its beginning; None for a missing one.
      line: line of the file on which the row begins, counted from 1; None if unknown.
    """

    row: int | None
    column: str
    problem: Problem
    value: str | bytes | None
    line: int | None = None


class Rejects:
    """Collects bad rows, or raises an error for the first one.

    Args:
      path: CSV file for the bad rows, with the columns file, row, column, reason and value (its first
        200 characters); made with the first bad row. None makes the first bad row a UsageError that
        names file, row, column, value and remedy.

    Attributes:
      counts: rows by reason. A row counts once, for its first bad column.
    """

    def __init__(self, path: str | Path | None = None):
        self.path = None if path is None else Path(path)
        self.counts: dict[str, int] = {}
        self._file = None

    def add(self, file: str | Path, bad: BadRow) -> None:
        """Counts and writes a bad row of ``file``; UsageError without a file for them."""
        problem = bad.problem
        if self.path is None:
            places = [] if bad.row is None else [f"row {bad.row:,}"]
            places += [] if bad.line is None else [f"line {bad.line:,}"]
            column = f", column {bad.column!r}" if bad.column else ""
            value = "" if bad.value is None else f", '{shorten(bad.value, _SHOWN)}'"
            raise UsageError(
                f"{str(file)!r}, {', '.join(places)}{column}: {problem.reason}{value}; "
                f"{problem.remedy}, or leave such rows out with --skip-bad"
            )
        if self._file is None:
            self._file = self.path.open("w", newline="", encoding="utf-8")
            csv.writer(self._file).writerow(COLUMNS)
        value = "" if bad.value is None else shorten(bad.value, _WRITTEN)
        row = f"line {bad.line}" if bad.row is None else bad.row
        csv.writer(self._file).writerow([file, row, bad.column, problem.reason, value])
        self.counts[problem.reason] = self.counts.get(problem.reason, 0) + 1

    def close(self) -> None:
        """Closes the file of bad rows."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> "Rejects":
        return self

    def __exit__(self, *error) -> None:
        self.close()


def shorten(value: str | bytes, most: int) -> str:
    """``value`` as printable text of at most ``most`` characters, with its length if cut."""
    piece = value[: 4 * most]
    text = piece.decode("utf-8", "backslashreplace") if isinstance(piece, bytes) else piece
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    if len(text) <= most and len(piece) == len(value):
        return text
    unit = "bytes" if isinstance(value, bytes) else "characters"
    return f"{text[:most]}... ({len(value):,} {unit})"
