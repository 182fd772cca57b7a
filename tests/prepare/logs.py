"""A random event log with ties in time, as dictionaries and as files, and a schema for it."""

import copy
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
import yaml

START = 1_700_000_000
USERS, ITEMS = 9, 20
TIE, SPAN = 3600, 30
"""Seconds between two possible times, and how many there are."""

SCHEMA = {
    "version": 1,
    "label": "label",
    "group": "user_id",
    "tables": {
        "item": {"vocabulary": []},
        "tag": {"vocabulary": []},
        "kind": {"vocabulary": []},
        "device": {"dtype": "int64", "vocabulary": []},
        "rating": {"vocabulary": []},
        "city": {"hash_buckets": 7},
    },
    "features": [
        {"name": "item_id", "type": "categorical", "side": "item", "table": "item"},
        {"name": "price", "type": "numeric", "side": "item", "transform": "log1p"},
        {
            "name": "tags",
            "type": "multi_categorical",
            "side": "item",
            "table": "tag",
            "max_values": 3,
        },
        {"name": "age", "type": "numeric", "side": "user"},
        {"name": "city", "type": "categorical", "side": "user", "table": "city"},
        {"name": "device", "type": "categorical", "side": "context", "table": "device"},
        {"name": "affinity", "type": "numeric", "side": "cross"},
    ],
    "sequences": [
        {
            "name": "older",
            "max_length": 5,
            "fields": [{"name": "older_item", "type": "categorical", "table": "item"}],
        },
        {
            "name": "clicks",
            "max_length": 3,
            "fields": [
                {"name": "clicks_item", "type": "categorical", "table": "item"},
                {
                    "name": "clicks_tags",
                    "type": "multi_categorical",
                    "table": "tag",
                    "max_values": 3,
                },
                {"name": "clicks_age", "type": "numeric", "transform": "log1p"},
                {"name": "clicks_price", "type": "numeric"},
            ],
        },
        {
            "name": "views",
            "max_length": 6,
            "fields": [
                {"name": "views_kind", "type": "categorical", "table": "kind"},
                {"name": "views_label", "type": "numeric"},
                {"name": "views_rating", "type": "categorical", "table": "rating"},
                {"name": "views_device", "type": "categorical", "table": "device"},
            ],
        },
    ],
}
BUILD = {
    "user": "user_id",
    "item": "item_id",
    "time": "time",
    "label": {"column": "rating", "at_least": 4},
    "rows": {"column": "kind", "values": ["impression", "click"]},
    "tables": {"item": {"min_count": 3}, "tag": {"max_size": 4}},
    "sequences": {
        "older": {"before": "clicks", "fields": {"older_item": "item_id"}},
        "clicks": {
            "where": {"column": "label", "values": [1]},
            "fields": {
                "clicks_item": "item_id",
                "clicks_tags": "tags",
                "clicks_age": "hours_before",
                "clicks_price": "price",
            },
        },
        "views": {
            "fields": {
                "views_kind": "kind",
                "views_label": "label",
                "views_rating": "rating",
                "views_device": "device",
            }
        },
    },
    "split": {"by": "time", "valid": 0.2, "test": 0.2},
}


def schema_dict(**build) -> dict:
    """SCHEMA with BUILD, some entries of which are others; None leaves one out."""
    rules = {**copy.deepcopy(BUILD), **build}
    return {
        **copy.deepcopy(SCHEMA),
        "build": {name: rule for name, rule in rules.items() if rule is not None},
    }


def negatives_dict(**build) -> dict:
    """:func:`schema_dict` of a log of positives alone, four negatives each."""
    values = schema_dict(
        **{
            "label": None,
            "rows": None,
            "negatives": {"per_positive": 4, "by": "popularity", "seed": 3},
            **build,
        }
    )
    values["features"] = [f for f in values["features"] if f["side"] != "cross"]
    return values


def random_log(events: int = 260, seed: int = 0):
    """(events, items, users): dictionaries, with missing values, ties, and items and users unknown."""
    draw = random.Random(seed)
    log = []
    for place in range(events):
        item = min(draw.randrange(ITEMS), draw.randrange(ITEMS))
        log.append(
            {
                "user_id": f"u{draw.randrange(USERS)}",
                "item_id": f"i{item:02d}",
                "time": START + TIE * draw.randrange(SPAN),
                "kind": draw.choice(["impression", "click", "search"]),
                "rating": draw.choice([1, 2, 3, 4, 5]),
                "device": draw.choice([7, 8, 9, None]),
                "affinity": draw.choice([0.5, -1.25, None]),
                "split": "abc"[place * 3 // events],
                "place": place,
            }
        )
    items = {
        f"i{item:02d}": {
            "price": draw.choice([None, 0.0, 1.5, 20.0, 7.25]),
            "tags": draw.sample(["red", "blue", "new", "old", "big"], draw.randrange(4)),
        }
        for item in range(ITEMS - 2)
    }
    users = {
        f"u{user}": {"age": draw.choice([None, 20.0, 35.0]), "city": draw.choice(["Rome", "Oslo"])}
        for user in range(USERS - 1)
    }
    return log, items, users


def write_table(path, rows: list[dict], lists=()) -> str:
    """A Parquet file, or CSV by its name; lists are joined by "|" in the latter."""
    table = pa.Table.from_pylist(rows)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
        return str(path)
    names = list(rows[0])
    lines = [",".join(names)]
    for row in rows:
        cells = ["|".join(row[n]) if n in lists else row[n] for n in names]
        lines.append(",".join("" if cell is None else str(cell) for cell in cells))
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def write_log(folder, schema: dict, log=None, kind: str = "parquet") -> dict:
    """The log in two files of events, the tables and the schema; arguments of ``prepare_events``."""
    events, items, users = random_log() if log is None else log
    half = len(events) // 2
    columns = {"tags": {"separator": "|"}} if kind == "csv" else None
    if columns:
        schema = {**schema, "build": {**schema["build"], "columns": columns}}
    (folder / "schema.yaml").write_text(yaml.safe_dump(schema))
    return {
        "schema_path": folder / "schema.yaml",
        "events": [
            write_table(folder / f"part{number}.{kind}", part)
            for number, part in enumerate((events[:half], events[half:]))
            if part
        ],
        "items": write_table(
            folder / f"items.{kind}", [{"item_id": k, **v} for k, v in items.items()], ("tags",)
        ),
        "users": write_table(
            folder / f"users.{kind}", [{"user_id": k, **v} for k, v in users.items()]
        ),
    }


def stored_rows(prepared, split: str) -> list[dict]:
    """The rows of a split as they lie in its shards: lists of text, numbers and whole numbers."""
    stats = json.loads((prepared / "stats.json").read_text())
    rows = []
    for shard in stats["shards"][split]:
        path = str(prepared / split / shard["name"])
        for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
            row = {}
            for name, feature in tf.train.Example.FromString(record).features.feature.items():
                values = getattr(feature, feature.WhichOneof("kind")).value
                row[name] = [v.decode() if isinstance(v, bytes) else v for v in values]
            rows.append(row)
    return rows
