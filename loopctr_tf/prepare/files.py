"""The files of a table (Parquet, delimited text or JSON lines) as one DuckDB table expression.

Nothing is left to DuckDB's sniffer: delimiter, header and quoting are decided here and passed on. Text
cells are VARCHAR and empty ones NULL; empty lines are ignored. Lines that cannot be split into columns
are left out of the scan and listed by ``TableFiles.bad_lines``.
"""

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import duckdb

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.file_heads import Head, TextOptions, json_head, parquet_types, text_head
from loopctr_tf.prepare.file_paths import (
    FILE,
    TAB_SUFFIXES,
    checked_names,
    data_files,
    format_of,
    is_named,
    partition_keys,
)
from loopctr_tf.prepare.text_scan import (
    LINE_REMEDIES,
    NOT_JSON,
    SHOWN,
    BadLine,
    csv_scan,
    literal,
    quoted,
    rejected_lines,
    with_quoting,
)

__all__ = ["FILE", "LINE_REMEDIES", "BadLine", "TableFiles", "TextOptions", "data_files", "quoted"]

DEFAULT_TEXT = TextOptions()
_IS_OBJECT = "CASE WHEN json_valid(line) THEN json_type(line) = 'OBJECT' ELSE false END"
_NUMBERS = ("BIGINT", "UBIGINT", "HUGEINT", "DOUBLE")


class TableFiles:
    """The files of one table.

    Args:
      paths: one path or several: files and folders, which stand for their data files in the order of
        their names, those of Hive folders (``dt=2024-01-01/``) included. Names that begin with "_" or
        "." are ignored in folders.
      what: what the table is in messages, e.g. "--events".
      options: how to read text files.

    Attributes:
      paths: the files.
      format: "parquet", "text" or "json", by the names and, for Parquet, the first bytes.
      columns: name -> DuckDB type of the columns of all files.
      absent: column -> files without it; it is NULL in their rows.
      notes: lines for the screen, about decisions that the user should see.

    Raises:
      UsageError: if a path, its format, its header or the options are wrong.
    """

    def __init__(
        self,
        paths: str | Path | Sequence[str | Path],
        what: str,
        options: TextOptions = DEFAULT_TEXT,
    ):
        self.what, self.notes = what, []
        self.paths = data_files(paths, what)
        formats = {path: format_of(path) for path in self.paths}
        self.format = formats[self.paths[0]]
        other = next((path for path in self.paths if formats[path] != self.format), None)
        if other is not None:
            raise UsageError(
                f"{what}: {str(self.paths[0])!r} is {self.format} and {str(other)!r} is "
                f"{formats[other]}; write all files of the table in one format"
            )
        self._connection = duckdb.connect()
        self._keys = keys = partition_keys(self.paths, what)
        self._heads: list[Head] = []
        if self.format == "text":
            heads = (
                text_head(path, options, tab=is_named(path, TAB_SUFFIXES)) for path in self.paths
            )
            self._heads = [self._decided(head, options) for head in heads]
            files = [[(name, "VARCHAR") for name in head.names] for head in self._heads]
        elif self.format == "json":
            self._heads = [json_head(path) for path in self.paths]
            files = self._structures()
        else:
            files = [parquet_types(path) for path in self.paths]
        names = checked_names(self.paths, files, what)
        self.absent: dict[str, list[Path]] = {}
        for name in names:
            lacking = [
                path
                for path, columns in zip(self.paths, files, strict=True)
                if name not in keys and all(name != own for own, _ in columns)
            ]
            if lacking:
                self.absent[name] = lacking
        if self.format == "text":
            self.columns = dict.fromkeys(names, "VARCHAR")
        elif self.format == "json":
            self.columns = {
                name: _structure_type(
                    [kind for columns in files for own, kind in columns if own == name]
                )
                for name in names
            }
        else:
            self.columns = self._parquet_columns()
        self.columns |= dict.fromkeys(keys, "VARCHAR")

    def groups(self) -> list[tuple[Head | None, list[Path]]]:
        """(head, paths) of text files that can be read together; the head is None for JSON."""
        if self.format == "json":
            return [(None, self.paths)]
        pairs = groupby(zip(self.paths, self._heads, strict=True), lambda pair: pair[1])
        return [(head, [path for path, _ in group]) for head, group in pairs]

    def scan(self) -> str:
        """A table expression in DuckDB's dialect: the ``columns`` and ``FILE`` of all rows, in order."""
        listed = ", ".join(map(quoted, [*self.columns, FILE]))
        if self.format == "parquet":
            return f"(SELECT {listed} FROM {self._parquet()})"
        if self.format == "json":
            return self._json_scan()
        parts = []
        for head, paths in self.groups():
            own = {*head.names, *self._keys, FILE}
            values = ", ".join(
                quoted(name) if name in own else f"NULL::VARCHAR AS {quoted(name)}"
                for name in [*self.columns, FILE]
            )
            parts.append(f"SELECT {values} FROM {csv_scan(paths, head, bool(self._keys))}")
        return f"({' UNION ALL '.join(parts)})"

    def bad_lines(self, connection: duckdb.DuckDBPyConnection) -> list[BadLine]:
        """Lines left out of the scan, in the order of the files.

        Args:
          connection: on which ``scan()`` has been read to its end.
        """
        found = [] if self.format == "parquet" else rejected_lines(connection, self.paths)
        if self.format == "json":
            found += self._not_objects(connection)
        order = {str(path): place for place, path in enumerate(self.paths)}
        return sorted(found, key=lambda bad: (order[bad.file], bad.line))

    def _decided(self, head: Head, options: TextOptions) -> Head:
        head, note = with_quoting(head, options.quoting)
        self.notes += [note] if note else []
        return head

    # JSON lines.

    def _structures(self) -> list[list[tuple[str, object]]]:
        """Names of the columns of each file with DuckDB's description of their JSON."""
        described = dict(
            self._connection.execute(
                f"SELECT {quoted(FILE)}, json_group_structure(line::JSON) FROM {self._lines()} "
                f"WHERE {_IS_OBJECT} GROUP BY ALL"
            ).fetchall()
        )
        return [list(json.loads(described.get(str(path)) or "{}").items()) for path in self.paths]

    def _lines(self) -> str:
        groups = groupby(self._heads)
        scans = [
            csv_scan([h.path for h in group], head, bool(self._keys)) for head, group in groups
        ]
        return f"({' UNION ALL '.join(f'SELECT * FROM {scan}' for scan in scans)})"

    def _json_scan(self) -> str:
        types = {name: kind for name, kind in self.columns.items() if name not in self._keys}
        wanted = json.dumps({name: _json_type(kind) for name, kind in types.items()})
        fields = [f"__row[{literal(name)}] AS {quoted(name)}" for name in types]
        listed = ", ".join([*fields, *map(quoted, self._keys), quoted(FILE)])
        return (
            f"(SELECT {listed} FROM (SELECT *, json_transform(line, {literal(wanted)}) AS __row "
            f"FROM {self._lines()} WHERE {_IS_OBJECT}))"
        )

    def _not_objects(self, connection) -> list[BadLine]:
        """Lines that are no JSON objects; rows of DuckDB lack those that it rejected."""
        found = []
        rejected = [(path, line) for path, line, *_ in rejected_lines(connection, self.paths)]
        for path, head in zip(self.paths, self._heads, strict=True):
            rows = connection.execute(
                "SELECT place, line FROM (SELECT row_number() OVER () AS place, line "
                f"FROM {csv_scan([path], head)}) WHERE line IS NOT NULL AND NOT {_IS_OBJECT}"
            ).fetchall()
            skipped = sorted(line for own, line in rejected if own == str(path))
            for place, text in rows:
                for line in skipped:
                    place += line <= place
                found.append(BadLine(str(path), place, NOT_JSON, text[:SHOWN]))
        return found

    # Parquet.

    def _parquet(self) -> str:
        paths = ", ".join(literal(str(path)) for path in self.paths)
        return (
            f"read_parquet([{paths}], union_by_name=true, "
            f"filename={literal(FILE)}, hive_partitioning={str(bool(self._keys)).lower()}, "
            "hive_types_autocast=false)"
        )

    def _parquet_columns(self) -> dict[str, str]:
        try:
            rows = self._connection.execute(f"DESCRIBE SELECT * FROM {self._parquet()}").fetchall()
        except duckdb.Error as error:
            text = " ".join(str(error).split())
            raise UsageError(
                f"{self.what} cannot be read: {text}; write the files again"
            ) from error
        return {name: kind for name, kind, *_ in rows if name != FILE and name not in self._keys}


def _structure_type(kinds: Sequence[object]) -> str:
    """DuckDB type of the values that ``json_group_structure`` describes, file by file."""
    kinds = [kind for kind in kinds if kind != "NULL"]
    if not kinds:
        return "VARCHAR"
    if all(isinstance(kind, list) for kind in kinds):
        return f"{_structure_type([kind[0] for kind in kinds])}[]"
    if all(isinstance(kind, dict) for kind in kinds):
        return "JSON"
    if all(kind == kinds[0] for kind in kinds):
        return "VARCHAR" if kinds[0] == "JSON" else str(kinds[0])
    if all(kind in ("BIGINT", "UBIGINT", "HUGEINT") for kind in kinds):
        return "HUGEINT"
    return "DOUBLE" if all(kind in _NUMBERS for kind in kinds) else "VARCHAR"


def _json_type(kind: str) -> object:
    return [_json_type(kind[:-2])] if kind.endswith("[]") else kind


class MixedFiles:
    """The files of a table in the given order, those of one format after the other together.

    Args:
      paths, what, options: as for :class:`TableFiles`.

    Attributes:
      groups: consecutive files of one format.
      what: as given.
      columns: names of the columns of all files.
    """

    def __init__(
        self,
        paths: str | Path | Sequence[str | Path],
        what: str,
        options: TextOptions = DEFAULT_TEXT,
    ):
        self.what = what
        self.groups = [
            TableFiles(list(own), what, options)
            for _, own in groupby(data_files(paths, what), format_of)
        ]
        self.columns = list(dict.fromkeys(name for files in self.groups for name in files.columns))

    @property
    def paths(self) -> list[Path]:
        """All files."""
        return [path for files in self.groups for path in files.paths]

    @property
    def notes(self) -> list[str]:
        """Lines for the screen."""
        return [note for files in self.groups for note in files.notes]

    def absent(self, column: str) -> list[Path]:
        """The files without a column; it is missing in their rows."""
        found = []
        for files in self.groups:
            found += files.paths if column not in files.columns else files.absent.get(column, [])
        return found
