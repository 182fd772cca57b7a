"""Samples a table into DuckDB, all cells as text in one spelling."""

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import duckdb

from loopctr_tf.prepare.files import FILE, TableFiles, quoted
from loopctr_tf.prepare.profiles import PLACE, Profile, profile_of
from loopctr_tf.prepare.raw_types import is_list, kind_of, value_type
from loopctr_tf.prepare.text_scan import literal
from loopctr_tf.prepare.typed import WantedColumn, typed

SAMPLE_ROWS = 200_000
MOST_FILES = 50
"""More files than these are not all read: as many, evenly spread."""
_KINDS = ("text", "whole", "double", "decimal", "bool", "time")
"""Kinds of values that can be features."""


@dataclass(frozen=True)
class Sample:
    """The first rows of each file of a table, as the table ``sample`` of a database in memory.

    Attributes:
      database: a DuckDB connection; ``sample`` has the columns of ``profiles``, VARCHAR or VARCHAR[],
        and ``PLACE``.
      profiles: by column name.
      rows: number of rows.
      whole: whether these are all rows of the table.
      files: number of files.
      notes: what is to be known of the files.
      unreadable: columns of unsupported types, with their types.
    """

    database: duckdb.DuckDBPyConnection
    profiles: dict[str, Profile]
    rows: int
    whole: bool
    files: int = 1
    notes: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)

    def one(self, sql: str) -> tuple:
        """The first row of a query."""
        return self.database.execute(sql).fetchone()

    def constant_within(
        self, name: str, key: str, among: str = "count(*) > 1"
    ) -> tuple[float, int]:
        """(share of ``key``'s values with one value of ``name``, number of values with several rows).

        ``among`` limits these values by an aggregate in SQL.
        """
        value = f"coalesce({quoted(name)}::VARCHAR, '')"
        share, count = self.one(
            f"SELECT avg((values = 1)::INT), count(*) FROM (SELECT count(DISTINCT {value}) AS values "
            f"FROM sample WHERE {quoted(key)} IS NOT NULL GROUP BY {quoted(key)} HAVING {among})"
        )
        return share or 0.0, count


def take_sample(files: TableFiles, rows: int = SAMPLE_ROWS) -> Sample:
    """Reads about ``rows`` rows, the first of each file, and profiles all columns.

    Cells are text as ``typed`` spells it: 5 for 5.0, true for True, null for words for missing.

    Raises:
      UsageError: for files that cannot be read.
    """
    database = duckdb.connect()
    database.execute("SET TimeZone = 'UTC'")
    unreadable = {n: kind for n, kind in files.columns.items() if _kind(kind) not in _KINDS}
    kinds = {n: kind for n, kind in files.columns.items() if n not in unreadable}
    columns = ", ".join(
        f"{quoted(name)} VARCHAR{'[]' if is_list(kind) else ''}" for name, kind in kinds.items()
    )
    database.execute("CREATE SEQUENCE places")
    database.execute(f"CREATE TABLE sample ({PLACE} BIGINT, {columns})")
    database.execute("SET threads = 1")  # With several, LIMIT may take other rows each time.
    whole = _fill(database, files, kinds, rows)
    database.execute("RESET threads")
    looked_at = database.execute("SELECT count(*) FROM sample").fetchone()[0]
    profiles = {}
    for name, kind in kinds.items():
        found = profile_of(database, name, kind)
        absent = len(files.absent.get(name, ()))
        profiles[name] = replace(found, looked_at=looked_at, absent=absent)
    bad = Counter(line.reason for line in files.bad_lines(database))
    notes = [*files.notes, *(f"lines that cannot be read ({why}): {n:,}" for why, n in bad.items())]
    return Sample(database, profiles, looked_at, whole, len(files.paths), notes, unreadable)


def _kind(raw_type: str) -> str:
    """The kind of the values, in lists or not."""
    return kind_of(value_type(raw_type) if is_list(raw_type) else raw_type)


def _cell(name: str, raw_type: str) -> str:
    """SQL that makes text, or a list of text, of a column."""
    return typed(WantedColumn(name, "string", many=is_list(raw_type)), raw_type).value


def _fill(database, files: TableFiles, kinds: dict[str, str], rows: int) -> bool:
    """Fills ``sample``; returns whether all rows are in it."""
    cells = ", ".join(_cell(name, kind) for name, kind in kinds.items())
    paths = _spread(files)
    whole = len(paths) == len(files.paths)
    for place, path in enumerate(paths):
        taken = database.execute("SELECT count(*) FROM sample").fetchone()[0]
        share = max((rows - taken) // (len(paths) - place), 1)
        added = database.execute(
            f"INSERT INTO sample SELECT nextval('places'), {cells} FROM {files.scan()} "
            f"WHERE {quoted(FILE)} = {literal(str(path))} LIMIT {share + 1}"
        ).fetchone()[0]
        if added > share:
            whole = False
            database.execute(
                f"DELETE FROM sample WHERE {PLACE} = (SELECT max({PLACE}) FROM sample)"
            )
    return whole


def _spread(files: TableFiles) -> list[Path]:
    """The files to read: all, or evenly spread ones and those with columns that they lack."""
    paths = list(files.paths)
    if len(paths) <= MOST_FILES:
        return paths
    chosen = {paths[i * (len(paths) - 1) // (MOST_FILES - 1)] for i in range(MOST_FILES)}
    for lacking in files.absent.values():
        if chosen <= set(lacking):
            chosen.add(next(path for path in paths if path not in lacking))
    return [path for path in paths if path in chosen]
