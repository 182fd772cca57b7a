"""BARS's pairs of files: both protocols, the validation rules, row counts."""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.typed import WantedColumn

sys.path.insert(0, str(Path(__file__).parents[2] / "data"))

from bars import BarsRows, ByTime, LastRows, LongestHistory

WANTED = [
    WantedColumn("label", "binary", required=True),
    WantedColumn("user", "string", required=True),
    WantedColumn("time", "int64", required=True),
    WantedColumn("item", "string"),
    WantedColumn("past", "string", separator="^"),
]
TRAIN = [
    # label, user, time, item, past
    "1,a,50,i4,i1^i2^i3",
    "0,a,10,i1,",
    "1,b,30,i2,i9",
    "0,b,50,i3,i9^i2",
    '0,"a",20,i2,i1',
    "1,b,10,i9,",
    "0,a,50,i9,i1^i2^i3",
    "0,c,40,i3,i1^i2",
]
TEST = ["1,a,60,i7,i1^i2^i3^i4", "0,b,60,i8,i9^i2^i3"]


@pytest.fixture
def folder(tmp_path):
    for name, rows in (("train.csv", TRAIN), ("test.csv", TEST)):
        (tmp_path / name).write_text("\n".join(["label,user,time,item,past", *rows]) + "\n")
    return tmp_path


def places(rows, split):
    """(user, item) of a split's rows."""
    tables = list(rows.batches(split))
    if not tables:
        return []
    table = pa.concat_tables(tables)
    return list(zip(table["user"].to_pylist(), table["item"].to_pylist(), strict=True))


def all_train():
    return [tuple(row.replace('"', "").split(",")[i] for i in (1, 3)) for row in TRAIN]


@pytest.mark.parametrize(
    ("rule", "chosen"),
    [
        (LastRows(0.25), [6, 7]),
        # Two of eight rows by time would tear apart the three of time 50.
        (ByTime("time", 0.25), [0, 3, 6]),
        (LongestHistory("user", "past"), [0, 3, 6]),
    ],
)
def test_the_honest_protocol_validates_on_rows_of_train(folder, rule, chosen):
    rows = BarsRows(folder, WANTED, valid=rule)
    for _ in range(2):
        assert places(rows, "valid") == [all_train()[row] for row in chosen]
        rest = [row for row in range(len(TRAIN)) if row not in chosen]
        assert places(rows, "train") == [all_train()[row] for row in rest]
        assert places(rows, "test") == [("a", "i7"), ("b", "i8")]
    assert rows.facts["protocol"] == "honest"
    assert rows.facts["validation"] == rule.text


def test_the_bars_protocol_validates_on_test_and_keeps_the_first_events(folder):
    rows = BarsRows(folder, WANTED, "bars", valid=LastRows(), keep_first={"past": 2})
    assert places(rows, "train") == all_train()
    assert places(rows, "valid") == places(rows, "test") == [("a", "i7"), ("b", "i8")]
    (table,) = rows.batches("test")
    assert table["past"].to_pylist() == [["i1", "i2"], ["i9", "i2"]]
    (table,) = BarsRows(folder, WANTED, valid=LastRows(), keep_first={"past": 2}).batches("test")
    assert table["past"].to_pylist()[0] == ["i1", "i2", "i3", "i4"]
    assert rows.facts["protocol"] == "bars"


def test_rules_see_all_batches_before_they_choose():
    """The same choice whatever the size of batches."""
    draw = np.random.default_rng(1)
    table = pa.table(
        {
            "user": draw.choice(["a", "b", "c"], 50),
            "time": draw.integers(0, 20, 50),
            "past": [["x"] * count for count in draw.integers(0, 9, 50)],
        }
    )
    for make in (LastRows, lambda: ByTime("time"), lambda: LongestHistory("user", "past")):
        found = []
        for size in (50, 7):
            rule, starts = make(), range(0, 50, size)
            for start in starts:
                rule.see(table.slice(start, size))
            found.append(
                np.concatenate([rule.chosen(start, table.slice(start, size)) for start in starts])
            )
        assert 0 < found[0].sum() < 50
        assert np.array_equal(*found)


def test_other_rows_than_published_are_a_warning(folder):
    rows = BarsRows(folder, WANTED, valid=LastRows(), published={"train": 9, "test": 2})
    for split in ("train", "valid", "test", "train"):
        list(rows.batches(split))
    (line,) = rows.facts["warnings"]
    assert line.startswith(
        "8 rows of train.csv were found, and the publisher's whole files have 9;"
    )
    assert rows.facts["row_counts"] == {
        "rows of train.csv": {"found": 8, "published": 9},
        "rows of test.csv": {"found": 2, "published": 2},
    }


def test_unknown_protocols_and_absent_files_are_usage_errors(folder):
    with pytest.raises(UsageError, match="protocol is 'fair'; choose honest, bars"):
        BarsRows(folder, WANTED, "fair", valid=LastRows())
    (folder / "test.csv").unlink()
    with pytest.raises(UsageError, match=r"test\.csv' does not exist"):
        BarsRows(folder, WANTED, valid=LastRows())
