"""What is in a prepared folder: rows, users, CTR, history lengths, unknown and missing values.

Every row is read once, shard by shard; memory grows with the users and items alone (8 bytes each).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from loopctr_tf.errors import UsageError
from loopctr_tf.features.dataset import data_errors, parsing_spec
from loopctr_tf.features.prepared import SPLITS, read_stats, split_shards
from loopctr_tf.features.schema import PADDING, Feature, Schema
from loopctr_tf.models.encoder import TableLookup

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
_BATCH = 1024
_LAST_HASH = 2**63 - 1


def describe(prepared: str | Path, progress: bool = False) -> dict[str, Any]:
    """Figures of a prepared folder, by split.

    Args:
      prepared: the folder.
      progress: show a bar with rows per second.

    Returns:
      A mapping, ready for JSON:

      - ``splits``: split -> ``rows``, ``clicks``, ``ctr``, ``users``, ``items`` (different ones), and
        ``new_users``, ``new_items``: the share of rows whose user (item) is in no training row.
      - ``users``, ``items``: different ones over all splits. ``item``: the column that is counted, the
        first categorical item feature; None where there is none.
      - ``days``: day (UTC) -> split -> [rows, clicks]; empty where the data do not say.
      - ``sequences``: name -> split -> ``mean``, ``max``, ``quantiles``, ``empty`` and ``full`` (shares
        of rows without an event, and with ``max_length``), ``histogram`` (rows by length).
      - ``tables``: name -> ``rows`` (of the embedding table), ``vocabulary`` (values in it; None where
        values are hashed), ``used_by``, ``unknown``: split -> the share of values, missing ones apart,
        that are not in the vocabulary.
      - ``missing``: column -> split -> the share of missing values: of rows for a feature, of events
        for a sequence's field, and for a number of those that are its default, which stands for a
        missing one.
      - ``facts``: what else ``stats.json`` holds.

    Raises:
      UsageError: for a folder that is no prepared one, is damaged or does not hold its schema's rows.
    """
    stats, schema = read_stats(prepared), Schema.load(prepared)
    splits = [split for split in SPLITS if stats["rows"].get(split)]
    if not splits:
        raise UsageError(f"{str(prepared)!r} has no rows; prepare it again")
    counter = _Counter(schema)
    counts = {}
    total = sum(stats["rows"][split] for split in splits)
    with tqdm(total=total, unit=" rows", disable=not progress) as bar, data_errors():
        for split in splits:
            counts[split] = _SplitCounts(schema)
            rows = tf.data.TFRecordDataset(split_shards(prepared, split))
            batches = rows.batch(_BATCH).map(counter, num_parallel_calls=tf.data.AUTOTUNE)
            for batch in batches.prefetch(1):
                batch = tf.nest.map_structure(lambda tensor: tensor.numpy(), batch)
                counts[split].add(batch)
                bar.update(len(batch["label"]))
    return _figures(stats, schema, counts, counter.item)


class _Counter:
    """Reduces serialized rows to counts, inside tf.data's graph; nothing is padded."""

    def __init__(self, schema: Schema):
        self._schema = schema
        self._spec = parsing_spec(schema, label=True, group=True)
        self._known = {table.name: TableLookup(table).index for table in schema.tables}
        items = [f.name for f in schema.features if f.side == "item" and f.type == "categorical"]
        self.item = items[0] if items else None

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
                width = field.max_values or 1
                values = columns[field.name]
                events = tf.reshape(values.flat_values, [-1, width])
                lengths[sequence.name] = tf.cast(values.row_lengths(), tf.int64) // width
                absent = tf.reduce_all(self._absent(field, events), axis=1)
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
        """Adds how many of the values are unknown, and how many there are; missing ones apart."""
        if feature.table is None or self._schema.table(feature.table).vocabulary is None:
            return
        values = tf.boolean_mask(values, ~self._absent(feature, values))
        index = self._known[feature.table]
        new = tf.fill(tf.shape(values), True) if index is None else index.lookup(values) < 0
        unknown[feature.table] += _count(new)


def _count(some: tf.Tensor) -> tf.Tensor:
    """int64 [2]: how many are true, and how many there are."""
    return tf.stack([tf.math.count_nonzero(some), tf.size(some, tf.int64)])


def _hash(values: tf.Tensor) -> tf.Tensor:
    """int64, so that millions of ids take little room; two alike are one in 10^6 for 10^6 ids."""
    text = values if values.dtype == tf.string else tf.strings.as_string(values)
    return tf.strings.to_hash_bucket_fast(text, _LAST_HASH)


class _SplitCounts:
    """The counts of one split."""

    def __init__(self, schema: Schema):
        self.rows = self.clicks = 0
        self.lengths = {s.name: np.zeros(s.max_length + 1, np.int64) for s in schema.sequences}
        self.unknown = {table.name: np.zeros(2, np.int64) for table in schema.tables}
        self.missing = {f.name: np.zeros(2, np.int64) for f in schema.all_fields()}
        self.ids = {"user": _Ids(), "item": _Ids()}

    def add(self, batch: Mapping[str, Any]) -> None:
        """Adds what a :class:`_Counter` made of a batch."""
        self.rows += len(batch["label"])
        self.clicks += int(batch["label"].sum())
        for name, lengths in batch["lengths"].items():
            most = len(self.lengths[name]) - 1
            self.lengths[name] += np.bincount(np.minimum(lengths, most), minlength=most + 1)
        for kind in ("unknown", "missing"):
            for name, count in batch[kind].items():
                getattr(self, kind)[name] += count
        for kind, ids in self.ids.items():
            if kind in batch:
                ids.add(batch[kind])


class _Ids:
    """Different ids, and the rows of each."""

    def __init__(self):
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []
        self._size = 0

    def add(self, ids: np.ndarray) -> None:
        self._parts.append(np.unique(ids, return_counts=True))
        self._size += len(self._parts[-1][0])
        if self._size > 1 << 22:
            self.values()

    def values(self) -> tuple[np.ndarray, np.ndarray]:
        """(ids in order, rows of each)."""
        if not self._parts:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        ids, rows = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        ids, places = np.unique(ids, return_inverse=True)
        rows = np.bincount(places, weights=rows).astype(np.int64)
        self._parts, self._size = [(ids, rows)], 0
        return ids, rows


def _figures(stats, schema: Schema, counts: Mapping[str, _SplitCounts], item) -> dict[str, Any]:
    splits = {}
    for split, count in counts.items():
        splits[split] = {
            "rows": count.rows,
            "clicks": count.clicks,
            "ctr": count.clicks / count.rows,
        }
        for kind in ("user", "item"):
            ids, rows = count.ids[kind].values()
            splits[split][f"{kind}s"] = len(ids)
            if "train" in counts:
                known = np.isin(ids, counts["train"].ids[kind].values()[0])
                splits[split][f"new_{kind}s"] = _share(rows[~known].sum(), rows.sum())
    everyone = {
        kind: len(np.unique(np.concatenate([c.ids[kind].values()[0] for c in counts.values()])))
        for kind in ("user", "item")
    }
    known = ("rows", "clicks", "shards", "days", "users", "items")
    return {
        "splits": splits,
        "users": everyone["user"],
        "items": everyone["item"],
        "item": item,
        "days": stats.get("days", {}),
        "sequences": {
            sequence.name: {
                split: _lengths(count.lengths[sequence.name]) for split, count in counts.items()
            }
            for sequence in schema.sequences
        },
        "tables": {
            table.name: {
                "rows": table.rows,
                "vocabulary": None if table.vocabulary is None else len(table.vocabulary),
                "used_by": [f.name for f in schema.all_fields() if f.table == table.name],
                "unknown": {
                    split: None if table.vocabulary is None else _share(*count.unknown[table.name])
                    for split, count in counts.items()
                },
            }
            for table in schema.tables
        },
        "missing": {
            field.name: {
                split: _share(*count.missing[field.name]) for split, count in counts.items()
            }
            for field in schema.all_fields()
        },
        "facts": {name: value for name, value in stats.items() if name not in known},
    }


def _lengths(histogram: np.ndarray) -> dict[str, Any]:
    rows, lengths = int(histogram.sum()), np.arange(len(histogram))
    below = np.cumsum(histogram)
    return {
        "mean": float((histogram * lengths).sum() / rows),
        "max": int(np.flatnonzero(histogram)[-1]),
        # The least length that this share of the rows does not exceed.
        "quantiles": {str(q): int(np.searchsorted(below, q * rows)) for q in QUANTILES},
        "empty": float(histogram[0] / rows),
        "full": float(histogram[-1] / rows),
        "histogram": histogram[: int(np.flatnonzero(histogram)[-1]) + 1].tolist(),
    }


def _share(some: int, of: int) -> float | None:
    """None where there is nothing to take a share of."""
    return float(some / of) if of else None
