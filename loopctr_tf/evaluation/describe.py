"""Statistics of a prepared folder: rows, users, CTR, history lengths, unknown and missing values.

Every row is read once, shard by shard; memory grows only with the users and items (16 bytes each).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf
from tqdm import tqdm

from loopctr_tf.errors import UsageError
from loopctr_tf.features.columns import PADDING
from loopctr_tf.features.dataset import data_errors, event_values, parsing_spec
from loopctr_tf.features.prepared import SPLITS, read_stats, split_shards
from loopctr_tf.features.schema import Feature, Schema
from loopctr_tf.models.encoder import TableLookup

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
_BATCH = 1024
_PARTS = 4096
"""Batches whose ids are counted before they are merged."""
_LAST_HASH = 2**63 - 1
TABLES = ("items", "users")
"""Tables that the events may be joined with."""
_JOIN = {
    "events_without_row": "events_without_row",
    "values_without_row": "without_row",
    "table_rows": "table_rows",
}
"""Facts of a join -> their names in stats.json, after that of the table."""


def describe(prepared: str | Path, progress: bool = False) -> dict[str, Any]:
    """Statistics of a prepared folder, by split.

    Args:
      prepared: the folder.
      progress: show a progress bar.

    Returns:
      A mapping, ready for JSON:

      - ``splits``: split -> ``rows``, ``clicks``, ``ctr``, ``users``, ``items`` (distinct), and
        ``new_users``, ``new_items``: the share of rows whose user (item) is in no training row.
      - ``users``, ``items``: distinct ones over all splits. ``item``: the column that is counted, the
        first categorical item feature; None if there is none.
      - ``days``: day (UTC) -> split -> [rows, clicks]; empty if stats.json has none.
      - ``sequences``: name -> split -> ``mean``, ``max``, ``quantiles``, ``empty`` and ``full`` (shares
        of rows without an event, and with ``max_length``), ``histogram`` (rows by length).
      - ``tables``: name -> ``rows`` (of the embedding table), ``vocabulary`` (its size; None for hashed
        values), ``used_by``, ``unknown``: split -> the share of values that are not in the vocabulary,
        missing ones not counted.
      - ``missing``: column -> split -> the share of missing values: of rows for a feature, of events
        for a sequence's field. A number counts as missing when it equals its default.
      - ``joins``: "items" and "users", where such a table was given -> ``events_without_row``, ``share``
        (of the events), ``values_without_row`` (distinct ones), ``table_rows``.
      - ``warnings``: what preparation said about the log.
      - ``facts``: everything else in ``stats.json``.

    Raises:
      UsageError: for a folder that is not prepared, is damaged or does not hold its schema's rows.
    """
    stats, schema = read_stats(prepared), Schema.load(prepared)
    rows = {split: stats["rows"][split] for split in SPLITS if stats["rows"].get(split)}
    if not rows:
        raise UsageError(f"{str(prepared)!r} has no rows; prepare it again")
    items = [f.name for f in schema.features if f.side == "item" and f.type == "categorical"]
    counter = _Counter(schema, items[0] if items else None)
    counts = {split: _SplitCounts(schema) for split in rows}
    with tqdm(total=sum(rows.values()), unit=" rows", disable=not progress) as bar, data_errors():
        for split, count in counts.items():
            shards = tf.data.TFRecordDataset(split_shards(prepared, split))
            batches = shards.batch(_BATCH).map(counter, num_parallel_calls=tf.data.AUTOTUNE)
            for batch in batches.prefetch(1).as_numpy_iterator():
                count.add(batch)
                bar.update(len(batch["label"]))
    return _figures(stats, schema, counts) | {"item": counter.item}


class _Counter:
    """Reduces serialized rows to counts, inside tf.data's graph; nothing is padded."""

    def __init__(self, schema: Schema, item: str | None):
        self._schema, self.item = schema, item
        self._spec = parsing_spec(schema, label=True, group=True)
        self._known = {table.name: TableLookup(table).index for table in schema.tables}

    def __call__(self, serialized):
        schema = self._schema
        columns = tf.io.parse_example(serialized, self._spec)
        unknown = {table.name: tf.zeros([2], tf.int64) for table in schema.tables}
        missing, lengths = {}, {}
        for feature in schema.features:
            values = columns[feature.name]
            if feature.type == "multi_categorical":
                given = values.with_flat_values(~self._absent(feature, values.flat_values))
                missing[feature.name] = _count(~tf.reduce_any(given, axis=1))
                values = values.flat_values
            else:
                missing[feature.name] = _count(self._absent(feature, values))
            self._look_up(feature, values, unknown)
        for sequence in schema.sequences:
            for field in sequence.fields:
                each, values = schema.inputs[field.name], columns[field.name]
                absent = self._absent(field, values.flat_values)
                if each.multi:
                    values = event_values(columns, each)
                    absent = self._absent(field, values.flat_values)
                    absent = tf.reduce_all(values.values.with_values(absent), axis=1)
                lengths[sequence.name] = tf.cast(values.row_lengths(), tf.int64)
                missing[field.name] = _count(absent)
                self._look_up(field, values.flat_values, unknown)
        result = {"label": columns[schema.label], "unknown": unknown, "missing": missing}
        result |= {"lengths": lengths, "user": _hash(columns[schema.group])}
        return result | ({} if self.item is None else {"item": _hash(columns[self.item])})

    def _absent(self, feature: Feature, values: tf.Tensor) -> tf.Tensor:
        if feature.table is None:
            return tf.equal(values, tf.constant(feature.default, tf.float32))
        return tf.equal(values, PADDING[self._schema.table(feature.table).dtype])

    def _look_up(self, feature: Feature, values: tf.Tensor, unknown: dict) -> None:
        """Adds the numbers of unknown and of all values, without the missing ones."""
        if feature.table is None or self._schema.table(feature.table).vocabulary is None:
            return
        values = tf.boolean_mask(values, ~self._absent(feature, values))
        index = self._known[feature.table]
        new = tf.fill(tf.shape(values), True) if index is None else index.lookup(values) < 0
        unknown[feature.table] += _count(new)


def _count(flags: tf.Tensor) -> tf.Tensor:
    """int64 [2]: how many flags are true, and how many there are."""
    return tf.stack([tf.math.count_nonzero(flags), tf.size(flags, tf.int64)])


def _hash(values: tf.Tensor) -> tf.Tensor:
    """int64, to save memory; among 10^6 ids, any two collide with a probability below 10^-6."""
    text = values if values.dtype == tf.string else tf.strings.as_string(values)
    return tf.strings.to_hash_bucket_fast(text, _LAST_HASH)


class _SplitCounts:
    """The counts of one split."""

    def __init__(self, schema: Schema):
        self.rows = self.clicks = 0
        self.lengths = {s.name: np.zeros(s.max_length + 1, np.int64) for s in schema.sequences}
        self.unknown = {table.name: np.zeros(2, np.int64) for table in schema.tables}
        self.missing = {f.name: np.zeros(2, np.int64) for f in schema.all_fields()}
        self._ids: dict[str, list[pd.Series]] = {"user": [], "item": []}

    def add(self, batch: Mapping[str, Any]) -> None:
        """Adds the result of a :class:`_Counter`."""
        self.rows += len(batch["label"])
        self.clicks += int(batch["label"].sum())
        for name, lengths in batch["lengths"].items():
            most = len(self.lengths[name]) - 1
            self.lengths[name] += np.bincount(np.minimum(lengths, most), minlength=most + 1)
        for name, count in batch["unknown"].items():
            self.unknown[name] += count
        for name, count in batch["missing"].items():
            self.missing[name] += count
        for kind, parts in self._ids.items():
            if kind in batch:
                parts.append(pd.Series(batch[kind]).value_counts())
            if len(parts) > _PARTS:
                self.ids(kind)

    def ids(self, kind: str) -> pd.Series:
        """Rows by distinct user or item."""
        none = pd.Series(index=np.zeros(0, np.int64), dtype=np.int64)
        merged = pd.concat(self._ids[kind] or [none]).groupby(level=0).sum()
        self._ids[kind] = [merged]
        return merged


def _figures(stats, schema: Schema, counts: Mapping[str, _SplitCounts]) -> dict[str, Any]:
    fields = list(schema.all_fields())
    figures: dict[str, Any] = {
        "splits": {
            split: {"rows": c.rows, "clicks": c.clicks, "ctr": c.clicks / c.rows}
            for split, c in counts.items()
        },
        "days": stats.get("days", {}),
        "sequences": {
            s.name: {split: _lengths(c.lengths[s.name]) for split, c in counts.items()}
            for s in schema.sequences
        },
        "tables": {
            t.name: {
                "rows": t.rows,
                "vocabulary": None if t.vocabulary is None else len(t.vocabulary),
                "used_by": [field.name for field in fields if field.table == t.name],
                "unknown": {
                    split: None if t.vocabulary is None else _share(*c.unknown[t.name])
                    for split, c in counts.items()
                },
            }
            for t in schema.tables
        },
        "missing": {
            field.name: {split: _share(*c.missing[field.name]) for split, c in counts.items()}
            for field in fields
        },
    }
    for kind in ("user", "item"):
        ids = {split: count.ids(kind) for split, count in counts.items()}
        figures[f"{kind}s"] = len(np.unique(np.concatenate([rows.index for rows in ids.values()])))
        for split, rows in ids.items():
            figures["splits"][split][f"{kind}s"] = len(rows)
            if "train" in ids:
                new = rows[~rows.index.isin(ids["train"].index)]
                figures["splits"][split][f"new_{kind}s"] = _share(new.sum(), rows.sum())
    figures |= {"joins": _joins(stats), "warnings": stats.get("warnings", [])}
    used = ("rows", "clicks", "shards", "days", "users", "items", "warnings", *_join_keys())
    return figures | {"facts": {name: fact for name, fact in stats.items() if name not in used}}


def _join_keys() -> list[str]:
    return [f"{table}_{name}" for table in TABLES for name in _JOIN.values()]


def _joins(stats: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What the engine counted of events without a row in the table of items or users."""
    found: dict[str, dict[str, Any]] = {}
    for table in TABLES:
        if f"{table}_events_without_row" in stats:
            counts = {name: stats[f"{table}_{key}"] for name, key in _JOIN.items()}
            share = _share(counts["events_without_row"], stats["events"]["used"])
            found[table] = counts | {"share": share}
    return found


def _lengths(histogram: np.ndarray) -> dict[str, Any]:
    rows, lengths = int(histogram.sum()), np.arange(len(histogram))
    below, longest = np.cumsum(histogram), int(np.flatnonzero(histogram)[-1])
    return {
        "mean": float((histogram * lengths).sum() / rows),
        "max": longest,
        # The least length that this share of the rows does not exceed.
        "quantiles": {str(q): int(np.searchsorted(below, q * rows)) for q in QUANTILES},
        "empty": float(histogram[0] / rows),
        "full": float(histogram[-1] / rows),
        "histogram": histogram[: longest + 1].tolist(),
    }


def _share(part: int, whole: int) -> float | None:
    """None when there is nothing to take a share of."""
    return float(part / whole) if whole else None
