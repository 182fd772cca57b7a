"""Parquet files: batches of rows with row numbers, of bounded size."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.text_files import RawRows

BATCH_BYTES = 1 << 26
"""Approximate maximum of uncompressed bytes per batch."""


class ParquetFile:
    """A Parquet file.

    Args:
      path: the file.
      batch_rows: maximum rows of a batch.

    Attributes:
      types: name -> Arrow type of every column, in order.
      repeated: names shared by several columns.

    Raises:
      UsageError: if the file cannot be read or is not Parquet.
    """

    def __init__(self, path: Path, batch_rows: int):
        self.path, self._batch_rows = path, batch_rows
        with self._reading("is it a whole Parquet file?"), self._open() as file:
            schema = file.schema_arrow
        self.types = {field.name: field.type for field in schema}
        self.repeated = {name for name in schema.names if schema.names.count(name) > 1}

    def batches(self, names: Sequence[str]) -> Iterator[RawRows]:
        """The columns ``names`` batch by batch, in the file's types."""
        done = 0
        with self._open() as file:
            for group in range(file.num_row_groups):
                batches = file.iter_batches(
                    self._rows(file.metadata.row_group(group), names),
                    row_groups=[group],
                    columns=list(names),
                    use_threads=False,
                )
                while True:
                    rest = f"what follows row {done:,} cannot be read, also with --skip-bad"
                    with self._reading(f"{rest}; write the file again or leave it out"):
                        batch = next(batches, None)
                    if batch is None:
                        break
                    columns = [batch.column(name) for name in names]
                    yield RawRows(columns, np.arange(done, done + len(batch)) + 1)
                    done += len(batch)

    def _rows(self, group: pq.RowGroupMetaData, names: Sequence[str]) -> int:
        """Rows of a batch of about BATCH_BYTES."""
        columns = (group.column(index) for index in range(group.num_columns))
        size = sum(
            column.total_uncompressed_size
            for column in columns
            if column.path_in_schema.partition(".")[0] in names or column.path_in_schema in names
        )
        rows = BATCH_BYTES * max(group.num_rows, 1) // max(size, 1)
        return max(1, min(self._batch_rows, rows))

    def _open(self) -> pq.ParquetFile:
        # Buffered: otherwise a column's whole row group is in memory.
        return pq.ParquetFile(self.path, buffer_size=1 << 20, pre_buffer=False)

    @contextmanager
    def _reading(self, remedy: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            what = error.strerror or " ".join(str(error).split())
            raise UsageError(f"{str(self.path)!r} cannot be read: {what}; {remedy}") from error
        except pa.ArrowException as error:
            what = " ".join(str(error).split())
            raise UsageError(f"{str(self.path)!r} cannot be read: {what}; {remedy}") from error
