"""Every writing of a time, as microseconds."""

import datetime

import numpy as np
import pyarrow as pa
import pytest

from loopctr_tf.prepare.times import Times

SECOND = 1_000_000
NOON = 1_704_024_000  # 2023-12-31T12:00:00Z
NOT, MIXED = "not a time", "a number among dates, or a date among numbers"
OUTSIDE = "time outside the years 1 to 2999"


def convert(array, unit="s"):
    values, problems = Times(unit)(array)
    assert values.type == pa.int64()
    return values.to_pylist(), {p.reason: np.flatnonzero(rows).tolist() for p, rows in problems}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2023-12-31T12:00:00Z", NOON * SECOND),
        ("2023-12-31 12:00", NOON * SECOND),
        ("2023-12-31", (NOON - 12 * 3600) * SECOND),
        (" 2023-12-31 12:00:00 UTC", NOON * SECOND),
        ("2023-12-31T14:00:00+02:00", NOON * SECOND),
        ("2023-12-31T06:30:00-0530", NOON * SECOND),
        ("2023-12-31T12:00:00.5", NOON * SECOND + 500_000),
        ("2023-12-31T12:00:00.123456789Z", NOON * SECOND + 123_456),
        ("1969-12-31T23:59:59Z", -SECOND),
        ("2023-02-29", {NOT}),
        ("2023-12-31T25:00:00", {NOT}),
        ("2023-12-31 soon", {NOT}),
        ("1704024000", {MIXED}),
        ("3000-01-01", {OUTSIDE}),
        ("", None),
        (None, None),
    ],
)
def test_dates(text, expected):
    value, reasons = (None, expected) if isinstance(expected, set) else (expected, set())
    # The first cell is a date, with which numbers must not be mixed.
    for others in (["2024-01-01"], ["2024-01-01T00:00:00Z"], ["2024-01-01", "2023-02-30"]):
        cells = [cell or None for cell in (*others, text)]
        values, problems = convert(pa.array(cells, pa.string()))
        assert values[-1] == value
        assert {reason for reason, rows in problems.items() if len(others) in rows} == reasons


@pytest.mark.parametrize(
    ("unit", "number", "expected"),
    [
        ("s", NOON, NOON * SECOND),
        ("ms", NOON * 1000 + 7, NOON * SECOND + 7000),
        ("ns", NOON * 10**9 + 1999, NOON * SECOND + 1),
        ("s", -1, -SECOND),
        ("s", NOON * 1000, {OUTSIDE}),
        ("ms", NOON * SECOND, {OUTSIDE}),
        ("s", 2**63 - 1, {OUTSIDE}),
    ],
)
def test_numbers(unit, number, expected):
    for array in (pa.array([0, number]), pa.array(["0", str(number)])):
        values, problems = convert(array, unit)
        found = values[1] if values[1] is not None else set(problems)
        assert found == expected


def test_numbers_with_a_fraction():
    expected = [NOON * SECOND + 250_000, None, 1_500_000]
    assert convert(pa.array([NOON + 0.25, np.nan, 1.5])) == (expected, {})
    assert convert(pa.array([f"{NOON}.25", "nan", "1.5"])) == (expected, {})
    values, problems = convert(pa.array(["5", "x", "2023-12-31", "inf", "0x10", "1e30"]))
    assert values == [5 * SECOND, None, None, None, None, None]
    assert problems == {MIXED: [2], NOT: [1, 4], OUTSIDE: [3, 5]}


def test_a_file_keeps_the_writing_of_its_first_time():
    dates, numbers = pa.array(["2023-12-31", "2023-12-30"]), pa.array(["1704024000", "5"])
    nothing = pa.array([None, None], pa.string())
    for first, second in ((dates, numbers), (numbers, dates)):
        times = Times("s")
        for array in (nothing, first):
            assert times(array)[1] == []
        values, ((problem, rows),) = times(second)
        assert (values.null_count, problem.reason, rows.all()) == (2, MIXED, True)


def test_times_of_parquet():
    noon = datetime.datetime(2023, 12, 31, 12)
    for kind in (pa.timestamp("ns"), pa.timestamp("s"), pa.timestamp("ms", "Europe/Berlin")):
        assert convert(pa.array([noon, None], kind), "ms") == ([NOON * SECOND, None], {})
    assert convert(pa.array([noon.date()]))[0] == [(NOON - 12 * 3600) * SECOND]
    far = datetime.datetime(9999, 12, 31)
    assert convert(pa.array([far], pa.timestamp("us"))) == ([None], {OUTSIDE: [0]})
