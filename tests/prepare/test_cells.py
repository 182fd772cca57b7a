"""What each wanted type takes and refuses, cell by cell."""

import decimal

import numpy as np
import pyarrow as pa
import pytest

from loopctr_tf.prepare.converting import Converter
from loopctr_tf.prepare.wanted import WantedColumn

N = "not a number"
W = "not a whole number"
B = "beyond int64"
X = "beyond 2^53 and not stored as a whole number"
INF = "infinite or beyond float32"
L = "label other than 0 and 1"

CELLS = [
    # Text: wanted type, cell, value or None (missing) or the reason in a set.
    ("int64", "12", 12),
    ("int64", "-007", -7),
    ("int64", "3.0", 3),
    ("int64", "3.5", {W}),
    ("int64", "abc", {N}),
    ("int64", "0x10", {N}),
    ("int64", "٣", {N}),
    ("int64", "9223372036854775807", 2**63 - 1),
    ("int64", "9223372036854775808", {B}),
    ("int64", "9" * 5000, {B}),
    ("int64", "9007199254740992.0", 2**53),
    ("int64", "9007199254740994.0", {X}),
    ("float32", "0.5", 0.5),
    ("float32", " -.5e1", -5.0),
    ("float32", "0x1p3", {N}),
    ("float32", "Infinity", {INF}),
    ("float32", "1e39", {INF}),
    ("binary", "1.0", 1),
    ("binary", " TRUE", 1),
    ("binary", "2", {L}),
    ("binary", "yes", {L}),
    ("string", " a b ", " a b "),
    ("string", "", None),
    *(("int64", word, None) for word in ("", "  ", "nan", "NULL", "None", "n/a", "NA", "\\N")),
    ("float32", "NaN", None),
    ("binary", "", None),
]  # fmt: skip


def convert(array, **wanted):
    """(values, {reason: rows}) of an array."""
    values, problems = Converter(WantedColumn("c", **wanted), limit=8000)(array)
    values.validate(full=True)
    assert values.type == WantedColumn("c", **wanted).arrow_type
    return values.to_pylist(), {p.reason: np.flatnonzero(rows).tolist() for p, rows in problems}


@pytest.mark.parametrize(("kind", "cell", "expected"), CELLS, ids=repr)
def test_a_cell_of_text_whatever_stands_beside_it(kind, cell, expected):
    value, reasons = (None, expected) if isinstance(expected, set) else (expected, set())
    for others in ([], ["1"], ["oops", "0.25"]):
        values, problems = convert(pa.array([*others, cell], pa.string()), type=kind)
        row = len(others)
        assert values[row] == value
        assert {reason for reason, rows in problems.items() if row in rows} == reasons


ARRAYS = [
    ("string", pa.array([1, None, -3]), ["1", None, "-3"], {}),
    ("string", pa.array([1.0, 2.5, None, np.nan]), ["1", "2.5", None, None], {}),
    ("string", pa.array([1e17, np.inf, 5.0]), [None, None, "5"], {X: [0, 1]}),
    ("string", pa.array([True, None]), ["true", None], {}),
    ("string", pa.array(["a", "a", "", None]).dictionary_encode(), ["a", "a", None, None], {}),
    ("string", pa.array([b"ab", b"cd"], pa.binary(2)), ["ab", "cd"], {}),
    ("int64", pa.array([2**64 - 1, 2**63 - 1], pa.uint64()), [None, 2**63 - 1], {B: [0]}),
    ("int64", pa.array([3.0, np.nan, None, -0.0]), [3, None, None, 0], {}),
    ("int64", pa.array([3.5, np.inf, 2.0**60]), [None] * 3, {W: [0, 1], X: [2]}),
    ("int64", pa.array([decimal.Decimal("1.5"), decimal.Decimal("2.0")]), [None, 2], {W: [0]}),
    ("int64", pa.array([None, None]), [None, None], {}),
    ("float32", pa.array([1.5, np.nan, np.inf, 1e39]), [1.5, None, None, None], {INF: [2, 3]}),
    ("float32", pa.array([2**62, None]), [2.0**62, None], {}),
    ("binary", pa.array([0, 1, 2, None]), [0, 1, None, None], {L: [2]}),
    ("binary", pa.array([0.0, 1.0, 0.5, np.nan]), [0, 1, None, None], {L: [2]}),
    ("binary", pa.array([True, False, None]), [1, 0, None], {}),
]


@pytest.mark.parametrize(("kind", "array", "values", "problems"), ARRAYS)
def test_typed_arrays(kind, array, values, problems):
    assert convert(array, type=kind) == (values, problems)
    # A slice has an offset into the same memory.
    padded = pa.concat_arrays([array[:1], array, array[:1]])[1:-1]
    assert convert(padded, type=kind) == (values, problems)


def test_bytes_that_are_no_text():
    raw = [b"a", b"", b"x\0y", b"li\nne", b"\xff\xfe", b"\xc3\xa9", b"z" * 8001, b"t\tab", None]
    values, problems = convert(pa.array(raw), type="string")
    assert values == ["a", None, None, None, None, "é", None, "t\tab", None]
    assert problems == {
        "cell of more than 8,000 bytes": [6],
        "NUL byte": [2],
        "line break in a value": [3],
        "not UTF-8": [4],
    }
    # The same of a slice, and of a column of numbers, where a line break is no more than a space.
    values, problems = convert(pa.array(raw)[2:6], type="string")
    assert values == [None, None, None, "é"]
    assert problems == {"NUL byte": [0], "line break in a value": [1], "not UTF-8": [2]}
    values, problems = convert(pa.array([b"zzzz", b"", b"\0", b"\n"])[1:], type="string")
    assert problems == {"NUL byte": [1], "line break in a value": [2]}
    values, problems = convert(pa.array([b"1\n", b"\0", b"\xff"]), type="int64")
    assert (values, problems) == ([1, None, None], {"NUL byte": [1], "not UTF-8": [2]})


def test_required_cells():
    values, problems = convert(pa.array(["1", "", "x", None]), type="int64", required=True)
    assert (values, problems) == ([1, None, None, None], {N: [2], "missing": [1, 3]})


def test_lists_in_a_cell():
    cells = pa.array(["1|2", "", "|3||", None, "4|x", "5|1.5|y"])
    values, problems = convert(cells, type="int64", separator="|")
    assert values == [[1, 2], [], [3], [], [4], [5]]
    # A row has one problem, though two of its values are bad.
    assert problems == {N: [4, 5]}
    values, problems = convert(cells, type="string", separator="|", required=True)
    assert values[4:] == [["4", "x"], ["5", "1.5", "y"]]
    assert problems == {"missing": [1, 3]}
    assert convert(pa.array([5, None]), type="string", separator="|")[0] == [["5"], []]
    raw = pa.array([b"a\xff,b", b"c," + b"d" * 8000, b"e\nf,g"])
    values, problems = convert(raw, type="string", separator=",")
    assert values == [[], [], ["g"]]
    assert problems == {
        "cell of more than 8,000 bytes": [1],
        "not UTF-8": [0],
        "line break in a value": [2],
    }


def test_lists_in_a_list_column():
    lists = [[1, None, 2], [], None, [3]]
    for kind in (pa.list_(pa.int32()), pa.large_list(pa.int64())):
        array = pa.array(lists, kind)
        assert convert(array, type="int64", many=True) == ([[1, 2], [], [], [3]], {})
        assert convert(array[2:], type="string", many=True) == ([[], ["3"]], {})
        # A separator serves text files that are read beside Parquet.
        assert convert(array, type="int64", separator="|") == ([[1, 2], [], [], [3]], {})
    fixed = pa.array([[1, 2], None, [3, None]], pa.list_(pa.int64(), 2))
    assert convert(fixed, type="int64", many=True) == ([[1, 2], [], [3]], {})
    hidden = pa.ListArray.from_arrays(
        pa.array([0, 1, 3]), pa.array([1, 2, 3]), mask=pa.array([False, True])
    )
    assert convert(hidden, type="int64", many=True) == ([[1], []], {})
    wrong = pa.array([[1.0], [2.0, 2.5]])
    assert convert(wrong, type="int64", many=True) == ([[1], [2]], {W: [1]})
