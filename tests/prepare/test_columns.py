from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.columns import Column, ColumnBuilder, flat_spans
from loopctr_tf.prepare.wanted import WantedColumn


def built(kind: str, *batches, many: bool = False) -> Column:
    """The column of batches of plain values."""
    builder = ColumnBuilder(WantedColumn("x", kind, many=many))
    arrow = {
        "string": pa.string(),
        "int64": pa.int64(),
        "float32": pa.float32(),
        "time": pa.int64(),
    }
    for values in batches:
        builder.add(pa.array(values, pa.list_(arrow[kind]) if many else arrow[kind]))
    return builder.finish()


def plain(column: Column) -> list:
    """A value or a list an entry."""
    flat = column.flat.tolist()
    if column.codes is not None:
        known = column.values.to_pylist()
        flat = [known[code] for code in flat]
    if column.splits is None:
        return flat
    edges = column.splits.tolist()
    return [flat[a:b] for a, b in pairwise(edges)]


def test_spans_are_laid_one_behind_the_other():
    positions, splits = flat_spans(np.array([5, 0, 7], np.int32), np.array([8, 0, 8], np.int32))
    assert positions.tolist() == [5, 6, 7, 7]
    assert splits.tolist() == [0, 3, 3, 4]


def test_text_is_coded_over_all_batches():
    column = built("string", ["b", "a", None, "b"], ["c", "a"], ["", "ü"])
    assert plain(column) == ["b", "a", "", "b", "c", "a", "", "ü"]
    assert column.codes.dtype == np.int32
    assert sorted(column.values.to_pylist()) == ["", "a", "b", "c", "ü"]
    assert len(column) == 8


def test_whole_numbers_are_coded_and_numbers_kept():
    assert plain(built("int64", [3, None], [2**62, 3])) == [3, -1, 2**62, 3]
    column = built("float32", [0.5, None], [2.0])
    assert column.codes is None
    assert column.values.dtype == np.float32
    np.testing.assert_array_equal(column.values, [0.5, np.nan, 2.0])
    assert plain(built("time", [1_700_000_000_000_000], [5])) == [1_700_000_000_000_000, 5]


def test_lists():
    column = built("string", [["b", "a"], []], [["b"]], many=True)
    assert plain(column) == [["b", "a"], [], ["b"]]
    assert (len(column), column.longest()) == (3, 2)
    flat, splits = column.take(np.array([2, 0, 1]))
    assert [column.values[code].as_py() for code in flat] == ["b", "b", "a"]
    assert splits.tolist() == [0, 1, 3, 3]
    assert plain(column.reordered(np.array([2, 0]))) == [["b"], ["b", "a"]]
    assert plain(column.with_missing()) == [["b", "a"], [], ["b"], []]


def test_a_missing_entry_is_added():
    assert plain(built("string", ["a", "b"]).with_missing()) == ["a", "b", ""]
    assert plain(built("string", [None, "b"]).with_missing()) == ["", "b", ""]
    assert plain(built("int64", [4]).with_missing()) == [4, -1]
    assert np.isnan(built("float32", [4.0]).with_missing().values[1])


def test_text_can_be_seen_as_numbers_and_numbers_as_text():
    text = built("string", ["4", "10", None, "4"])
    assert plain(text.as_type("string", "x")) == ["4", "10", "", "4"]
    assert plain(text.as_type("int64", "x")) == [4, 10, -1, 4]
    np.testing.assert_array_equal(text.as_type("float32", "x").values, [4, 10, np.nan, 4])
    assert plain(built("int64", [4, -7]).as_type("string", "x")) == ["4", "-7"]
    lists = built("string", [["4"], ["10", "4"]], many=True)
    assert plain(lists.as_type("int64", "x")) == [[4], [10, 4]]


@pytest.mark.parametrize("kind", ["int64", "float32"])
def test_text_that_is_no_number_is_refused(kind):
    with pytest.raises(UsageError, match="column 'x' is needed both as text and as"):
        built("string", ["4", "four"]).as_type(kind, "x")
