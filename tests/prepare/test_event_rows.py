import numpy as np
import pytest

from loopctr_tf.errors import UsageError
from loopctr_tf.features.records import serialize_rows
from loopctr_tf.prepare.event_rows import RowWriter
from tests.prepare.logs import load_rows, negatives_dict, random_log, schema_dict


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return load_rows(tmp_path_factory.mktemp("rows"), schema_dict())


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    return load_rows(tmp_path_factory.mktemp("sampled"), negatives_dict())


def test_rows_are_in_the_order_of_splits_then_of_time(rows):
    counts = list(rows.counts.values())
    assert sum(counts) == len(rows.events) == sum(e["kind"] != "search" for e in random_log()[0])
    time = rows.store.time[rows.events]
    for part in np.split(time, np.cumsum(counts)[:-1]):
        assert (np.diff(part) >= 0).all()
    # Of one time in the order of the store.
    ties = np.flatnonzero(np.diff(time) == 0)
    assert len(ties)
    assert (np.diff(rows.events)[ties] > 0).all()


def test_without_negatives_an_event_is_one_row(rows):
    assert (rows.per_event, rows.negatives) == (1, None)
    assert not any(rows.sampled(feature) for feature in rows.schema.features)


def test_an_event_is_followed_by_its_negatives(sampled):
    assert sampled.per_event == 5
    items = sampled.items(3, 6).reshape(3, 5)
    np.testing.assert_array_equal(items[:, 0], sampled.store.item[sampled.events[3:6]])
    np.testing.assert_array_equal(items[:, 1:], sampled.negatives[3:6])
    names = [feature.name for feature in sampled.schema.features if sampled.sampled(feature)]
    assert names == ["item_id", "price", "tags"]


@pytest.mark.parametrize("made", ["rows", "sampled"])
def test_counts_are_those_of_the_rows(made, request):
    rows = request.getfixturevalue(made)
    columns, counts = RowWriter(rows, rows.schema).columns(10, 40)
    assert counts["rows"] == 30 * rows.per_event == len(serialize_rows(columns))
    assert counts["clicks"] == rows.store.label[rows.events[10:40]].sum()
    start, end = rows.histories.spans(rows.events[10:40])["views"]
    assert counts["views events"] == (end - start).sum() * rows.per_event
    assert counts["views empty"] == (end == start).sum() * rows.per_event


def test_a_condition_that_no_event_meets_is_refused(tmp_path):
    nothing = {"column": "kind", "values": ["buy"]}
    with pytest.raises(UsageError, match="build: rows: no event meets the condition; check column"):
        load_rows(tmp_path, schema_dict(rows=nothing))
