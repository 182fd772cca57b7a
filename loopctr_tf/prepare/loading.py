"""Files into columns in memory, with the way back from a row to its place in a file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.columns import Column, ColumnBuilder
from loopctr_tf.prepare.reading import TableReader, data_files
from loopctr_tf.prepare.rejects import BadRow, Problem, Rejects
from loopctr_tf.prepare.wanted import Wanted


@dataclass
class _File:
    """What was read of a file: rows taken, and the numbers of those that were not."""

    path: Path
    taken: int = 0
    left_out: list[int] = field(default_factory=list)


class _Noted(Rejects):
    """Passes bad rows on and notes their numbers."""

    def __init__(self, rejects: Rejects, file: _File):
        super().__init__()
        self._inner, self._noted = rejects, file

    def add(self, file, bad: BadRow) -> None:
        self._inner.add(file, bad)
        self._noted.left_out.append(bad.row)


class Loaded:
    """A table in memory.

    Attributes:
      columns: by name.
      rows: how many.
      read: rows in the files, bad ones included.
    """

    def __init__(self, columns: dict[str, Column], files: list[_File], rejects: Rejects):
        self.columns, self._files, self._rejects = columns, files, rejects
        self._ends = np.cumsum([file.taken for file in files])
        self.rows = int(self._ends[-1])
        self.read = self.rows + sum(len(file.left_out) for file in files)

    def reject(
        self, rows: np.ndarray, column: str, problem: Problem, values: Sequence[str]
    ) -> None:
        """Counts ``rows`` of the table as bad, or refuses the first."""
        for row, value in zip(rows.tolist(), values, strict=True):
            index = int(np.searchsorted(self._ends, row, "right"))
            file = self._files[index]
            number = row - (int(self._ends[index - 1]) if index else 0) + 1
            # Rows that were left out have numbers too: add those before it.
            before = np.sort(file.left_out) - np.arange(len(file.left_out))
            number += int(np.searchsorted(before, number, "right"))
            self._rejects.add(file.path, BadRow(number, column, problem, value))


def load_table(
    paths: Sequence[str | Path],
    wanted: Sequence[Wanted],
    rejects: Rejects,
    what: str,
    progress: Callable[[int], Any],
) -> Loaded:
    """Reads the wanted columns of files into memory.

    Args:
      paths: files and folders.
      wanted: the columns.
      rejects: takes bad rows.
      what: the option that named the files, for messages.
      progress: called with the rows of each batch.

    Raises:
      UsageError: for what the reader refuses, or files without a single good row.
    """
    TableReader(paths, wanted)  # Finds what is wrong with the files together, before any is read.
    builders = {column.name: ColumnBuilder(column) for column in wanted}
    files = []
    for path in data_files(paths):
        file = _File(path)
        for table in TableReader(path, wanted, rejects=_Noted(rejects, file)):
            for name, builder in builders.items():
                for chunk in table.column(name).chunks:
                    builder.add(chunk)
            file.taken += len(table)
            progress(len(table))
        files.append(file)
    if not sum(file.taken for file in files):
        left_out = sum(len(file.left_out) for file in files)
        raise UsageError(
            f"{what} {', '.join(map(str, paths))} has no row to use ({left_out:,} rows are bad); name "
            "other files, or correct them"
        )
    return Loaded({name: b.finish() for name, b in builders.items()}, files, rejects)
