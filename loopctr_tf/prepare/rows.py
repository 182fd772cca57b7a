"""Makes a prepared folder of rows that contain their histories."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from loopctr_tf.errors import UsageError
from loopctr_tf.features.frame import Column, unfilled_columns
from loopctr_tf.features.prepared import (
    SHARD_ROWS,
    SPLITS,
    PreparedWriter,
    shard_path,
    wire_columns,
)
from loopctr_tf.features.records import serialize_rows, write_records
from loopctr_tf.features.schema import Feature, Schema
from loopctr_tf.files import new_folder
from loopctr_tf.prepare import count_statements, statements
from loopctr_tf.prepare.duckdb_engine import DuckDBEngine
from loopctr_tf.prepare.engine import Shard
from loopctr_tf.prepare.fit import moments, with_statistics
from loopctr_tf.prepare.prepare import REJECTED
from loopctr_tf.prepare.rejects import Rejects
from loopctr_tf.prepare.rule_parts import TableRule
from loopctr_tf.prepare.rules import fixed_numbers, table_rules
from loopctr_tf.prepare.vectors import Pretrained, Vectors
from loopctr_tf.prepare.workers import worker_count

_BYTES = 1 << 26
"""Maximum bytes of a table of several rows."""


class Rows(Protocol):
    """Rows that contain their histories."""

    def batches(self, split: str) -> Iterator[pa.Table]:
        """The rows of "train", "valid" or "test"; sequences are lists."""


def prepare_rows(
    schema: Schema,
    rows: Rows,
    out: str | Path,
    *,
    tables: Mapping[str, TableRule | Mapping[str, int]] | None = None,
    fixed: Iterable[str] = (),
    facts: Mapping[str, Any] | None = None,
    vectors: Vectors | None = None,
    rejects: Rejects | None = None,
    workers: int | None = None,
    progress: bool = False,
    shard_rows: int = SHARD_ROWS,
) -> dict[str, Any]:
    """Builds the prepared folder ``out`` from rows that contain their histories.

    Every value of a list in a training row counts for its vocabulary. Memory does not grow with the
    number of rows, which lie in temporary files beside ``out``.

    Args:
      schema: to be fitted: tables with an empty vocabulary, and numbers.
      rows: the columns are those that ``frame.frame_columns`` takes.
      out: must not exist.
      tables: ``TableRule`` or its attributes, by table to be fitted.
      fixed: numbers that keep mean, std and default of ``schema``.
      facts: added to ``stats.json``; read after all rows are.
      vectors, workers, progress, shard_rows: as for ``prepare.prepare_events``.
      rejects: collects the bad rows of ``rows``; their counts go into ``stats.json``, and their file is
        moved to rejected.csv in ``out``.

    Returns:
      The content of ``stats.json``.

    Raises:
      UsageError: for a table or number that is not to be fitted, a row that does not fit the schema (the
        message names split and row, counted from 1), no training rows, or an existing ``out``.
    """
    workers = worker_count(workers)
    plain = {n: vars(r) if isinstance(r, TableRule) else r for n, r in (tables or {}).items()}
    rules = table_rules(plain, schema, "tables")
    fixed = fixed_numbers(fixed, schema, "fixed")
    pretrained = Pretrained(schema, vectors)
    with (
        new_folder(out) as folder,
        DuckDBEngine(folder.with_name(f"{folder.name}.work"), workers) as engine,
    ):
        with tqdm(desc="reading", unit=" rows", disable=not progress) as bar:
            chunks = _Chunks(engine, schema, rows, shard_rows, bar.update)
        fitted = pretrained.into(_fitted(engine, schema, rules, fixed))
        writer = PreparedWriter(folder, fitted, shard_rows)
        with tqdm(desc="writing", unit=" rows", disable=not progress) as bar:
            shards, events = chunks.write(fitted, folder, bar.update)
        for shard in shards:
            writer.add(shard.split, shard.rows, shard.clicks, shard.name)
        count = sum(shard.rows for shard in shards)
        rejected = {}
        if rejects is not None:
            rejects.close()
            rejected = {"rejected": rejects.counts}
            if rejects.counts:
                shutil.move(rejects.path, folder / REJECTED)
        return writer.finish(
            **(facts or {}),
            **rejected,
            histories={
                name: {"mean_events": total / max(count, 1), "rows_without": empty}
                for name, (total, empty) in events.items()
            },
            **({"vectors": pretrained.facts} if pretrained.facts else {}),
        )


class _Chunks:
    """The rows in Parquet files, one for each shard; the engine has those of train as ``marked``."""

    def __init__(
        self,
        engine: DuckDBEngine,
        schema: Schema,
        rows: Rows,
        most: int,
        progress: Callable[[int], Any],
    ):
        self._engine = engine
        self._files: list[tuple[str, int, Path]] = []
        for split in SPLITS:
            number = 0
            for first, table in row_tables(rows, split, most):
                path = engine.folder / f"{split}-{number:05d}.parquet"
                pq.write_table(_stored(_checked(first, table, schema, split)), path)
                self._files.append((split, number, path))
                number += 1
                progress(len(table))
            if split == SPLITS[0] and not number:
                raise UsageError(f"{split} has no rows; give at least one")
        trained = f"read_parquet('{engine.folder}/{SPLITS[0]}-*.parquet')"
        engine.create("marked", f"SELECT *, 0 AS {statements.SPLIT} FROM {trained}", view=True)

    def write(
        self, schema: Schema, folder: Path, progress: Callable[[int], Any]
    ) -> tuple[list[Shard], dict[str, tuple[int, int]]]:
        """(shards; by sequence the events in all histories, and the empty ones)."""

        def work(index: int) -> tuple[Shard, dict[str, tuple[int, int]]]:
            split, number, path = self._files[index]
            columns = _loaded(pq.read_table(path), schema)
            target = shard_path(folder, split, number)
            rows, _ = write_records(target, [serialize_rows(wire_columns(columns))])
            clicks = int(columns[schema.label].values.sum())
            return Shard(split, target.name, rows, clicks), _lengths(columns, schema)

        shards, totals = [], {s.name: (0, 0) for s in schema.sequences}
        for shard, found in self._engine.map(work, range(len(self._files))):
            shards.append(shard)
            totals = {n: (a + found[n][0], b + found[n][1]) for n, (a, b) in totals.items()}
            progress(shard.rows)
        return sorted(shards, key=lambda shard: (SPLITS.index(shard.split), shard.name)), totals


def row_tables(rows: Rows, split: str, most_rows: int) -> Iterator[tuple[int, pa.Table]]:
    """(number of its first row, from 1; table) of ``most_rows`` rows, fewer if rows are large."""
    waiting: list[pa.Table] = []
    count = size = first = 0
    for batch in rows.batches(split):
        done = 0
        while done < len(batch):
            rest = batch.slice(done)
            fit = int((_BYTES - size) * len(rest) / max(rest.nbytes, 1))
            part = rest.slice(0, max(1, min(fit, most_rows - count)))
            waiting.append(part)
            count, size, done = count + len(part), size + part.nbytes, done + len(part)
            if count == most_rows or size >= _BYTES * 0.9:
                yield first + 1, pa.concat_tables(waiting).combine_chunks()
                first, waiting, count, size = first + count, [], 0, 0
    if waiting:
        yield first + 1, pa.concat_tables(waiting).combine_chunks()


def _checked(first: int, rows: pa.Table, schema: Schema, split: str) -> dict[str, Column]:
    """The columns of the schema, missing numbers as NaN."""
    frame = rows.to_pandas(types_mapper=pd.ArrowDtype)
    frame.index = pd.RangeIndex(first, first + len(frame))
    try:
        return unfilled_columns(frame, schema)
    except UsageError as error:
        raise UsageError(f"{split}: {error}") from error


def _stored(columns: Mapping[str, Column]) -> pa.Table:
    """Columns as they lie between reading and writing."""
    arrays = {}
    for name, column in columns.items():
        values = pa.array(column.values)
        if column.row_splits is not None:
            values = pa.LargeListArray.from_arrays(pa.array(column.row_splits), values)
        arrays[name] = values
    return pa.table(arrays)


def _loaded(table: pa.Table, schema: Schema) -> dict[str, Column]:
    """Stored columns, with the defaults of the fitted schema for missing numbers."""
    defaults = {f.name: f.default for f in schema.all_fields() if f.type == "numeric"}
    columns = {}
    for name in table.column_names:
        array, splits = table[name].combine_chunks(), None
        if pa.types.is_large_list(array.type):
            splits, array = array.offsets.to_numpy(), array.values
        values = array.to_numpy(zero_copy_only=False)
        if name in defaults:
            values = np.where(np.isnan(values), np.float32(defaults[name]), values)
        columns[name] = Column(values, splits)
    return columns


def _fitted(
    engine: DuckDBEngine, schema: Schema, rules: Mapping[str, TableRule], fixed: frozenset[str]
) -> Schema:
    counts: dict[str, list[pa.Table]] = {name: [] for name in rules}
    lists = {f.name for s in schema.sequences for f in s.fields}
    lists |= {f.name for f in schema.features if f.type == "multi_categorical"}
    for feature in schema.all_fields():
        if feature.table in rules:
            query = count_statements.value_counts(feature.name, feature.name in lists, (), True)
            counts[feature.table].append(engine.query(query))

    def statistics(feature: Feature, sequence: str | None) -> tuple[float, float]:
        values = count_statements.feature_values(feature.name, feature.name in lists)
        return moments(engine, feature, values)

    return with_statistics(schema, rules, fixed, counts, statistics)


def _lengths(columns: Mapping[str, Column], schema: Schema) -> dict[str, tuple[int, int]]:
    """By sequence: events in all histories, and rows without any."""
    found = {}
    for sequence in schema.sequences:
        name = sequence.fields[0].name
        lengths = np.diff(columns[schema.inputs[name].events_name].row_splits)
        found[sequence.name] = int(lengths.sum()), int((lengths == 0).sum())
    return found
