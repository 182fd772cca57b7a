"""Rows that contain their histories, as Arrow tables: sharding, fitting and conversion to columns."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pandas as pd
import pyarrow as pa

from loopctr_tf.errors import UsageError
from loopctr_tf.features.frame import Column, frame_columns, unfilled_columns
from loopctr_tf.features.prepared import SPLITS, wire_columns
from loopctr_tf.features.schema import Schema
from loopctr_tf.prepare.fitting import Fit
from loopctr_tf.prepare.workers import run_tasks
from loopctr_tf.prepare.writing import Piece

_BYTES = 1 << 26
"""Maximum bytes of a table of several rows."""

Numbered = tuple[int, pa.Table]
"""(number of the first row in its split, from 1; rows)."""


class Rows(Protocol):
    """Rows that contain their histories."""

    def batches(self, split: str) -> Iterator[pa.Table]:
        """The rows of "train", "valid" or "test", the same each time; sequences are lists."""


def row_tables(rows: Rows, split: str, most_rows: int) -> Iterator[Numbered]:
    """The rows of a split in tables of ``most_rows`` rows, fewer if rows are large."""
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


def fit_rows(
    rows: Rows, fit: Fit, most_rows: int, workers: int, progress: Callable[[int], Any]
) -> Schema:
    """Fits the schema of ``fit`` to the training rows; every value of a list counts.

    Raises:
      UsageError: for a row that does not fit the schema, or no training rows.
    """
    count = 0

    def collect(table: Numbered) -> tuple[Fit, int]:
        columns = _checked(unfilled_columns, table, fit.draft, SPLITS[0])
        part = fit.empty()
        for feature in fit.draft.all_fields():
            values = columns[feature.name].values
            if feature.table is None:
                part.measure(feature, values)
            elif feature.table in part.counts:
                part.counts[feature.table].add_values(values)
        return part, len(table[1])

    def done(result: tuple[Fit, int]) -> None:
        nonlocal count
        fit.merge(result[0])
        count += result[1]
        progress(result[1])

    run_tasks(collect, row_tables(rows, SPLITS[0], most_rows), done, workers)
    if not count:
        raise UsageError(f"{SPLITS[0]} has no rows; give at least one")
    return fit.schema()


def row_piece(table: Numbered, schema: Schema, split: str) -> Piece:
    """The columns of a table's rows."""
    columns = _checked(frame_columns, table, schema, split)
    counts = {"rows": len(table[1]), "clicks": int(columns[schema.label].values.sum())}
    for sequence in schema.sequences:
        field = sequence.fields[0]
        lengths = columns[field.name].row_splits
        lengths = (lengths[1:] - lengths[:-1]) // (field.max_values or 1)
        counts[f"{sequence.name} events"] = int(lengths.sum())
        counts[f"{sequence.name} empty"] = int((lengths == 0).sum())
    return wire_columns(columns), counts


def _checked(make, table: Numbered, schema: Schema, split: str) -> dict[str, Column]:
    first, rows = table
    frame = rows.to_pandas(types_mapper=pd.ArrowDtype)
    frame.index = pd.RangeIndex(first, first + len(frame))
    try:
        return make(frame, schema)
    except UsageError as error:
        raise UsageError(f"{split}: {error}") from error
