"""The figures of a prepared folder, held to the frames that it was made of."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import loopctr_tf as lc
from loopctr_tf.errors import UsageError
from loopctr_tf.evaluation import plots
from loopctr_tf.evaluation.describe import QUANTILES, describe
from loopctr_tf.evaluation.report import description_text
from loopctr_tf.features.prepared import PreparedWriter
from tests.factories import GENRES, HISTORY, LONG, MOVIES, learnable_frame

SPLITS = {"train": 300, "valid": 60, "test": 60}


@pytest.fixture(scope="module")
def frames() -> dict[str, pd.DataFrame]:
    """The rows of the session's `prepared` folder, histories cut to their maximum lengths."""
    found = {}
    for seed, (split, rows) in enumerate(SPLITS.items()):
        frame = learnable_frame(rows, seed)
        for column in frame:
            if column.startswith(("history_", "long_")):
                most = HISTORY if column.startswith("history_") else LONG
                frame[column] = [events[-most:] for events in frame[column]]
        found[split] = frame
    return found


@pytest.fixture(scope="module")
def found(prepared):
    return describe(prepared)


def test_rows_clicks_users_and_items(found, frames):
    train = frames["train"]
    for split, frame in frames.items():
        clicks = int(frame["label"].sum())
        assert found["splits"][split] == pytest.approx(
            {
                "rows": len(frame),
                "clicks": clicks,
                "ctr": clicks / len(frame),
                "users": frame["user_id"].nunique(),
                "new_users": 1 - frame["user_id"].isin(train["user_id"]).mean(),
                "items": frame["movie_id"].nunique(),
                "new_items": 1 - frame["movie_id"].isin(train["movie_id"]).mean(),
            }
        )
    rows = pd.concat(frames.values())
    assert found["users"] == rows["user_id"].nunique()
    assert (found["items"], found["item"]) == (rows["movie_id"].nunique(), "movie_id")


@pytest.mark.parametrize(("name", "column"), [("history", "history_movie"), ("long", "long_movie")])
def test_lengths_of_histories(found, frames, name, column):
    most = {"history": HISTORY, "long": LONG}[name]
    for split, frame in frames.items():
        lengths = sorted(map(len, frame[column]))
        one = found["sequences"][name][split]
        assert one["mean"] == pytest.approx(sum(lengths) / len(lengths))
        assert one["max"] == lengths[-1] == most
        assert one["empty"] == pytest.approx(lengths.count(0) / len(lengths))
        assert one["full"] == pytest.approx(lengths.count(most) / len(lengths))
        assert one["histogram"] == [lengths.count(length) for length in range(most + 1)]
        for quantile in QUANTILES:
            expected = lengths[math.ceil(quantile * len(lengths)) - 1]
            assert one["quantiles"][str(quantile)] == expected


def test_unknown_values(found, frames):
    def flat(frame, *columns):
        for column in columns:
            for cell in frame[column]:
                if isinstance(cell, list):
                    yield from flat(pd.DataFrame({column: cell}), column)
                else:
                    yield cell

    used = {
        "movie": (MOVIES, ("movie_id", "history_movie", "long_movie")),
        "genre": (GENRES, ("genres", "history_genres")),
        "device": ([7, 3, 5], ("device",)),
    }
    for table, (vocabulary, columns) in used.items():
        assert found["tables"][table]["vocabulary"] == len(vocabulary)
        assert found["tables"][table]["used_by"] == list(columns)
        for split, frame in frames.items():
            values = list(flat(frame, *columns))
            unknown = sum(value not in vocabulary for value in values)
            assert 0 < unknown < len(values)
            share = found["tables"][table]["unknown"][split]
            assert share == pytest.approx(unknown / len(values))
    assert found["tables"]["movie"]["rows"] == len(MOVIES) + 2
    assert found["tables"]["zip"] == {
        "rows": 6,
        "vocabulary": None,
        "used_by": ["zip_code"],
        "unknown": dict.fromkeys(SPLITS),
    }


def test_missing_values(found, frames):
    for split, frame in frames.items():
        missing = {name: by_split[split] for name, by_split in found["missing"].items()}
        events = [event for row in frame["history_genres"] for event in row]
        gaps = [event for row in frame["history_gap"] for event in row]
        ratings = [event for row in frame["long_rating"] for event in row]
        assert missing == pytest.approx(
            {
                "movie_id": 0,
                "genres": sum(not row for row in frame["genres"]) / len(frame),
                "age": (frame["age"] == 25.0).mean(),  # its default
                "zip_code": 0,
                "device": 0,
                "affinity": (frame["affinity"] == 0.0).mean(),
                "history_movie": 0,
                "history_genres": sum(not event for event in events) / len(events),
                "history_gap": sum(gap == 0.0 for gap in gaps) / len(gaps),
                "long_movie": 0,
                "long_rating": sum(rating == 0.0 for rating in ratings) / len(ratings),
            }
        )


def test_it_is_ready_for_json_and_knows_no_days(found):
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["days"] == found["joins"] == {}
    assert found["warnings"] == []


SCHEMA = {
    "label": "label",
    "group": "user",
    "tables": {
        "item": {"vocabulary": []},
        "tag": {"dtype": "int64", "vocabulary": [1]},
        "page": {"hash_buckets": 3},
    },
    "features": [
        {"name": "user", "type": "categorical", "side": "user", "table": "item"},
        {"name": "tags", "type": "multi_categorical", "side": "item", "table": "tag", "max_values": 2},
        {"name": "page", "type": "categorical", "side": "context", "table": "page"},
    ],
    "sequences": [
        {
            "name": "past",
            "max_length": 4,
            "fields": [{"name": "past_page", "type": "categorical", "table": "page"}],
        }
    ],
}  # fmt: skip
DAYS = {"2024-01-31": {"train": [3, 1]}, "2024-02-01": {"train": [1, 1], "test": [4, 0]}}


@pytest.fixture
def small(tmp_path) -> Path:
    """Four rows of training and four of test, with all that may be absent: a split, values, an item."""
    folder = tmp_path / "prepared"
    folder.mkdir()
    writer = PreparedWriter(folder, lc.Schema.from_dict(SCHEMA))
    rows = pd.DataFrame(
        {
            "user": ["a", None, "a", "b"],
            "tags": [[1, 2], [], None, [-1]],
            "page": ["x", "", None, "y"],
            "past_page": [["x", None, ""], [], [], ["z"] * 6],
            "label": [1, 0, 0, 1],
        }
    )
    writer.write("train", rows)
    writer.write("test", rows.assign(user=["a", "c", "c", "c"], past_page=[[]] * 4, label=0))
    writer.finish(days=DAYS, users=3, events={"read": 9}, rejected={"missing": 1234})
    return folder


def test_what_may_be_absent(small):
    found = describe(small)
    assert list(found["splits"]) == ["train", "test"]
    assert found["splits"]["test"] == {
        "rows": 4,
        "clicks": 0,
        "ctr": 0.0,
        "users": 2,
        "new_users": 0.75,
        "items": 0,
        "new_items": None,
    }
    # "" is a group as any other.
    assert (found["users"], found["items"], found["item"]) == (4, 0, None)
    # Nothing is known to an empty vocabulary; a missing value is not unknown.
    assert found["tables"]["item"]["unknown"] == {"train": 1.0, "test": 1.0}
    assert found["tables"]["tag"]["unknown"] == {"train": 0.5, "test": 0.5}
    missing = {name: shares["train"] for name, shares in found["missing"].items()}
    assert missing == {"user": 0.25, "tags": 0.75, "page": 0.5, "past_page": pytest.approx(2 / 7)}
    assert found["missing"]["past_page"]["test"] is None
    past = found["sequences"]["past"]
    assert past["train"]["histogram"] == [2, 0, 0, 1, 1]
    assert past["test"] == {
        "mean": 0.0,
        "max": 0,
        "quantiles": dict.fromkeys(map(str, QUANTILES), 0),
        "empty": 1.0,
        "full": 0.0,
        "histogram": [4],
    }
    assert (found["days"], found["facts"]["events"]) == (DAYS, {"read": 9})


def test_the_text_for_people(small, found):
    text = description_text(describe(small))
    lines = [" ".join(line.split()) for line in text.splitlines()]  # without alignment
    for line in (
        "events: 9 read",
        "rejected: 1,234 missing",
        "| rows | 4 | 4 |",
        "| CTR | 0.5000 | 0.0000 |",
        "| rows of users not in train | 0.00% | 75.00% |",
        "4 users and 0 items in all",
        "| 2024-01-31 | 3 | 0.3333 | train |",
        "| 2024-02-01 | 5 | 0.2000 | train, test |",
        "| past: events | mean | 10% up to | 25% up to | 50% up to | 75% up to | 90% up to | 99% up to "
        "| most | empty | full |",
        "| train | 1.8 | 0 | 0 | 0 | 3 | 4 | 4 | 4 | 50.0% | 25.0% |",
        "| page | hashed | | |",
        "| tag | 1 | 50.00% | 50.00% |",
        "| past_page | 28.57% | |",
    ):
        assert line in lines
    text = description_text({**found, "facts": {"protocol": "bars", "rejected": {}}})
    assert "\n\nprotocol: bars\n\nCTR by day: not known, stats.json has no days\n\n" in text
    clean = {**found, "missing": {"age": {"train": 0.0, "valid": 0.0, "test": None}}}
    assert description_text(clean).endswith("\nno missing values")


def test_joins_warnings_and_begins_of_splits_are_those_that_preparation_counted(small):
    stats = json.loads((small / "stats.json").read_text())
    stats["events"] |= {"used": 8}
    stats |= {"items_events_without_row": 2, "items_without_row": 1, "items_table_rows": 1200}
    stats |= {"users_events_without_row": 0, "users_without_row": 0, "users_table_rows": 3}
    stats |= {"valid_from": "2024-02-01T00:00:00+00:00", "warnings": ["2 of 8 events ..."]}
    (small / "stats.json").write_text(json.dumps(stats))
    found = describe(small)
    assert found["joins"] == {
        "items": {
            "events_without_row": 2,
            "values_without_row": 1,
            "table_rows": 1200,
            "share": 0.25,
        },
        "users": {"events_without_row": 0, "values_without_row": 0, "table_rows": 3, "share": 0.0},
    }
    assert found["warnings"] == ["2 of 8 events ..."]
    assert set(found["facts"]) == {"events", "rejected", "valid_from"}
    lines = description_text(found).splitlines()
    start = lines.index("events: 9 read, 8 used")
    assert lines[start : start + 8] == [
        "events: 9 read, 8 used",
        "rejected: 1,234 missing",
        "events without a row in --items: 2 (25.00%), 1 different items",
        "events without a row in --users: 0 (0.00%), 0 different users",
        "splits begin: valid 2024-02-01T00:00:00+00:00",
        "",
        "said when it was prepared:",
        "- 2 of 8 events ...",
    ]


def test_many_days_are_summed_by_month(found):
    days = {
        str(np.datetime64("2024-01-01") + day): {"train": [2, 1], "valid": [1, 0]}
        for day in range(91)
    }
    text = description_text({**found, "days": days})
    lines = [" ".join(line.split()) for line in text.splitlines()]
    start = lines.index("| month (UTC) | rows | CTR | splits |")
    assert lines[start + 2 : start + 5] == [
        "| 2024-01 | 93 | 0.3333 | train, valid |",
        "| 2024-02 | 87 | 0.3333 | train, valid |",
        "| 2024-03 | 93 | 0.3333 | train, valid |",
    ]


def test_plots(small, found, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(plots, "_save", lambda figure, path: drawn.update({path.name: figure}))
    plots.draw_description(tmp_path, found)
    assert set(drawn) == {"history_lengths.png", "unknown_values.png"}
    history, long = drawn["history_lengths.png"].axes
    assert (history.get_title(), long.get_title()) == ("history", "long")
    train = history.get_lines()[0]
    one = found["sequences"]["history"]["train"]
    assert train.get_ydata()[0] == 1.0
    assert train.get_ydata()[1] == pytest.approx(1 - one["empty"])
    assert train.get_ydata()[-1] == pytest.approx(one["full"])
    (axis,) = drawn["unknown_values.png"].axes
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        "movie (12)",
        "genre (3)",
        "device (3)",
    ]
    plots.draw_description(tmp_path, describe(small))
    ctr, rows = drawn["ctr_by_day.png"].axes
    assert [line.get_ydata().tolist() for line in ctr.get_lines()] == [[1 / 3, 1.0], [0.0]]
    assert [bar.get_height() for bar in rows.patches] == [3, 1, 4]


def test_mistakes(small, tmp_path):
    with pytest.raises(UsageError, match="is not a prepared folder"):
        describe(tmp_path)
    stats = json.loads((small / "stats.json").read_text())
    (small / "stats.json").write_text(json.dumps({**stats, "rows": {"train": 0}}))
    with pytest.raises(UsageError, match="has no rows; prepare it again"):
        describe(small)
    (small / "stats.json").write_text(json.dumps(stats))
    shard = small / "train" / "part-00000.tfrecord"
    data = bytearray(shard.read_bytes())
    data[40] ^= 1
    shard.write_bytes(data)
    with pytest.raises(UsageError, match="a shard is damaged"):
        describe(small)
    shard.write_bytes(data[:-1])
    with pytest.raises(UsageError, match="was cut short or changed"):
        describe(small)
