"""Proposed schemas: what is guessed of generated tables, and that they can be prepared as they are."""

import csv

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from loopctr_tf.errors import UsageError
from loopctr_tf.features.schema import Schema
from loopctr_tf.prepare.prepare import prepare_events
from loopctr_tf.prepare.proposal import propose_schema

ROWS, USERS, ITEMS = 2000, 60, 40
START = 1_700_000_000


def log(few_items: bool = False) -> dict[str, np.ndarray | list]:
    """Columns of an event log that is easily told: sides, types and parts are in the names here."""
    rng = np.random.default_rng(0)
    user, item = rng.integers(USERS, size=ROWS), rng.integers(ITEMS, size=ROWS)
    if few_items:
        item = user % 20 + item % 9
    genres = [["Action", "Drama", "Film-Noir"][: 1 + i % 3] for i in range(ITEMS)]
    return {
        "user_id": [f"u{u}" for u in user],
        "movie_id": item,
        "event_time": START + np.sort(rng.integers(10**6, size=ROWS)),
        "session_id": rng.integers(10**6, size=ROWS),
        "city": [f"city {u % 7}" for u in user],
        "age": user + 18,
        "price": (item * 1.5 + 0.25).round(2),
        "views": 2**item,
        "genres": ["|".join(genres[i]) for i in item],
        "device": rng.integers(3, size=ROWS),
        "position": rng.integers(100, size=ROWS),
        "platform": ["web"] * ROWS,
        "dwell_ms": rng.integers(5000, size=ROWS),
        "comment": [
            f"some words of a long remark that nobody repeats, number {r}" for r in range(ROWS)
        ],
    }


def save(path, columns: dict):
    """A table as Parquet or CSV, by the name."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
    return path


def proposed(path, items=None, **settings) -> tuple[str, dict, Schema]:
    """(text, values, schema) of a proposal."""
    text = propose_schema(path, items, **settings)
    values = yaml.safe_load(text)
    return text, values, Schema.from_dict({k: v for k, v in values.items() if k != "build"})


def prepared(tmp_path, text, events, items=None) -> dict:
    (tmp_path / "schema.yaml").write_text(text)
    return prepare_events(
        tmp_path / "schema.yaml", events, tmp_path / "out", items=items, workers=1
    )


def described(schema: Schema) -> dict[str, tuple]:
    return {f.name: (f.type, f.side, f.table) for f in schema.features}


FEATURES = {
    "movie_id": ("categorical", "item", "movie"),
    "city": ("categorical", "user", "city"),
    "age": ("numeric", "user", None),
    "price": ("numeric", "item", None),
    "views": ("numeric", "item", None),
    "genres": ("multi_categorical", "item", "genres"),
    "device": ("categorical", "context", "device"),
    "position": ("numeric", "context", None),
}


@pytest.mark.parametrize("name", ["e.parquet", "e.csv"])
def test_impressions_with_a_label(tmp_path, name):
    columns = log()
    columns["is_click"] = np.random.default_rng(1).integers(2, size=ROWS)
    path = save(tmp_path / name, columns)
    text, values, schema = proposed(path)
    assert (schema.label, schema.group) == ("is_click", "user_id")
    assert described(schema) == FEATURES
    assert schema.table("movie").dtype == "int64"
    assert schema.table("city").dtype == "string"
    transforms = {f.name: f.transform for f in schema.features if f.type == "numeric"}
    assert transforms == {"age": "none", "price": "none", "views": "log1p", "position": "none"}
    (history,) = schema.sequences
    assert [f.name for f in history.fields] == [
        "history_movie_id",
        "history_genres",
        "history_hours",
    ]
    assert values["build"] == {
        "user": "user_id",
        "item": "movie_id",
        "time": "event_time",
        "exact_order": False,
        "columns": {"genres": {"separator": "|"}},
        "sequences": {
            "history": {
                "where": {"column": "is_click", "values": [1]},
                "fields": {
                    "history_movie_id": "movie_id",
                    "history_genres": "genres",
                    "history_hours": "hours_before",
                },
            }
        },
        "split": {"by": "time", "valid": 0.1, "test": 0.1},
    }
    for line in (
        "# Proposed by `loopctr schema init` from all 2,000 rows of the events.",
        f"label: is_click  # by its name; {columns['is_click'].mean():.1%} of the events are positive",
        "# - session_id: by its name, of a session or request: does it occur again later?",
        "# - platform: always 'web'",
        "# - dwell_ms: by its name, known only after the user's response",
        "# - comment: different in every row",
        "  - {name: age, type: numeric, side: user}",
    ):
        assert line in text.splitlines()
    # Every column is a feature, has a part of its own or is left out with a reason.
    for column in columns:
        assert column in text
    stats = prepared(tmp_path, text, path)
    assert sum(stats["rows"].values()) == ROWS
    assert sum(stats["clicks"].values()) == columns["is_click"].sum()


def test_clicks_alone_have_sampled_negatives_and_item_features_of_the_item_table(tmp_path):
    columns = log(few_items=True)  # so that a user leaves others to be sampled
    events = save(tmp_path / "e.parquet", columns)
    text, values, schema = proposed(events)
    assert "item" not in {f.side for f in schema.features if f.name != "movie_id"}
    assert values["build"]["negatives"] == {"per_positive": 4, "by": "popularity", "seed": 1}
    assert "where" not in values["build"]["sequences"]["history"]
    assert "label" not in values["build"]
    items = save(
        tmp_path / "items.csv",
        {"movie_id": range(ITEMS), "genres": ["a", "b"] * 20, "year": range(1980, 1980 + ITEMS)},
    )
    text, values, schema = proposed(events, items)
    found = described(schema)
    assert found["genres"] == ("categorical", "item", "genres")
    assert found["year"] == ("numeric", "item", None)
    assert values["build"]["sequences"]["history"]["fields"]["history_genres"] == "genres"
    stats = prepared(tmp_path, text, events, items)
    assert sum(stats["clicks"].values()) == ROWS
    assert sum(stats["rows"].values()) == 5 * ROWS
    no_key = save(tmp_path / "i.csv", {"item": [1], "year": [2]})
    with pytest.raises(UsageError, match=r"no column 'movie_id', the item column.*are item, year;"):
        proposed(events, no_key)


@pytest.mark.parametrize(
    ("column", "rule", "positives"),
    [
        ({"rating": [1, 2, 3, 4, 5] * 400}, {"column": "rating", "at_least": 4}, 800),
        (
            {"stars": [0.5, 2.5, 3.0, 6.0, 10.0] * 400},
            {"column": "stars", "at_least": 3.0},
            1200,
        ),
        (
            {"event_type": ["view", "cart", "view", "click"] * 500},
            {"column": "event_type", "values": ["click"]},
            500,
        ),
        (
            {"behavior": ["pv", "buy", "pv", "fav"] * 500},
            {"column": "behavior", "values": ["buy"]},
            500,
        ),
        ({"clicked": [True, False] * 1000}, {"column": "clicked"}, 1000),
        ({"like": [1.0, 0.0] * 1000}, {"column": "like"}, 1000),
    ],
    ids=lambda value: str(value)[:20],
)
@pytest.mark.parametrize("name", ["e.parquet", "e.csv"])
def test_labels(tmp_path, name, column, rule, positives):
    path = save(tmp_path / name, {**log(), **column})
    text, values, schema = proposed(path)
    if len(rule) == 1:
        assert schema.label == rule["column"]
        assert "label" not in values["build"]
    else:
        assert schema.label == "label"
        assert values["build"]["label"] == rule
    assert rule["column"] not in described(schema)
    stats = prepared(tmp_path, text, path)
    assert sum(stats["clicks"].values()) == positives


@pytest.mark.parametrize(
    ("times", "unit"),
    [
        ((START + np.arange(ROWS)) * 1000, "ms"),
        ((START + np.arange(ROWS)) * 10**6, "us"),
        ((START + np.arange(ROWS)) * 10**9, "ns"),
        (START + np.arange(ROWS) / 4, "s"),
        (np.array((START + np.arange(ROWS)), "datetime64[s]"), "s"),
        ([f"2024-01-31 12:{r % 3600 // 60:02}:{r % 60:02} UTC" for r in range(ROWS)], "s"),
        ([f"2024-01-{1 + r * 31 // ROWS:02}" for r in range(ROWS)], "s"),
    ],
    ids=["ms", "us", "ns", "fractions", "datetime64", "ISO", "days"],
)
def test_times(tmp_path, times, unit):
    columns = {**log(), "event_time": times, "label": [1, 0] * 1000, "signed_up": [START] * ROWS}
    text, values, _ = proposed(save(tmp_path / "e.parquet", columns))
    assert values["build"]["time"] == "event_time"
    assert values["build"].get("time_unit", "s") == unit
    stats = prepared(tmp_path, text, tmp_path / "e.parquet")
    assert sum(stats["rows"].values()) == ROWS


def test_positions_instead_of_times(tmp_path):
    columns = {**log(), "label": [1, 0] * 1000}
    del columns["event_time"]
    columns["position"] = np.arange(ROWS)
    text, values, schema = proposed(save(tmp_path / "e.csv", columns))
    assert values["build"]["time"] == "position"
    assert values["build"]["split"] == {"by": "last", "valid": 1, "test": 1}
    assert "history_hours" not in {f.name for f in schema.all_fields()}
    stats = prepared(tmp_path, text, tmp_path / "e.csv")
    assert stats["rows"] == {"train": ROWS - 2 * USERS, "valid": USERS, "test": USERS}


def test_a_column_that_names_the_splits(tmp_path):
    parts = (["train"] * 8 + ["val", "test"]) * 200
    columns = {**log(), "label": [1, 0] * 1000, "split": parts}
    text, values, _ = proposed(save(tmp_path / "e.csv", columns))
    assert values["build"]["split"] == {
        "by": "column",
        "column": "split",
        "train": ["train"],
        "valid": ["val"],
        "test": ["test"],
    }
    assert prepared(tmp_path, text, tmp_path / "e.csv")["rows"] == {
        "train": 1600,
        "valid": 200,
        "test": 200,
    }


def test_tables_by_how_many_values_there_are(tmp_path):
    rng = np.random.default_rng(0)
    rows = 12_000
    columns = {
        "uid": rng.integers(500, size=rows),
        "ad": rng.integers(1500, size=rows),
        "ts": START + np.arange(rows),
        "label": rng.integers(2, size=rows),
        "page_id": np.arange(rows),
        "area_code": [f"{n:03}" for n in rng.integers(900, size=rows)],
        "level_id": rng.integers(-1, 3, size=rows),
    }
    text, values, _ = proposed(save(tmp_path / "e.csv", columns))
    assert values["tables"] == {
        "ad": {"dtype": "int64", "vocabulary": []},
        "page": {"dtype": "int64", "hash_buckets": 32768},
        "area_code": {"vocabulary": []},
        # -1 would be taken for a missing value.
        "level": {"vocabulary": []},
    }
    assert values["build"]["tables"] == {"ad": {"min_count": 5}}
    prepared(tmp_path, text, tmp_path / "e.csv")


def test_busy_users_get_a_long_sequence(tmp_path):
    rows = 600
    columns = {
        "user": np.arange(rows) % 5,
        "item": np.arange(rows) % 77,
        "time": START + np.arange(rows),
        "label": np.arange(rows) % 2,
    }
    text, values, schema = proposed(save(tmp_path / "e.csv", columns))
    assert [(s.name, s.max_length, s.compress) for s in schema.sequences] == [
        ("history", 50, False),
        ("older_history", 500, True),
    ]
    assert values["build"]["sequences"]["older_history"]["before"] == "history"
    assert "90% of the users have up to 60 of them" in text
    stats = prepared(tmp_path, text, tmp_path / "e.csv")
    # 60 positives a user at most, of which 50 are in the first sequence.
    assert stats["histories"]["older_history"]["mean_events"] < 5


def test_odd_names_missing_values_and_bad_rows(tmp_path):
    columns = {**log(), "label": [1, 0] * 1000, "brand name": ["a", "a", "b", "b"] * 500}
    columns["yes"] = np.arange(ROWS) // 3 % 4
    columns["city"] = [None if r % 4 == 0 else c for r, c in enumerate(columns["city"])]
    columns["user_id"] = [None if r == 7 else u for r, u in enumerate(columns["user_id"])]
    path = save(tmp_path / "e.parquet", {**columns, "where": pa.array([{"x": 1}] * ROWS)})
    text, _, schema = proposed(path)
    assert "1 rows: use --skip-bad, or fill them in" in text
    assert "# - where: STRUCT(x BIGINT), which cannot be a feature" in text
    assert '{name: brand_name, column: "brand name", type: categorical' in text
    assert "; 500 missing (25%)" in text
    assert described(schema)["yes"] == ("categorical", "context", "yes")
    assert '"yes": {dtype: int64' in text
    csv_path = save(tmp_path / "e.csv", {**log(), "label": [1, 0] * 1000})
    csv_path.write_text(csv_path.read_text() + "u1,2\n")
    assert "# NOTE: lines that cannot be read (wrong number of fields): 1." in propose_schema(
        csv_path
    )


def test_only_the_beginning_is_read(tmp_path):
    columns = {**log(), "label": [1, 0] * 1000}
    columns["device"] = [1, 1, 2, 2] * 250 + list(range(1000))
    path = save(tmp_path / "e.parquet", columns)
    text, _, _ = proposed(path, rows=1000)
    assert "from the first 1,000 rows of the events" in text
    assert "device: {dtype: int64, vocabulary: []}  # 2 values in the sample" in text


@pytest.mark.parametrize(
    ("drop", "words"),
    [
        (
            "user_id",
            "no column looks like the user; rename one, e.g. to user_id (without a header",
        ),
        (
            "movie_id",
            "no column looks like the item; rename one, e.g. to item_id (without a header",
        ),
        ("event_time", "no column looks like the time of the events (dates, or numbers since 1970"),
    ],
)
def test_a_table_without_user_item_or_time(tmp_path, drop, words):
    columns = {name: values for name, values in log().items() if name not in (drop, "position")}
    with pytest.raises(UsageError) as raised:
        propose_schema(save(tmp_path / "e.csv", columns))
    assert words in str(raised.value)


def test_no_rows_at_all(tmp_path):
    with pytest.raises(UsageError, match="no row of the events can be read"):
        propose_schema(save(tmp_path / "e.csv", {name: [] for name in log()}))
