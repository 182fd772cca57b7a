"""Makes a prepared folder from an event log, or from rows that contain their histories."""

import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from loopctr_tf.features.prepared import SHARD_ROWS, SPLITS, PreparedWriter
from loopctr_tf.features.schema import Schema
from loopctr_tf.files import new_folder
from loopctr_tf.prepare.days import rows_by_day
from loopctr_tf.prepare.event_fit import fit_events
from loopctr_tf.prepare.event_rows import EventRows, RowWriter
from loopctr_tf.prepare.fitting import Fit
from loopctr_tf.prepare.plan import make_plan
from loopctr_tf.prepare.reading import TableReader
from loopctr_tf.prepare.rejects import Rejects
from loopctr_tf.prepare.row_tables import Rows, fit_rows, row_piece, row_tables
from loopctr_tf.prepare.rules import TableRule, fixed_numbers, load_rules, table_rules
from loopctr_tf.prepare.store import load_store
from loopctr_tf.prepare.vectors import Pretrained, Vectors
from loopctr_tf.prepare.workers import worker_count
from loopctr_tf.prepare.writing import Piece, write_shards

REJECTED = "rejected.csv"
"""Name of the file with the rejected rows."""

Paths = str | Path | Iterable[str | Path]


def prepare_events(
    schema_path: str | Path,
    events: Paths,
    out: str | Path,
    *,
    items: Paths | None = None,
    users: Paths | None = None,
    vectors: Vectors | None = None,
    skip_bad: bool = False,
    workers: int | None = None,
    progress: bool = False,
    shard_rows: int = SHARD_ROWS,
) -> dict[str, Any]:
    """Builds the prepared folder ``out`` from an event log, by the rules described in ``rules``.

    The same input gives the same bytes for any number of workers. ``out`` appears only when complete.

    Args:
      schema_path: schema.yaml with a section `build`.
      events: Parquet or CSV files, or folders of them, in order.
      out: must not exist.
      items, users: tables joined by the columns that the rules call item and user.
      vectors: table -> (values, array), pretrained vectors. The vocabulary of such a table contains only
        values with a vector.
      skip_bad: leave bad rows out, count them in stats.json and list them in rejected.csv.
      workers: processes; None means all cores.
      progress: whether to show progress bars.
      shard_rows: maximum rows per TFRecord shard.

    Returns:
      The content of ``stats.json``.

    Raises:
      UsageError: for a schema, rules or files that are absent, malformed or inconsistent, a bad row
        (without ``skip_bad``), a split without rows, or an existing ``out``.
    """
    workers = worker_count(workers)
    schema, rules = load_rules(schema_path)
    pretrained = Pretrained(schema, vectors)
    paths = {"events": events, "items": items, "users": users}
    paths = {table: _listed(path) for table, path in paths.items() if path is not None}
    with new_folder(out) as folder, Rejects(folder / REJECTED if skip_bad else None) as rejects:
        have = {table: list(TableReader(path, []).column_types()) for table, path in paths.items()}
        plan = make_plan(schema, rules, have)
        with _bar("reading", progress) as bar:
            store = load_store(paths, plan, schema, rules, rejects, bar.update)
        rows = EventRows(store, plan, schema, rules)
        fitted = pretrained.into(fit_events(rows))
        writer = PreparedWriter(folder, fitted, shard_rows)
        make = RowWriter(rows, fitted)

        def pieces(split: str, span: tuple[int, int]) -> Iterator[Piece]:
            return (make.columns(*piece) for piece in rows.pieces(*span))

        with _bar("writing", progress, len(rows.events) * rows.per_event) as bar:
            shards = _spans(rows, shard_rows)
            counts = write_shards(folder, writer, shards, pieces, workers, bar.update)
        return writer.finish(
            **store.facts,
            rejected=rejects.counts,
            **rows.facts,
            days=rows_by_day(
                store.time[rows.events],
                np.repeat(np.arange(len(SPLITS)), [rows.counts[split] for split in SPLITS]),
                store.label[rows.events],
                rows.per_event,
            ),
            histories=_histories(schema, counts),
            **_named("vectors", pretrained.facts),
            protocol="honest",
            build=rules.as_written,
        )


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

    Reads the training rows twice: to fit vocabularies (counting every value of a list) and statistics,
    and to write them. Memory does not grow with the number of rows.

    Args:
      schema: to be fitted: tables with an empty vocabulary, and numbers.
      rows: see ``row_tables.Rows``; the columns are those that ``frame.frame_columns`` takes.
      out: must not exist.
      tables: ``TableRule`` or its attributes, by table to be fitted.
      fixed: numbers that keep mean, std and default of ``schema``.
      facts: added to ``stats.json``; read after all rows are.
      vectors, workers, progress, shard_rows: as for :func:`prepare_events`.
      rejects: collects the bad rows of ``rows``; their counts go into ``stats.json``, and their file is
        moved to rejected.csv in ``out``.

    Returns:
      The content of ``stats.json``.

    Raises:
      UsageError: for a table or number that is not to be fitted, a row that does not fit the schema (the
        message names split and row, counted from 1), no training rows, or an existing ``out``.
    """
    workers = worker_count(workers)
    plain = {
        name: vars(rule) if isinstance(rule, TableRule) else rule
        for name, rule in (tables or {}).items()
    }
    rules = table_rules(plain, schema, "tables")
    fit = Fit(schema, rules, fixed_numbers(fixed, schema, "fixed"))
    pretrained = Pretrained(schema, vectors)
    with new_folder(out) as folder:
        with _bar("fitting", progress) as bar:
            fitted = pretrained.into(fit_rows(rows, fit, shard_rows, workers, bar.update))
        writer = PreparedWriter(folder, fitted, shard_rows)
        shards = (
            (split, table) for split in SPLITS for table in row_tables(rows, split, shard_rows)
        )

        def pieces(split: str, table) -> Iterator[Piece]:
            yield row_piece(table, fitted, split)

        with _bar("writing", progress) as bar:
            counts = write_shards(folder, writer, shards, pieces, workers, bar.update)
        rejected = {}
        if rejects is not None:
            rejects.close()
            rejected = {"rejected": rejects.counts}
            if rejects.counts:
                shutil.move(rejects.path, folder / REJECTED)
        return writer.finish(
            **(facts or {}),
            **rejected,
            histories=_histories(schema, counts),
            **_named("vectors", pretrained.facts),
        )


def _listed(paths: Paths) -> list[str | Path]:
    return [paths] if isinstance(paths, (str, Path)) else list(paths)


def _spans(rows: EventRows, shard_rows: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """(split, range of events) of every shard."""
    step, start = max(1, shard_rows // rows.per_event), 0
    for split in SPLITS:
        end = start + rows.counts[split]
        for first in range(start, end, step):
            yield split, (first, min(first + step, end))
        start = end


def _histories(schema: Schema, counts: Mapping[str, int]) -> dict[str, dict[str, float]]:
    return {
        sequence.name: {
            "mean_events": counts[f"{sequence.name} events"] / max(counts["rows"], 1),
            "rows_without": counts[f"{sequence.name} empty"],
        }
        for sequence in schema.sequences
    }


def _named(name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """``{name: facts}``, or nothing if there are none."""
    return {name: facts} if facts else {}


def _bar(what: str, show: bool, total: int | None = None) -> tqdm:
    return tqdm(desc=what, unit=" rows", total=total, disable=not show)
