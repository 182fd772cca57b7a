import numpy as np
import pandas as pd
import pytest

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.plan import Source
from loopctr_tf.prepare.prepare import prepare_events
from loopctr_tf.prepare.rules import Condition
from tests.prepare.logs import (
    START,
    load_rows,
    negatives_dict,
    random_log,
    schema_dict,
    write_log,
    write_table,
)

EVENT = {
    "user_id": "b",
    "item_id": "i1",
    "time": START,
    "kind": "click",
    "rating": 5,
    "device": 7,
    "affinity": 0.5,
}


def log(*events):
    """Events that are EVENT but for what is given, an item and a user."""
    return (
        [{**EVENT, **event} for event in events],
        {"i1": {"price": 1.0, "tags": ["red"]}},
        {"b": {"age": 30.0, "city": "Rome"}},
    )


def store(folder, *events, **build):
    build = {"split": {"by": "last", "valid": 0, "test": 0}, **build}
    return load_rows(folder, schema_dict(**build), log(*events)).store


def texts(found, name) -> list[str]:
    column = found.column(Source("events", name, "string"))
    return [column.values[code].as_py() for code in column.codes]


def test_events_are_sorted_by_user_time_and_place(tmp_path):
    found = store(
        tmp_path,
        {"user_id": "b", "time": START + 9, "item_id": "i1"},
        {"user_id": "a", "time": START + 5, "item_id": "i2"},
        {"user_id": "b", "time": START + 1, "item_id": "i3"},
        {"user_id": "a", "time": START + 5, "item_id": "i4"},
        {"user_id": "b", "time": START + 1, "item_id": "i5"},
        {"user_id": "a", "time": START + 2, "item_id": "i6"},
    )
    # Users in the order in which they are first seen.
    assert texts(found, "user_id") == list("bbbaaa")
    assert texts(found, "item_id") == ["i3", "i5", "i1", "i6", "i2", "i4"]
    assert found.time.tolist() == [(START + s) * 1_000_000 for s in (1, 1, 9, 2, 5, 5)]
    assert found.user_start.tolist() == [0, 0, 0, 3, 3, 3]
    assert found.time_start.tolist() == [0, 0, 2, 3, 4, 4]


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ({"column": "rating", "at_least": 4}, [1, 0, 0]),
        ({"column": "rating", "values": [3, "5"]}, [1, 1, 0]),
        ({"column": "kind", "values": ["like"]}, [0, 0, 1]),
    ],
)
def test_labels_by_rule(tmp_path, label, expected):
    events = [{"time": START + i, "rating": r, "kind": k} for i, (r, k) in enumerate([
        (5, "click"), (3, "click"), (2, "like"),
    ])]  # fmt: skip
    assert store(tmp_path, *events, label=label).label.tolist() == expected


def test_labels_of_a_column_and_of_negatives(tmp_path):
    events = [{"time": START + i, "label": label} for i, label in enumerate([0, 1, 1])]
    assert store(tmp_path, *events, label=None).label.tolist() == [0, 1, 1]
    (tmp_path / "n").mkdir()
    events, items, users = random_log(30)
    found = load_rows(
        tmp_path / "n",
        negatives_dict(split={"by": "last", "valid": 0, "test": 0}),
        (events, items, users),
    ).store
    assert found.label.tolist() == [1] * 30


def test_conditions(tmp_path):
    ratings = [5, 3, None, 1]
    events = [{"time": START + i, "rating": r} for i, r in enumerate(ratings)]
    found = store(tmp_path, *events, label={"column": "kind", "values": ["click"]})
    assert found.matches(Condition(column="rating", values=("3", "1"))).tolist() == [
        False,
        True,
        False,
        True,
    ]
    assert found.matches(Condition(column="rating", at_least=3)).tolist() == [
        True,
        True,
        False,
        False,
    ]
    assert found.matches(Condition(column="label", values=("0",)), "label").tolist() == [False] * 4
    assert found.matches(Condition(column="label", at_least=1), "label").tolist() == [True] * 4


def test_items_and_users_are_joined(tmp_path):
    found = store(
        tmp_path,
        {"user_id": "b", "item_id": "i2"},
        {"user_id": "a", "item_id": "i1"},
    )
    price, age = Source("items", "price", "float32"), Source("users", "age", "float32")
    events = np.array([0, 1])
    prices, _ = found.column(price).take(found.entries(price, events))
    np.testing.assert_array_equal(prices, [np.nan, 1.0])
    ages, _ = found.column(age).take(found.entries(age, events))
    np.testing.assert_array_equal(ages, [30.0, np.nan])
    items = found.item[[1, 0]]
    prices, _ = found.column(price).take(found.entries(price, None, items))
    np.testing.assert_array_equal(prices, [1.0, np.nan])
    assert found.facts["items_without_row"] == found.facts["users_without_row"] == 1
    assert found.facts["items_table_rows"] == 1


# Duplicates.

TWICE = [{"item_id": "i1"}, {"item_id": "i2"}, {"item_id": "i1"}, {"item_id": "i2", "device": 9}]


def test_an_event_that_is_there_twice_is_refused(tmp_path):
    with pytest.raises(UsageError) as error:
        store(tmp_path, *TWICE)
    # The third event is the first one of the second file.
    assert str(error.value).startswith(
        f"'{tmp_path}/part1.parquet', row 1: duplicate event, 'user b'; remove it, or write build: "
        "{duplicates: keep}"
    )


def test_duplicates_may_be_kept_or_left_out(tmp_path):
    assert len(store(tmp_path, *TWICE, duplicates="keep")) == 4
    out = tmp_path / "out"
    schema = schema_dict(split={"by": "last", "valid": 0, "test": 0})
    arguments = write_log(tmp_path, schema, log(*TWICE))
    stats = prepare_events(**arguments, out=out, skip_bad=True, workers=1)
    assert stats["events"] == {"read": 4, "used": 3, "bad": 0, "duplicates": 1}
    assert stats["rejected"] == {"duplicate event": 1}
    assert pd.read_csv(out / "rejected.csv")["row"].tolist() == [1]
    assert stats["rows"]["train"] == 3


def test_missing_numbers_and_lists_are_compared_too(tmp_path):
    schema = schema_dict(split={"by": "last", "valid": 0, "test": 0})
    schema["features"][2]["side"] = "context"
    events = [
        {"tags": ["red", "new"], "affinity": None},
        {"tags": ["red"], "affinity": None},
        {"tags": ["new", "red"], "affinity": None},
        {"tags": ["red", "new"], "affinity": 0.5},
        {"tags": ["red"], "affinity": None},
    ]
    with pytest.raises(UsageError, match=r"part1\.parquet', row 3: duplicate event"):
        load_rows(tmp_path, schema, log(*events))
    assert len(load_rows(tmp_path, schema, log(*events[:4])).store) == 4


def test_an_item_that_is_in_its_table_twice_is_refused_or_left_out(tmp_path):
    split = {"by": "last", "valid": 0, "test": 0}
    arguments = write_log(tmp_path, schema_dict(split=split), log({}))
    rows = [{"item_id": "i1", "price": price, "tags": ["red"]} for price in (2.0, 3.0)]
    write_table(tmp_path / "items.parquet", rows)
    with pytest.raises(
        UsageError, match=r"items\.parquet', row 2, column 'item_id': key is in the"
    ):
        prepare_events(**arguments, out=tmp_path / "out", workers=1)
    stats = prepare_events(**arguments, out=tmp_path / "out", skip_bad=True, workers=1)
    assert stats["rejected"] == {"key is in the table twice": 1}
    assert stats["items_table_rows"] == 1


def test_too_many_values_in_a_cell_are_refused(tmp_path):
    schema = schema_dict(split={"by": "last", "valid": 0, "test": 0})
    events, items, users = log({})
    items["i1"]["tags"] = ["a", "b", "c", "d"]
    with pytest.raises(UsageError) as error:
        load_rows(tmp_path, schema, (events, items, users))
    assert str(error.value) == (
        "column 'tags' of --items has up to 4 values in a cell; max_values of feature 'tags' is 3; "
        "raise it, or store fewer"
    )
