"""Reads Parquet, CSV and CSV.gz files as typed, checked Arrow tables in bounded batches.

A bad cell is an error that names file, row and column, or a counted reject (see ``rejects``). ``cells``
and ``times`` describe what each type accepts.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.converting import MISSING, Converter
from loopctr_tf.prepare.parquet_files import ParquetFile
from loopctr_tf.prepare.rejects import BadRow, Rejects
from loopctr_tf.prepare.text_files import RawRows, TextFile
from loopctr_tf.prepare.wanted import WantedColumn, check_type, kind_of

__all__ = ["CELL_LIMIT", "Rejects", "TableReader", "WantedColumn", "data_files"]

CELL_LIMIT = 1 << 20
"""Maximum bytes of a text cell."""

_PARQUET = (".parquet", ".pq")
_TEXT = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
_MAGIC = b"PAR1"


class TableReader:
    """Iterates over the rows of files as Arrow tables of the wanted columns.

    Rows come in file order, at most ``batch_rows`` per table. Row numbers count a file's data rows
    from 1, without header and empty lines; line numbers count all lines from 1.

    Args:
      paths: one path or several: files (Parquet by its first bytes or by the name .parquet; else
        delimited text, gzip where the name ends in .gz) and folders of .parquet, .csv and .tsv files,
        in the order of their names. Files in a folder that begin with "_" or "." are ignored.
      wanted: the columns, without repeated names.
      rejects: takes the bad rows of the first iteration; None makes the first bad row a UsageError.
      batch_rows: maximum rows of a table.
      column_names: of text files without a header.
      delimiter: of text files; None means a tab for .tsv files, else a comma, or if the header has no
        comma, the tab, semicolon or bar in it.
      quoting: whether double quotes may enclose delimiters and line breaks in text files.
      cell_limit: maximum bytes of a text cell. A row of a text file may have 16 times as many; a longer
        one is skipped without being held in memory.

    Raises:
      UsageError: for a file that is absent, empty or not of the type of its name, a column that a file
        lacks or has twice, or types that differ between files or cannot be converted; while iterating,
        for a bad row (without ``rejects``) and for a damaged file.
    """

    def __init__(
        self,
        paths: str | Path | Sequence[str | Path],
        wanted: Sequence[WantedColumn],
        *,
        rejects: Rejects | None = None,
        batch_rows: int = 65536,
        column_names: Sequence[str] | None = None,
        delimiter: str | None = None,
        quoting: bool = True,
        cell_limit: int = CELL_LIMIT,
    ):
        self._wanted, self._batch_rows, self._limit = tuple(wanted), batch_rows, cell_limit
        self._rejects = Rejects() if rejects is None else rejects
        names = [column.name for column in wanted]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"column {name!r} is asked for twice; name it once")
        self._files = [
            ParquetFile(path, batch_rows)
            if _is_parquet(path)
            else TextFile(path, column_names, delimiter, quoting, most=16 * cell_limit)
            for path in data_files(paths)
        ]
        for column in self._wanted:
            self._check(column)
        self._checked_rows = [0] * len(self._files)  # Last row checked in each file.

    def __iter__(self) -> Iterator[pa.Table]:
        schema = pa.schema([(column.name, column.arrow_type) for column in self._wanted])
        for index, file in enumerate(self._files):
            converters = [Converter(column, self._limit) for column in self._wanted]
            for raw in file.batches([column.name for column in self._wanted]):
                columns = self._checked(index, raw, converters)
                table = pa.table(columns, schema=schema)
                for start in range(0, len(table), self._batch_rows):
                    yield table.slice(start, self._batch_rows)

    def column_types(self) -> dict[str, pa.DataType]:
        """Name -> Arrow type of the first file's columns; strings for text files."""
        return dict(self._files[0].types)

    def _checked(self, index: int, raw: RawRows, converters) -> list[pa.Array]:
        """The columns without bad rows, which are reported in file order."""
        columns, problems = [], []
        for convert, array in zip(converters, raw.columns, strict=True):
            values, found = convert(array)
            columns.append(values)
            problems.append(found)
        bad = np.zeros(len(raw.rows), bool)
        for _, rows in (pair for found in problems for pair in found):
            bad |= rows
        if bad.any() or raw.bad:
            bad_rows = [
                *raw.bad,
                *(self._bad_row(row, raw, problems) for row in np.flatnonzero(bad)),
            ]
            for row in sorted(bad_rows, key=lambda row: row.row):
                if row.row > self._checked_rows[index]:
                    self._rejects.add(self._files[index].path, row)
        last = max([*raw.rows[-1:], *(row.row for row in raw.bad)], default=0)
        self._checked_rows[index] = max(self._checked_rows[index], int(last))
        if bad.any():
            columns = [values.filter(pa.array(~bad)) for values in columns]
        return columns

    def _bad_row(self, row: int, raw: RawRows, problems) -> BadRow:
        column, problem = next(
            (index, problem)
            for index, found in enumerate(problems)
            for problem, rows in found
            if rows[row]
        )
        value = None if problem is MISSING else raw.columns[column][row].as_py()
        line = None if raw.lines is None else int(raw.lines[row])
        text = value if value is None or isinstance(value, bytes) else str(value)
        return BadRow(int(raw.rows[row]), self._wanted[column].name, problem, text, line)

    def _check(self, column: WantedColumn) -> None:
        """Checks that every file has the column once, of one convertible kind."""
        first: tuple[str, pa.DataType, Path] | None = None
        for file in self._files:
            where = f"{str(file.path)!r}"
            if column.name not in file.types:
                raise UsageError(
                    f"{where} has no column {column.name!r}; its columns are {_listed(file)}"
                )
            if column.name in file.repeated:
                raise UsageError(f"{where} has column {column.name!r} more than once; keep one")
            kind = file.types[column.name]
            check_type(column, kind, where)
            if isinstance(file, TextFile) or pa.types.is_null(kind):
                continue
            if first is not None and first[0] != kind_of(kind):
                raise UsageError(
                    f"column {column.name!r} is {kind} in {where} and {first[1]} in "
                    f"{str(first[2])!r}; write both files alike"
                )
            first = first or (kind_of(kind), kind, file.path)


def data_files(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files of ``paths``, with folders replaced by their data files.

    Raises:
      UsageError: if a path does not exist, or a folder holds no data files or others.
    """
    if isinstance(paths, (str, Path)):
        paths = [paths]
    files = []
    for path in map(Path, paths):
        if path.is_dir():
            files += _files_of(path)
        elif path.exists():
            files.append(path)
        else:
            raise UsageError(f"{str(path)!r} does not exist; name a Parquet or CSV file")
    if not files:
        raise UsageError("no files are named; give at least one Parquet or CSV file")
    return files


def _files_of(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if path.name[0] not in "._")
    if not found:
        raise UsageError(f"folder {str(folder)!r} holds no Parquet or CSV file; name another")
    for path in found:
        if path.is_dir() or not path.name.endswith((*_PARQUET, *_TEXT)):
            raise UsageError(
                f"folder {str(folder)!r} holds {path.name!r}, which is not a Parquet or CSV file; name "
                "the files themselves"
            )
    return found


def _is_parquet(path: Path) -> bool:
    if path.suffix in _PARQUET:
        return True
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError as error:
        raise UsageError(f"{str(path)!r} cannot be read: {error.strerror}") from error


def _listed(file: ParquetFile | TextFile) -> str:
    names = list(file.types)
    text = ", ".join(names[:30]) + (f" and {len(names) - 30} more" if len(names) > 30 else "")
    if len(names) == 1 and isinstance(file, TextFile):
        text += " only: is the delimiter another character?"
    return text
