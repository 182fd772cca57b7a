"""What each wanted type takes and refuses, cell by cell, as DuckDB evaluates it."""

import datetime
import decimal
import re

import duckdb
import numpy as np
import pyarrow as pa
import pytest
import sqlglot

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.typed import (
    MISSING_WORDS,
    REMEDIES,
    TYPES,
    WantedColumn,
    check_type,
    typed,
)

N = "not a number"
W = "not a whole number"
B = "beyond int64"
X = "beyond 2^53 and not stored as a whole number"
INF = "infinite or beyond float32"
L = "label other than 0 and 1"
SECOND = 1_000_000
NOON = 1_704_024_000  # 2023-12-31T12:00:00Z
DAY = NOON - 12 * 3600
NOT, OUTSIDE = "not a time", "time outside the years 1 to 2999"
SLASHED = "a date with slashes or dots"

CONNECTION = duckdb.connect()
CONNECTION.execute("SET threads = 1; SET TimeZone = 'UTC'")


def convert(array: pa.Array, **wanted) -> list:
    """Value of each cell, or {reason} where there is a problem."""
    column = WantedColumn("c", **wanted)
    CONNECTION.register("raw", pa.table({"c": array}))
    ((_, raw_type, *_),) = CONNECTION.execute("DESCRIBE raw").fetchall()
    check_type(column, raw_type, "--events")
    expressions = typed(column, raw_type)
    query = f"SELECT {expressions.value} AS value, {expressions.problem} AS problem FROM raw"
    (_, value_type, *_), _ = CONNECTION.execute(f"DESCRIBE {query}").fetchall()
    assert value_type == column.sql_type.replace("REAL", "FLOAT")
    rows = CONNECTION.execute(query).fetchall()
    for _, problem in rows:
        assert problem is None or problem in REMEDIES
    return [value if problem is None else {problem} for value, problem in rows]


TEXT = [
    # Wanted type, cell, value or None (missing) or the reason in a set.
    ("string", " a b ", "a b"),
    ("string", "117.0", "117"),
    ("string", "5.", "5."),
    ("string", "5.50", "5.5"),
    ("string", "-0.0", "0"),
    ("string", "10.00", "10"),
    ("string", "100", "100"),
    ("string", "0.10", "0.1"),
    ("string", "0117", "0117"),
    ("string", "0117.0", "0117.0"),
    ("string", "1e5", "1e5"),
    ("string", "1.2.0", "1.2.0"),
    ("string", "v1.0", "v1.0"),
    ("string", "9007199254740991.0", "9007199254740991"),
    ("string", "9007199254740994.0", {X}),
    ("string", "True", "true"),
    ("string", "FALSE", "false"),
    ("string", "yes", "yes"),
    ("string", "1,234.00", "1,234.00"),
    ("string", "nano", "nano"),
    ("string", "é\tz", "é\tz"),
    ("string", "a\nb", {"line break in a value"}),
    ("string", "a\r\n", "a"),
    ("string", "x\0y", {"NUL byte"}),
    ("string", "z" * 1_048_577, {"cell of more than 1,048,576 characters"}),
    ("int64", "12", 12),
    ("int64", "-007", -7),
    ("int64", " +5\n", 5),
    ("int64", "3.0", 3),
    ("int64", "117.", 117),
    ("int64", "1e3", 1000),
    ("int64", "3.5", {W}),
    ("int64", "1e400", {W}),
    ("int64", "inf", {W}),
    ("int64", "abc", {N}),
    ("int64", "0x10", {N}),
    ("int64", "1_000", {N}),
    ("int64", "1,234", {N}),
    ("int64", "٣", {N}),
    ("int64", "1\0", {"NUL byte"}),
    ("int64", "9223372036854775807", 2**63 - 1),
    ("int64", "-9223372036854775808", -(2**63)),
    ("int64", "9223372036854775808", {B}),
    ("int64", "9" * 5000, {B}),
    ("int64", "9007199254740991.0", 2**53 - 1),
    ("int64", "9007199254740994.0", {X}),
    ("int64", "True", 1),
    ("float32", "0.5", 0.5),
    ("float32", " -.5e1", -5.0),
    ("float32", "1e-60", 0.0),
    ("float32", "1,234.00", {N}),
    ("float32", "12,5", {N}),
    ("float32", "1d", {N}),
    ("float32", "1_0", {N}),
    ("float32", "0x1p3", {N}),
    ("float32", "Infinity", {INF}),
    ("float32", "1e39", {INF}),
    ("float32", "1e400", {INF}),
    ("float32", "false", 0.0),
    ("binary", "1", 1),
    ("binary", "0.00", 0),
    ("binary", "1.0", 1),
    ("binary", " TRUE", 1),
    ("binary", "2", {L}),
    ("binary", "yes", {L}),
    ("time", "2023-12-31T12:00:00Z", NOON * SECOND),
    ("time", "2023-12-31 12:00", NOON * SECOND),
    ("time", "2023-12-31T12", NOON * SECOND),
    ("time", "2023-12-31", DAY * SECOND),
    ("time", "2023-12-31Z", DAY * SECOND),
    ("time", " 2023-12-31 12:00:00 UTC", NOON * SECOND),
    ("time", "2023-12-31T14:00:00+02:00", NOON * SECOND),
    ("time", "2023-12-31T14+02", NOON * SECOND),
    ("time", "2023-12-31T06:30:00-0530", NOON * SECOND),
    ("time", "2023-12-31T12:00:00.5", NOON * SECOND + 500_000),
    ("time", "2023-12-31T14:00:00.5+02:00", NOON * SECOND + 500_000),
    ("time", "2023-12-31T12:00:00.123456789Z", NOON * SECOND + 123_456),
    ("time", "1969-12-31T23:59:59Z", -SECOND),
    ("time", "2023-02-29", {NOT}),
    ("time", "2023-12-31T25:00:00", {NOT}),
    ("time", "2023-12-31 soon", {NOT}),
    ("time", "2023-12-31-05", {NOT}),
    ("time", "noon", {NOT}),
    ("time", "0x10", {NOT}),
    ("time", "11/14/2023 10:14:40 PM", {SLASHED}),
    ("time", "2023/11/14 22:15:24", {SLASHED}),
    ("time", "14.11.2023", {SLASHED}),
    ("time", "3000-01-01", {OUTSIDE}),
    ("time", "3000-01-01T00:00:00.5Z", {OUTSIDE}),
    ("time", "0000-01-01", {OUTSIDE}),
    ("time", "0001-01-01", -62_135_596_800 * SECOND),
    ("time", "1704024000", NOON * SECOND),
    ("time", "1704024000.25", NOON * SECOND + 250_000),
    ("time", "1.704024e9", NOON * SECOND),
    ("time", "1e30", {OUTSIDE}),
    ("time", "5", 5 * SECOND),
    ("time", "20231231", DAY * SECOND),
    ("time", "20231231.0", DAY * SECOND),
    ("time", "2023123112", NOON * SECOND),
    ("time", "20231231120001", (NOON + 1) * SECOND),
    ("time", "20231331", 20231331 * SECOND),
    ("time", "2023123125", 2023123125 * SECOND),
    ("time", "20231231126001", {OUTSIDE}),
    ("time", "19891231", 19891231 * SECOND),
    *((kind, word, None) for kind in TYPES for word in MISSING_WORDS),
    *((kind, f" {word.upper()} ", None) for kind in TYPES for word in MISSING_WORDS),
    *((kind, None, None) for kind in TYPES),
]  # fmt: skip


def test_cells_of_text():
    for kind in TYPES:
        pairs = [(cell, expected) for wanted, cell, expected in TEXT if wanted == kind]
        found = convert(pa.array([cell for cell, _ in pairs], pa.string()), type=kind)
        for (cell, expected), value in zip(pairs, found, strict=True):
            assert value == expected, (kind, cell and cell[:50])
        # A missing value is a problem only if the column is required.
        required = convert(pa.array([cell for cell, _ in pairs]), type=kind, required=True)
        assert required == [{"missing"} if value is None else value for value in found]


ARRAYS = [
    ("string", pa.array([1, None, -3]), ["1", None, "-3"]),
    ("string", pa.array([2**64 - 1], pa.uint64()), [str(2**64 - 1)]),
    ("string", pa.array([1.0, 2.5, None, np.nan, -0.0]), ["1", "2.5", None, None, "0"]),
    ("string", pa.array([1e17, np.inf, 5.0, 1e-5]), [{X}, {X}, "5", "0.00001"]),
    ("string", pa.array([12345678.5, 0.1, 1 / 3]), ["12345678.5", "0.1", "0.3333333333333333"]),
    ("string", pa.array([5.1, 117], pa.float32()), ["5.1", "117"]),
    ("string", pa.array([decimal.Decimal("5.50"), decimal.Decimal("10.00")]), ["5.5", "10"]),
    ("string", pa.array([True, None, False]), ["true", None, "false"]),
    ("string", pa.array(["a", "a", "", None]).dictionary_encode(), ["a", "a", None, None]),
    ("string", pa.array([b"ab", "é".encode(), b"\xff", None]), ["ab", "é", {"not UTF-8"}, None]),
    ("string", pa.array([datetime.date(2023, 12, 31)]), ["2023-12-31 00:00:00"]),
    ("int64", pa.array([2**64 - 1, 2**63 - 1], pa.uint64()), [{B}, 2**63 - 1]),
    ("int64", pa.array([3.0, np.nan, None, -0.0]), [3, None, None, 0]),
    ("int64", pa.array([3.5, np.inf, 2.0**60, 2.0**53 - 1]), [{W}, {W}, {X}, 2**53 - 1]),
    ("int64", pa.array([decimal.Decimal("1.5"), decimal.Decimal("2.0")]), [{W}, 2]),
    ("int64", pa.array([decimal.Decimal("9007199254740993.0")]), [2**53 + 1]),
    ("int64", pa.array([None, None], pa.int32()), [None, None]),
    ("int64", pa.array([b"1\n", b"\0", b"\xff"]), [1, {"NUL byte"}, {"not UTF-8"}]),
    ("int64", pa.array([True, False]), [1, 0]),
    ("float32", pa.array([1.5, np.nan, np.inf, 1e39]), [1.5, None, {INF}, {INF}]),
    ("float32", pa.array([2**62, None]), [2.0**62, None]),
    ("float32", pa.array([True, None]), [1.0, None]),
    ("binary", pa.array([0, 1, 2, None]), [0, 1, {L}, None]),
    ("binary", pa.array([0.0, 1.0, 0.5, np.nan]), [0, 1, {L}, None]),
    ("binary", pa.array([True, False, None]), [1, 0, None]),
    ("time", pa.array([NOON + 0.25, np.nan, 1.5]), [NOON * SECOND + 250_000, None, 1_500_000]),
    ("time", pa.array([20231231, 20231231.5]), [DAY * SECOND, 20231231 * SECOND + 500_000]),
    ("time", pa.array([20231231]), [DAY * SECOND]),
    ("time", pa.array([decimal.Decimal("1.5")]), [1_500_000]),
    ("time", pa.array([datetime.date(2023, 12, 31), None]), [DAY * SECOND, None]),
    ("time", pa.array([datetime.datetime(9999, 12, 31)], pa.timestamp("us")), [{OUTSIDE}]),
]


@pytest.mark.parametrize(("kind", "array", "expected"), ARRAYS)
def test_typed_columns(kind, array, expected):
    assert convert(array, type=kind) == expected


@pytest.mark.parametrize("unit", ["ns", "us", "ms", "s"])
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_timestamps(unit, zone):
    noon = datetime.datetime(2023, 12, 31, 12)
    array = pa.array([noon, None], pa.timestamp(unit)).cast(pa.timestamp(unit, zone))
    assert convert(array, type="time", unit="ms") == [NOON * SECOND, None]


@pytest.mark.parametrize(
    ("unit", "number", "expected"),
    [
        ("ms", NOON * 1000 + 7, NOON * SECOND + 7000),
        ("us", NOON * SECOND + 7, NOON * SECOND + 7),
        ("ns", NOON * 10**9 + 1999, NOON * SECOND + 1),
        ("ns", -1, -1),
        ("s", -1, -SECOND),
        ("s", NOON * 1000, {OUTSIDE}),
        ("ms", NOON * SECOND, {OUTSIDE}),
        ("s", 2**63 - 1, {OUTSIDE}),
        ("ms", 20231231, 20231231 * 1000),
    ],
)
def test_units(unit, number, expected):
    assert convert(pa.array([number]), type="time", unit=unit) == [expected]
    assert convert(pa.array([str(number)]), type="time", unit=unit) == [expected]


def test_one_value_has_one_spelling_whatever_the_type():
    for values in (["117", "117.0", " 117 "], ["5.5", "5.50"], ["true", "True", "TRUE"]):
        (first, *others) = convert(pa.array(values), type="string")
        assert set(others) == {first}
    arrays = [
        pa.array(["5.50"]),
        pa.array([5.5]),
        pa.array([5.5], pa.float32()),
        pa.array([decimal.Decimal("5.50")]),
    ]
    assert [convert(array, type="string") for array in arrays] == [["5.5"]] * 4


def test_lists_in_a_cell():
    cells = pa.array(["1|2", "", "|3||", None, "4|x", "5|1.5|y", "NA|6"])
    values = convert(cells, type="int64", separator="|")
    assert values[:4] == [[1, 2], [], [3], []]
    assert [value & {N, W} for value in values[4:6]] == [{N}, {N}]
    assert values[6] == [6]
    values = convert(cells, type="string", separator="|", required=True)
    assert values == [
        ["1", "2"], {"missing"}, ["3"], {"missing"}, ["4", "x"], ["5", "1.5", "y"], ["6"]
    ]  # fmt: skip
    assert convert(pa.array([5, None]), type="string", separator="|") == [["5"], []]
    assert convert(pa.array([b"a\xff,b"]), type="string", separator=",") == [{"not UTF-8"}]
    broken = convert(pa.array(["e\nf,g", "a\0"]), type="string", separator=",")
    assert broken == [{"line break in a value"}, {"NUL byte"}]
    assert convert(pa.array(["a.b"]), type="string", separator=".") == [["a", "b"]]


@pytest.mark.parametrize("separator", [None, "|"])
def test_lists_in_brackets(separator):
    cells = {
        "[1, 2]": ["1", "2"],
        " [1,2.0] ": ["1", "2"],
        "['a', 'b']": ["a", "b"],
        '["a, b", "it\'s"]': ["a, b", "it's"],
        "['a b', nan, None, '']": ["a b"],
        "[]": [],
        "nan": [],
        "[标签]": ["标签"],
    }
    found = convert(pa.array(list(cells)), type="string", many=True, separator=separator)
    assert found == list(cells.values())
    found = convert(pa.array(["[1, 2]", "[1, x]"]), type="int64", many=True, separator=separator)
    assert found == [[1, 2], {N}]
    if separator is None:
        assert convert(pa.array(["1|2"]), type="int64", many=True) == [{"not a list"}]


def test_lists_in_a_list_column():
    lists = [[1, None, 2], [], None, [3]]
    for kind in (pa.list_(pa.int32()), pa.large_list(pa.int64())):
        array = pa.array(lists, kind)
        assert convert(array, type="int64", many=True) == [[1, 2], [], [], [3]]
        assert convert(array, type="string", many=True) == [["1", "2"], [], [], ["3"]]
        # A separator serves text files that are read beside Parquet.
        assert convert(array, type="int64", separator="|") == [[1, 2], [], [], [3]]
        required = convert(array, type="int64", many=True, required=True)
        assert required == [[1, 2], {"missing"}, {"missing"}, [3]]
    fixed = pa.array([[1, 2], None, [3, None]], pa.list_(pa.int64(), 2))
    assert convert(fixed, type="int64", many=True) == [[1, 2], [], [3]]
    assert convert(pa.array([[1.0], [2.0, 2.5]]), type="int64", many=True) == [[1], {W}]
    assert convert(pa.array([["a", "NA", "5.0"]]), type="string", many=True) == [["a", "5"]]


def test_names_of_raw_columns():
    column = WantedColumn("item", "string", source='商品 "id"')
    assert '"商品 ""id"""' in typed(column, "VARCHAR").value
    assert (column.raw, WantedColumn("item", "string").raw) == ('商品 "id"', "item")


@pytest.mark.parametrize(
    ("raw_type", "wanted", "words"),
    [
        ("BIGINT[]", {"type": "int64"}, "holds lists (BIGINT[]), but single values are needed; m"),
        ("BIGINT", {"type": "int64", "many": True}, "is BIGINT, but lists are needed; store lists"),
        ("STRUCT(a BIGINT)", {"type": "string"}, "is STRUCT(a BIGINT), which cannot be read as s"),
        ("BIGINT[][]", {"type": "string", "many": True}, "which cannot be read as string"),
        ("JSON", {"type": "string"}, "is JSON, which cannot be read as string"),
        ("BOOLEAN", {"type": "time"}, "is BOOLEAN, which cannot be read as time"),
        ("TIMESTAMP", {"type": "float32"}, "is TIMESTAMP, which cannot be read as float32"),
    ],
)
def test_a_type_that_cannot_be_converted(raw_type, wanted, words):
    with pytest.raises(UsageError, match=re.escape(words)):
        check_type(WantedColumn("c", **wanted), raw_type, "--events")


def test_mistakes_in_what_is_wanted():
    with pytest.raises(UsageError, match="'user': type is 'text'; choose string, int64, float32"):
        WantedColumn("user", "text")
    with pytest.raises(UsageError, match="'t': time_unit is 'h'; choose s, ms, us, ns"):
        WantedColumn("t", "time", unit="h")
    with pytest.raises(UsageError, match="'c': separator is empty"):
        WantedColumn("c", "string", separator="")


RAW_TYPES = ("VARCHAR", "BIGINT", "DOUBLE", "DECIMAL(9,2)", "BOOLEAN", "TIMESTAMP")


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("raw_type", [*RAW_TYPES, "VARCHAR[]", "BIGINT[]"])
def test_sqlglot_respells_every_expression_for_spark(kind, raw_type):
    column = WantedColumn("c", kind, many=raw_type.endswith("]"))
    other = WantedColumn("c", kind, separator="|")
    for wanted in (column, other):
        try:
            check_type(wanted, raw_type, "--events")
        except UsageError:
            continue
        for expression in vars(typed(wanted, raw_type)).values():
            level = sqlglot.ErrorLevel.RAISE
            (text,) = sqlglot.transpile(
                expression, read="duckdb", write="spark", unsupported_level=level
            )
            functions = set(re.findall(r"\b([A-Z_]+)\(", text))
            assert functions <= SPARK


SPARK = {
    "ARRAY_CONTAINS",
    "ABS", "ARRAY", "ARRAY_MIN", "BETWEEN", "CAST", "CHR", "COALESCE", "CONCAT", "CONTAINS", "DATEDIFF",
    "DECIMAL", "FILTER", "FLOOR", "IN", "ISNAN", "LEFT", "LENGTH", "LOWER", "REGEXP_EXTRACT_ALL",
    "REGEXP_REPLACE", "RIGHT", "ROUND", "SIZE", "SPLIT", "SUBSTRING", "TRANSFORM", "TRIM", "TRY_CAST",
    "AND", "THEN", "WHEN", "NOT", "OR", "ELSE",
}  # fmt: skip
"""Functions of Spark 4 (and words that may stand before a bracket)."""
