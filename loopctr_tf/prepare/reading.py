"""Reads the files of a table into typed columns, and rejects its bad rows."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare import statements
from loopctr_tf.prepare.checks import row_numbers
from loopctr_tf.prepare.duckdb_engine import DuckDBEngine
from loopctr_tf.prepare.engine import Engine
from loopctr_tf.prepare.files import DEFAULT_TEXT, LINE_REMEDIES, MixedFiles, TextOptions
from loopctr_tf.prepare.plan import USER
from loopctr_tf.prepare.rejects import BadRow, Problem, Rejects
from loopctr_tf.prepare.statements import BAD_COLUMN, BAD_REASON, BAD_VALUE, FILE, PLACE
from loopctr_tf.prepare.typed import REMEDIES, WantedColumn, check_type

DUPLICATE = Problem("duplicate event", "remove it, or write build: {duplicates: keep}")
TWICE = Problem("key is in the table twice", "keep one row for each")


@dataclass
class TypedTable:
    """A table that the engine has as ``typed_<name>``.

    Attributes:
      name: "events", "impressions", "items", "users" or "rows".
      wanted: its columns.
      read: rows in the files, including bad ones.
      bad: rows left out because of a cell or line.
    """

    engine: Engine
    rejects: Rejects
    name: str
    wanted: Sequence[WantedColumn]
    read: int = 0
    bad: int = 0

    def reject_cells(self) -> None:
        """Rejects the rows with a bad cell."""
        table = f"typed_{self.name}"
        cells = self.engine.query(statements.bad_cells(table)).to_pylist()
        places = [(row[FILE], row[PLACE]) for row in cells]
        numbers = row_numbers(self.engine, table, places)
        for row, number in zip(cells, numbers, strict=True):
            problem = Problem(row[BAD_REASON], REMEDIES.get(row[BAD_REASON], "correct it"))
            self.rejects.add(row[FILE], BadRow(number, row[BAD_COLUMN], problem, row[BAD_VALUE]))
        found = self.engine.query(f"SELECT count(*) AS n FROM {table}")["n"][0].as_py()
        self.read, self.bad = found + self.bad, self.bad + len(cells)

    def reject_repeated(self, key: str) -> int:
        """Rejects all but the first row of each key; returns how many."""
        query = statements.repeated_keys(f"typed_{self.name}", key)
        column = next(column.raw for column in self.wanted if column.name == key)
        return self._reject(query, column, TWICE, key, "")

    def reject_duplicates(self) -> int:
        """Rejects events that equal an earlier one in all columns read; returns how many."""
        self.engine.create("duplicates", statements.duplicates(f"typed_{self.name}", self.wanted))
        return self._reject("SELECT * FROM duplicates", "", DUPLICATE, USER, "user ")

    def _reject(self, query: str, column: str, problem: Problem, key: str, before: str) -> int:
        found = self.engine.query(query).to_pylist()
        places = [(row[FILE], row[PLACE]) for row in found]
        numbers = row_numbers(self.engine, f"typed_{self.name}", places)
        for row, number in zip(found, numbers, strict=True):
            self.rejects.add(row[FILE], BadRow(number, column, problem, f"{before}{row[key]}"))
        return len(found)


def read_table(
    engine: Engine,
    name: str,
    files: MixedFiles,
    wanted: Sequence[WantedColumn],
    rejects: Rejects,
) -> TypedTable:
    """Makes the engine's table ``typed_<name>``.

    Args:
      engine: reads the files.
      name: of the table.
      files: of the table.
      wanted: the columns.
      rejects: takes bad lines and rows.

    Raises:
      UsageError: if a column cannot be read as wanted, or no row is good.
    """
    table, selects = TypedTable(engine, rejects, name, wanted), []
    for number, group in enumerate(files.groups):
        raw, types = f"{name}_{number}", dict(group.columns)
        engine.read(raw, group)
        lacking = [column.raw for column in wanted if column.raw not in types]
        types |= dict.fromkeys(lacking, "VARCHAR")
        for column in wanted:
            check_type(column, types[column.raw], files.what)
        relation = statements.with_missing(f"raw_{raw}", lacking)
        selects.append(statements.typed_columns(relation, wanted, types, engine.origin))
    engine.create_typed(name, " UNION ALL ".join(selects))
    for number in range(len(files.groups)):
        for file, line, reason, text in engine.bad_lines(f"{name}_{number}"):
            problem = Problem(reason, LINE_REMEDIES.get(reason, "correct the line"))
            rejects.add(file, BadRow(None, "", problem, text, line))
            table.bad += 1
    table.reject_cells()
    if table.read == table.bad:
        raise UsageError(
            f"{files.what} {', '.join(map(str, files.paths))} has no usable row ({table.bad:,} rows are "
            "bad); name other files, or correct them"
        )
    return table


class TypedRows:
    """The good rows of files as Arrow tables, as often as they are iterated over; for recipes.

    They lie in a temporary file between iterations, so that memory does not grow with their number.

    Args:
      paths: one path or several; see ``files.MixedFiles``.
      wanted: the columns.
      rejects: takes the bad rows, once; None makes the first one a UsageError.
      text: how text files are read.
      batch_rows: maximum rows of a table.

    Raises:
      UsageError: as :func:`read_table` does, when the first row is taken.
    """

    def __init__(
        self,
        paths: str | Path | Sequence[str | Path],
        wanted: Sequence[WantedColumn],
        *,
        rejects: Rejects | None = None,
        text: TextOptions = DEFAULT_TEXT,
        batch_rows: int = 65536,
    ):
        self.files = MixedFiles(paths, "the files", text)
        self._wanted, self._rejects, self._batch_rows = wanted, rejects, batch_rows

    @cached_property
    def _engine(self) -> DuckDBEngine:
        self._folder = tempfile.TemporaryDirectory()
        engine = DuckDBEngine(Path(self._folder.name) / "work", 1)
        rejects = Rejects() if self._rejects is None else self._rejects
        read_table(engine, "rows", self.files, self._wanted, rejects)
        return engine

    def __iter__(self) -> Iterator[pa.Table]:
        names = ", ".join(statements.ident(column.name) for column in self._wanted)
        query = f"SELECT {names} FROM typed_rows WHERE {BAD_REASON} IS NULL ORDER BY {PLACE}"
        yield from self._engine.batches(query, self._batch_rows)
