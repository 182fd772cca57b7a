"""Shards of a prepared folder, over worker processes: the same bytes for any number of them."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from loopctr_tf.features.prepared import PreparedWriter, shard_path
from loopctr_tf.features.records import WireColumn, serialize_rows, write_records
from loopctr_tf.prepare.workers import run_tasks

Piece = tuple[Mapping[str, WireColumn], Mapping[str, int]]
"""Columns of some rows, and counts of what is in them, of which "rows" and "clicks" are needed."""


def write_shards(
    folder: Path,
    writer: PreparedWriter,
    shards: Iterable[tuple[str, Any]],
    pieces: Callable[[str, Any], Iterator[Piece]],
    workers: int,
    progress: Callable[[int], Any],
) -> Counter:
    """Writes one shard for each of ``shards``.

    Args:
      folder: of ``writer``.
      writer: takes up the shards.
      shards: (split, what the shard is made of), in their order; the latter goes to a worker.
      pieces: makes of both the shard's rows, a part at a time; runs in a worker.
      workers: processes.
      progress: called with the rows of each shard.

    Returns:
      The sums of all counts.
    """
    numbers: Counter = Counter()
    total: Counter = Counter()

    def numbered() -> Iterator[tuple[str, int, Any]]:
        for split, content in shards:
            yield split, numbers[split], content
            numbers[split] += 1

    def write(shard: tuple[str, int, Any]) -> tuple[str, Counter]:
        split, number, content = shard
        counts: Counter = Counter()

        def serialized():
            for columns, found in pieces(split, content):
                counts.update(found)
                yield serialize_rows(columns)

        write_records(shard_path(folder, split, number), serialized())
        return split, counts

    def done(result: tuple[str, Counter]) -> None:
        split, counts = result
        writer.add(split, counts["rows"], counts["clicks"])
        total.update(counts)
        progress(counts["rows"])

    run_tasks(write, numbered(), done, workers)
    return total
