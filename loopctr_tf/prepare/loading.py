"""Reads files into columns in memory, and maps a row back to its place in a file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.columns import Column, ColumnBuilder
from loopctr_tf.prepare.reading import TableReader, data_files
from loopctr_tf.prepare.rejects import BadRow, Problem, Rejects
from loopctr_tf.prepare.wanted import WantedColumn


@dataclass
class _File:
    """What was read from a file: number of rows taken, and row numbers of the bad ones."""

    path: Path
    taken: int = 0
    left_out: list[int] = field(default_factory=list)


class _RecordingRejects(Rejects):
    """Passes bad rows on and records their numbers."""

    def __init__(self, rejects: Rejects, file: _File):
        super().__init__()
        self._inner, self._recorded = rejects, file

    def add(self, file, bad: BadRow) -> None:
        self._inner.add(file, bad)
        self._recorded.left_out.append(bad.row)


class LoadedTable:
    """A table in memory.

    Attributes:
      columns: by name.
      rows: number of rows.
      read: number of rows in the files, including bad ones.
    """

    def __init__(self, columns: dict[str, Column], files: list[_File], rejects: Rejects):
        self.columns, self._files, self._rejects = columns, files, rejects
        self._ends = np.cumsum([file.taken for file in files])
        self.rows = int(self._ends[-1])
        self.read = self.rows + sum(len(file.left_out) for file in files)

    def reject(
        self, rows: np.ndarray, column: str, problem: Problem, values: Sequence[str]
    ) -> None:
        """Rejects ``rows`` of the table as bad."""
        for row, value in zip(rows.tolist(), values, strict=True):
            index = int(np.searchsorted(self._ends, row, "right"))
            file = self._files[index]
            number = row - (int(self._ends[index - 1]) if index else 0) + 1
            # Count the rows left out before it, too.
            before = np.sort(file.left_out) - np.arange(len(file.left_out))
            number += int(np.searchsorted(before, number, "right"))
            self._rejects.add(file.path, BadRow(number, column, problem, value))


def load_table(
    paths: Sequence[str | Path],
    wanted: Sequence[WantedColumn],
    rejects: Rejects,
    what: str,
    progress: Callable[[int], Any],
) -> LoadedTable:
    """Reads columns of files into memory.

    Args:
      paths: files and folders.
      wanted: the columns.
      rejects: takes bad rows.
      what: the option that names the files, for messages.
      progress: called with the rows of each batch.

    Raises:
      UsageError: if the reader refuses a file, or no row is good.
    """
    TableReader(paths, wanted)  # Checks all files before any is read.
    builders = {column.name: ColumnBuilder(column) for column in wanted}
    files = []
    for path in data_files(paths):
        file = _File(path)
        for table in TableReader(path, wanted, rejects=_RecordingRejects(rejects, file)):
            for name, builder in builders.items():
                for chunk in table.column(name).chunks:
                    builder.add(chunk)
            file.taken += len(table)
            progress(len(table))
        files.append(file)
    if not sum(file.taken for file in files):
        left_out = sum(len(file.left_out) for file in files)
        raise UsageError(
            f"{what} {', '.join(map(str, paths))} has no usable row ({left_out:,} rows are bad); name "
            "other files, or correct them"
        )
    return LoadedTable({name: b.finish() for name, b in builders.items()}, files, rejects)
