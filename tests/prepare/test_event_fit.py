"""What counts as training data, by hand; random logs are compared with plain loops in test_prepare."""

import pytest

from loopctr_tf.prepare.event_fit import fit_events
from tests.prepare.logs import START, load_rows, negatives_dict, schema_dict
from tests.prepare.test_store import EVENT

HOUR = 3600


def log(*events):
    """Events of one user, an hour apart, that are EVENT but for what is given."""
    items = {f"i{n}": {"price": float(n), "tags": [f"t{n}"]} for n in range(6)}
    users = {"b": {"age": 30.0, "city": "Rome"}}
    events = [{**EVENT, "time": START + HOUR * n, **event} for n, event in enumerate(events)]
    return events, items, users


def fitted(folder, events, schema):
    return fit_events(load_rows(folder, schema, events))


def number(schema, name):
    return next(feature for feature in schema.all_fields() if feature.name == name)


def searches(*items):
    """Events that become no rows but stand in histories."""
    return [{"item_id": item, "kind": "search"} for item in items]


def test_an_event_counts_once_whether_it_is_a_row_or_history_or_both(tmp_path):
    """i1 is a row and, twice, history; i2 is history of two rows; i3 a row alone; i4 is tested."""
    events = log(
        *searches("i2"), {"item_id": "i1"}, {"item_id": "i3"}, {"item_id": "i4"}, {"item_id": "i5"}
    )
    split = {"by": "last", "valid": 1, "test": 1}
    for least, known in ((1, ("i1", "i2", "i3")), (2, ())):
        schema = schema_dict(split=split, tables={"item": {"min_count": least}})
        assert fitted(tmp_path, events, schema).table("item").vocabulary == known


def test_numbers_of_histories_weigh_as_often_as_they_are_written(tmp_path):
    """Of three training rows i0 is history of all, i1 of two, i2 of one; the third is i3."""
    events = log(*searches("i0"), *({"item_id": f"i{n}"} for n in (1, 2, 3)))
    schema = fitted(tmp_path, events, schema_dict(split={"by": "last", "valid": 0, "test": 0}))
    price = number(schema, "clicks_price")
    assert price.mean == pytest.approx((0 * 3 + 1 * 2 + 2) / 6)
    assert price.std == pytest.approx(((0.75 * 0 + 3 * 4 / 9 + 2 * 1 / 9 + 16 / 9) / 6) ** 0.5)


def test_a_number_may_be_kept(tmp_path):
    schema = schema_dict(
        split={"by": "last", "valid": 0, "test": 0}, numeric={"age": {"fixed": True}}
    )
    schema["features"][3].update(mean=1.0, std=2.0, default=3.0)
    age = number(fitted(tmp_path, log({}), schema), "age")
    assert (age.mean, age.std, age.default) == (1.0, 2.0, 3.0)


def test_an_item_that_is_only_ever_a_negative_is_not_known(tmp_path):
    """User b has i1 and i2, user c i3: i3 is b's negative, and it is c's own training row."""
    events, items, users = log({"item_id": "i1"}, {"item_id": "i2"})
    events += [
        {**EVENT, "user_id": "c", "item_id": item, "time": START + HOUR * n}
        for n, item in enumerate(("i3", "i4"))
    ]
    schema = negatives_dict(
        split={"by": "last", "valid": 0, "test": 1},
        tables={},
        negatives={"per_positive": 3, "by": "uniform"},
    )
    rows = load_rows(tmp_path, schema, (events, items, users))
    assert rows.items(0, 2).shape == (8,)
    assert fit_events(rows).table("item").vocabulary == ("i1", "i3")
