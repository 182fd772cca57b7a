"""The two references on click logs small enough to work out by hand."""

import numpy as np
import pandas as pd
import pytest

import loopctr_tf as lc
from loopctr_tf.errors import UsageError
from loopctr_tf.evaluation.references import reference_metrics
from loopctr_tf.features.prepared import PreparedWriter

ITEM, LOGISTIC = "item_mean_ctr", "user_item_logistic_regression"


def schema(item_side: str) -> lc.Schema:
    return lc.Schema(
        label="click",
        group="user",
        tables=[lc.Table("item", hash_buckets=4)],
        features=[
            lc.Feature("hour", "numeric", side="context"),
            lc.Feature("item", "categorical", side=item_side, table="item"),
        ],
        sequences=[lc.Sequence("past", [lc.Feature("past_item", "categorical", table="item")], 2)],
    )


def frame(rows: list[tuple[str, str, int]]) -> pd.DataFrame:
    """(user, item, click) rows; no history."""
    columns = pd.DataFrame(rows, columns=["user", "item", "click"])
    return columns.assign(hour=0.0, past_item=[[] for _ in rows])


@pytest.fixture
def metrics_of(tmp_path):
    """`reference_metrics` of three splits."""

    def call(train, valid, test, item_side="item", **arguments):
        writer = PreparedWriter(tmp_path, schema(item_side))
        for split, rows in (("train", train), ("valid", valid), ("test", test)):
            writer.write(split, frame(rows))
        writer.finish()
        return reference_metrics(tmp_path, **arguments)

    return call


TRAIN = [("u", "a", 1)] * 3 + [("u", "a", 0)] + [("u", "b", 1)] + [("u", "b", 0)] * 3
"""Item a has 3 clicks of 4, item b 1 of 4; half of all rows are clicks."""


@pytest.mark.parametrize(
    ("valid", "high"),
    [
        # Items that differ favour the weakest prior, one row: (3 + .5) / (4 + 1).
        ([("u", "a", 1), ("u", "b", 0)], 0.7),
        # Items that are alike favour the strongest, thirty rows: (3 + 15) / (4 + 30).
        ([("u", "a", 0), ("u", "a", 1), ("u", "b", 0), ("u", "b", 1)], 18 / 34),
    ],
)
def test_item_mean_ctr_by_hand(metrics_of, valid, high):
    test = [("u", "a", 1), ("u", "b", 0), ("u", "new", 1), ("v", "b", 1)]
    found = metrics_of(TRAIN, valid, test)[ITEM]
    low = 1 - high
    # An item without training rows gets the mean, one half.
    assert found["log_loss"] == pytest.approx(-np.log([high, high, 0.5, low]).mean())
    assert found["calibration"] == pytest.approx((high + low + 0.5 + low) / 3)
    # a and new beat b's row without a click, b's row with one is equal to it.
    assert found["auc"] == pytest.approx(2.5 / 3)
    assert (found["gauc"], found["groups_used"], found["groups_skipped"]) == (1.0, 1, 1)
    assert found["rows"] == 4


def test_the_logistic_regression_separates_users_and_items(metrics_of):
    rng = np.random.default_rng(1)

    def rows(count):
        users, items = rng.integers(6, size=(2, count))
        # Users 0 to 2 click on items 0 to 2 and on no other, users 3 to 5 on all but item 5.
        clicks = np.where(users < 3, items < 3, items < 5)
        return [(f"u{u}", f"i{i}", int(c)) for u, i, c in zip(users, items, clicks, strict=True)]

    found = metrics_of(rows(600), rows(60), rows(200))
    assert found[LOGISTIC]["auc"] > 0.95
    assert found[LOGISTIC]["auc"] > found[ITEM]["auc"] > 0.6
    assert found[LOGISTIC]["ne"] < 0.6


def test_unknown_users_and_items_get_the_intercept(metrics_of):
    valid = [("u", "a", 1), ("u", "b", 0)]
    found = metrics_of(TRAIN, valid, [("x", "y", 1), ("z", "w", 0)])[LOGISTIC]
    assert found["auc"] == 0.5


def test_a_schema_without_an_item_asks_for_its_name(metrics_of):
    with pytest.raises(UsageError) as error:
        metrics_of(TRAIN, TRAIN, TRAIN, item_side="cross")
    assert str(error.value) == (
        "the schema has no categorical item feature that could be the item's id; give item="
    )


def test_the_item_may_be_named(metrics_of):
    found = metrics_of(TRAIN, TRAIN, TRAIN, item_side="cross", item="item")
    assert found[ITEM]["auc"] == 0.75
