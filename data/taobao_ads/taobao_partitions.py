"""Rows parted by user into Parquet files, so that one part at a time fits in memory."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_WAITING = 1 << 22
"""Rows that wait in memory before they are written to their parts."""


class Partitions:
    """Rows with a whole-number column ``user``, in ``count`` files; a user's rows are in one of them.

    Args:
      folder: for the files; must exist.
      name: what the names of the files begin with.
      schema: of the rows.
      count: files.
    """

    def __init__(self, folder: Path, name: str, schema: pa.Schema, count: int):
        self._paths = [folder / f"{name}-{part:05d}.parquet" for part in range(count)]
        self._schema = schema
        self._writers: dict[int, pq.ParquetWriter] = {}
        self._waiting: list[pa.Table] = []
        self._rows = 0

    def add(self, table: pa.Table) -> None:
        """Takes rows; the order of a user's rows is kept."""
        self._waiting.append(table.cast(self._schema))
        self._rows += len(table)
        if self._rows >= _WAITING:
            self._write()

    def close(self) -> None:
        """Writes what waits and finishes the files."""
        self._write()
        for writer in self._writers.values():
            writer.close()

    def take(self, part: int) -> pa.Table:
        """The rows of a part in the order in which they came; its file is removed."""
        if part not in self._writers:
            return self._schema.empty_table()
        table = pq.read_table(self._paths[part])
        self._paths[part].unlink()
        return table

    def _write(self) -> None:
        if not self._rows:
            return
        table = pa.concat_tables(self._waiting).combine_chunks()
        self._waiting, self._rows = [], 0
        parts = table["user"].to_numpy() % len(self._paths)
        order = np.argsort(parts, kind="stable")
        table, parts = table.take(pa.array(order)), parts[order]
        bounds = np.searchsorted(parts, np.arange(len(self._paths) + 1))
        for part in np.flatnonzero(np.diff(bounds)).tolist():
            if part not in self._writers:
                self._writers[part] = pq.ParquetWriter(self._paths[part], self._schema)
            self._writers[part].write_table(
                table.slice(bounds[part], bounds[part + 1] - bounds[part])
            )
