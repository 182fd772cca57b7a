"""What an engine does for preparation, and the steps that run in its worker processes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from loopctr_tf.features.prepared import SPLITS
from loopctr_tf.features.records import write_records
from loopctr_tf.prepare.files import TableFiles
from loopctr_tf.prepare.kernel import Job, Part, mark

PART_EVENTS, LEAST_EVENTS, FEW_PARTS = 400_000, 20_000, 16
"""Most events of a part on average; and for small logs, fewest of them and most parts."""


@dataclass(frozen=True)
class Shard:
    """A TFRecord file that was written, with its rows and positive ones."""

    split: str
    name: str
    rows: int
    clicks: int


class Engine(Protocol):
    """Runs the statements of ``statements`` and the kernel's steps on every part.

    Tables that statements refer to exist by their names: ``raw_<table>`` after :meth:`read`,
    ``typed_<table>`` with ``__place`` after :meth:`create_typed`, ``parts`` after :meth:`split`,
    ``marked`` after :meth:`mark`, and all others after :meth:`create`.

    Attributes:
      origin: columns of ``raw_<table>`` that say where a row comes from.
    """

    origin: tuple[str, ...]

    def read(self, table: str, files: TableFiles) -> None:
        """Makes ``raw_<table>``: the columns of the files and ``__file``."""

    def create_typed(self, table: str, select: str) -> None:
        """Stores a query of ``raw_<table>`` as ``typed_<table>``, in the order of the files."""

    def bad_lines(self, table: str) -> Iterator[tuple[str, int, str, str]]:
        """(file, line, reason, text) of lines that could not be split into columns."""

    def create(self, name: str, select: str, view: bool = False) -> None:
        """Stores a query under a name; a view is computed whenever it is used."""

    def query(self, select: str) -> pa.Table:
        """The rows of a query, which are few."""

    def split(self, select: str) -> None:
        """Stores a query by its column ``__part``."""

    def mark(self, job: Job, parts: int, progress: Callable[[int], object]) -> None:
        """Runs the kernel's ``mark`` on every part."""

    def write(
        self, job: Job, parts: int, folder: Path, shard_rows: int, progress: Callable[[int], object]
    ) -> list[Shard]:
        """Writes the rows of every part as shards; ``folder`` has a folder for each split."""


def number_of_parts(events: int) -> int:
    """How many parts a log has; the same whatever prepares it."""
    return max(1, min(events // LEAST_EVENTS, FEW_PARTS), -(-events // PART_EVENTS))


def whole_sums(table: pa.Table) -> pa.Table:
    """``table`` with int64 where an engine gave decimals, as sums of whole numbers."""
    kinds = [pa.int64() if pa.types.is_decimal(f.type) else f.type for f in table.schema]
    return table.cast(pa.schema(list(zip(table.column_names, kinds, strict=True))))


def marked_path(folder: Path, part: int) -> Path:
    """Where the marked events of a part are."""
    return folder / f"marked-{part:06d}.parquet"


def mark_part(events: pa.Table, job: Job, path: Path) -> int:
    """Writes a part's marked events to ``path``; returns their number."""
    pq.write_table(mark(events, job), path, compression="lz4")
    return len(events)


def write_part(source: Path, part: int, job: Job, folder: Path, shard_rows: int) -> list[Shard]:
    """Writes the shards of a part, of which ``source`` has the marked events."""
    if not source.exists():  # a part without users
        return []
    events = Part(pq.read_table(source), job)
    shards, step = [], max(1, shard_rows // job.per_event)
    for index, split in enumerate(SPLITS):
        rows = events.rows_of(index)
        for number, start in enumerate(range(0, len(rows), step)):
            chosen = rows[start : start + step]
            name = f"part-{part:05d}-{number:03d}.tfrecord"
            pieces = (events.records(chosen[piece]) for piece in events.pieces(len(chosen)))
            written, _ = write_records(folder / split / name, pieces)
            shards.append(Shard(split, name, written, int(events.label[chosen].sum())))
    return shards
