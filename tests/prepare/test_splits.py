import re
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.columns import Column
from loopctr_tf.prepare.rules import ColumnSplit, LastSplit, TimeSplit
from loopctr_tf.prepare.splits import assign_splits

SECOND = 1_000_000


def splits(rule, user=None, seconds=None, unit="s", rows=None, **columns):
    """(one letter a row: t, v or T for test; facts)."""
    size = len(user if user is not None else seconds)
    store = SimpleNamespace(
        user=np.array(list(user or "a" * size)),
        time=np.array(seconds or range(size), np.int64) * SECOND,
        text=lambda name: columns[name],
    )
    store.user = np.unique(store.user, return_inverse=True)[1]
    rows = np.arange(size) if rows is None else np.array(rows)
    found, facts = assign_splits(store, rows, SimpleNamespace(split=rule, time_unit=unit))
    return "".join("tvT"[split] for split in found), facts


def refusal(*arguments, **keywords) -> str:
    with pytest.raises(UsageError) as error:
        splits(*arguments, **keywords)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_shares_are_of_the_rows_and_the_latest_are_tested():
    found, facts = splits(TimeSplit(valid=0.2, test=0.3), seconds=[5, 3, 9, 1, 7, 0, 8, 2, 6, 4])
    assert found == "vtTtTtTtvt"
    assert facts == {
        "valid_from": "1970-01-01T00:00:05+00:00",
        "test_from": "1970-01-01T00:00:07+00:00",
    }


def test_rows_of_one_time_are_not_torn_apart():
    """Half of six rows begins in the middle of time 2, which is then in the later split as a whole."""
    assert splits(TimeSplit(valid=0.0, test=0.5), seconds=[1, 2, 2, 2, 3, 4])[0] == "tTTTTT"
    assert splits(TimeSplit(valid=0.5, test=0.17), seconds=[1, 2, 2, 2, 3, 4])[0] == "tvvvvT"


def test_only_the_rows_count():
    assert (
        splits(TimeSplit(valid=0.0, test=0.5), seconds=[1, 2, 3, 4, 5, 6], rows=[0, 1, 2, 5])[0]
        == "ttTT"
    )


@pytest.mark.parametrize(
    ("valid", "test", "unit"),
    [
        (3, 5, "s"),
        (3000, 5000.0, "ms"),
        ("1970-01-01T00:00:03", "1970-01-01T00:00:05Z", "ms"),
        ("1970-01-01 00:00:02.5", "1970-01-01T01:00:04.000001+01:00", "s"),
    ],
)
def test_moments_are_numbers_in_the_unit_or_dates(valid, test, unit):
    rule = TimeSplit(valid_from=valid, test_from=test)
    assert splits(rule, seconds=[0, 2, 3, 4, 5, 6], unit=unit)[0] == "ttvvTT"


def test_last_rows_of_each_user_are_split_off():
    found, facts = splits(LastSplit(valid=1, test=2), user="aaaaabbbcccc")
    assert found == "ttvTT" + "ttt" + "tvTT"
    assert facts == {"users_wholly_in_train": 1}
    assert splits(LastSplit(valid=1, test=0), user="aaab")[0] == "ttvt"


def test_a_column_names_the_split():
    column = Column(
        pa.array(["x", "y", "z", "w"], pa.large_string()), np.array([0, 1, 2, 3, 0], np.int32)
    )
    rule = ColumnSplit(column="part", train=("x",), valid=("y", "w"), test=("z",))
    assert splits(rule, user="aaaaa", part=column)[0] == "tvTvt"
    some = ColumnSplit(column="part", train=("x",), valid=("y",), test=("z",))
    assert splits(some, user="aaaaa", part=column, rows=[0, 1, 2])[0] == "tvT"
    assert refusal(some, user="aaaaa", part=column).startswith(
        "build: split: column 'part' holds 'w' in a row, and the rules name x, y, z; add it to train"
    )


def test_a_split_without_rows_is_refused():
    assert refusal(TimeSplit(valid=0.1, test=0.5), seconds=[1, 1, 1, 1]).startswith(
        "build: split leaves train without rows (of 4 rows: test 4); "
    )
    assert "leaves valid without rows" in refusal(
        TimeSplit(valid=0.1, test=0.5), seconds=[1, 1, 2, 2]
    )
    assert "leaves valid without rows" in refusal(LastSplit(valid=1, test=2), user="aaabbb")
    late = TimeSplit(valid_from=2, test_from=9)
    assert "leaves test without rows (of 3 rows: train 2, valid 1)" in refusal(
        late, seconds=[0, 1, 2]
    )
    column = Column(pa.array(["x", "y"], pa.large_string()), np.array([0, 0], np.int32))
    rule = ColumnSplit(column="part", train=("x",), test=("y",))
    assert "leaves test without rows" in refusal(rule, user="aa", part=column)


def test_moments_that_are_none_are_refused():
    message = refusal(TimeSplit(valid_from="soon", test_from=3), seconds=[1, 2])
    assert message.startswith("build: split: valid_from is 'soon'; give a date such as 2024-01-31")
    message = refusal(TimeSplit(valid_from=3, test_from=3), seconds=[1, 2])
    assert re.match(
        "build: split: valid_from is 3 and test_from 3; test comes after valid", message
    )
