"""The prepared folder: `schema.yaml`, `train/`, `valid/`, `test/` shards of tf.Example, `stats.json`.

Raw values are stored as they are, string ids included; ``stats.json`` lists every shard with its rows
and bytes, so that a shard that was cut short or lost is noticed before training.

All of it is done without TensorFlow.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from loopctr_tf.errors import UsageError
from loopctr_tf.features.frame import Column, frame_columns
from loopctr_tf.features.records import WireColumn, serialize_rows, wire_values, write_records
from loopctr_tf.features.schema import Schema

SPLITS = ("train", "valid", "test")
STATS = "stats.json"
SHARD_ROWS = 20_000
"""Rows a shard, unless said otherwise: a few tens of megabytes with two histories of 50."""


class PreparedWriter:
    """Writes a prepared folder split by split; use inside ``files.new_folder``.

    Args:
      folder: the (temporary) folder.
      schema: of all splits; its vocabularies and statistics should be those of the training split.
      shard_rows: rows a shard.
    """

    def __init__(self, folder: str | Path, schema: Schema, shard_rows: int = SHARD_ROWS):
        self._folder, self._schema, self._shard_rows = Path(folder), schema, shard_rows
        self._shards: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
        self._clicks = dict.fromkeys(SPLITS, 0)
        for split in SPLITS:
            (self._folder / split).mkdir()

    def write(self, split: str, frame: pd.DataFrame, progress=None) -> None:
        """Appends the rows of ``frame`` to a split, in their order. May be called many times.

        ``progress``, if given, is called with the number of rows after each shard.
        """
        for start in range(0, len(frame), self._shard_rows):
            columns = frame_columns(frame.iloc[start : start + self._shard_rows], self._schema)
            path = shard_path(self._folder, split, len(self._shards[split]))
            rows, _ = write_records(path, [serialize_rows(wire_columns(columns))])
            self.add(split, rows, int(columns[self._schema.label].values.sum()))
            if progress is not None:
                progress(rows)

    def add(self, split: str, rows: int, clicks: int, name: str | None = None) -> None:
        """Registers a shard that is written: ``name``, or the next one of :func:`shard_path`."""
        path = shard_path(self._folder, split, len(self._shards[split]))
        path = path if name is None else path.with_name(name)
        self._shards[split].append({"name": path.name, "rows": rows, "bytes": path.stat().st_size})
        self._clicks[split] += clicks

    def finish(self, **facts: Any) -> dict[str, Any]:
        """Writes the schema and ``stats.json`` (``facts`` are added to it) and returns the latter."""
        self._schema.save(self._folder)
        stats = {
            "rows": {s: sum(shard["rows"] for shard in self._shards[s]) for s in SPLITS},
            "clicks": self._clicks,
            **facts,
            "shards": self._shards,
        }
        (self._folder / STATS).write_text(json.dumps(stats, indent=2) + "\n")
        return stats


def shard_path(folder: Path, split: str, number: int) -> Path:
    """Where a split's shard is, counted from 0."""
    return folder / split / f"part-{number:05d}.tfrecord"


def wire_columns(columns: Mapping[str, Column]) -> dict[str, WireColumn]:
    """Columns in the wire format of tf.Example."""
    return {
        name: WireColumn(wire_values(column.values), row_splits=column.row_splits)
        for name, column in columns.items()
    }


def serialize_examples(columns: Mapping[str, Column], rows: int) -> Iterator[bytes]:
    """One serialized tf.Example a row, all columns in it; the first ``rows``."""
    yield from serialize_rows(wire_columns(columns)).slice(0, rows).to_pylist()


def split_shards(folder: str | Path, split: str) -> list[str]:
    """Paths of a split's shards, checked against ``stats.json``.

    Raises:
      UsageError: when the folder is not a prepared one, the split has no rows, or a shard is
        absent or of another size than when it was written.
    """
    folder = Path(folder)
    if split not in SPLITS:
        raise UsageError(f"split is {split!r}; choose {', '.join(SPLITS)}")
    stats = read_stats(folder)
    shards = stats.get("shards", {}).get(split, [])
    if not any(shard["rows"] for shard in shards):
        raise UsageError(f"split {split!r} of {str(folder)!r} has no rows; prepare it again")
    paths = []
    for shard in shards:
        path = folder / split / shard["name"]
        size = path.stat().st_size if path.is_file() else None
        if size is None:
            raise UsageError(f"shard {str(path)!r} is missing; prepare the data again")
        if size != shard["bytes"]:
            raise UsageError(
                f"shard {str(path)!r} has {size} bytes and was written with {shard['bytes']}; "
                "it was cut short or changed, prepare the data again"
            )
        paths.append(str(path))
    return paths


def read_stats(folder: str | Path) -> dict[str, Any]:
    """``stats.json`` of a prepared folder; UsageError where there is none."""
    path = Path(folder) / STATS
    try:
        stats = json.loads(path.read_text())
        if not {"rows", "shards"} <= set(stats):
            raise ValueError("no rows or shards in it")
        return stats
    except OSError as error:
        raise UsageError(
            f"{str(folder)!r} is not a prepared folder: no {STATS} in it; make one with a recipe of "
            "data/, e.g. python data/movielens/prepare.py --out prepared"
        ) from error
    except ValueError as error:
        raise UsageError(
            f"{str(path)!r} is not a list of shards ({error}); prepare the data again"
        ) from error
