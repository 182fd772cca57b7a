"""Writes shards of a prepared folder in worker processes: the same bytes for any number of them."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from loopctr_tf.features.prepared import PreparedWriter, shard_path
from loopctr_tf.features.records import WireColumn, serialize_rows, write_records
from loopctr_tf.prepare.workers import run_tasks

Piece = tuple[Mapping[str, WireColumn], Mapping[str, int]]
"""(columns of some rows, counts with at least "rows" and "clicks")."""


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
      writer: registers the shards.
      shards: (split, content) in order; the content is sent to a worker.
      pieces: makes a shard's rows from split and content, part by part; runs in a worker.
      workers: number of processes.
      progress: called with the number of rows of each shard.

    Returns:
      The summed counts.
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
