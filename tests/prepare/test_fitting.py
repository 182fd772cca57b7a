import copy

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from loopctr_tf.features.schema import Schema
from loopctr_tf.models.encoder import standardize
from loopctr_tf.prepare.fitting import Counts, Fit, Moments
from loopctr_tf.prepare.rules import TableRule
from tests.prepare.logs import SCHEMA


def draft(**change) -> Schema:
    """SCHEMA with other attributes of some features."""
    values = copy.deepcopy(SCHEMA)
    for feature in values["features"]:
        feature.update(change.get(feature["name"], {}))
    return Schema.from_dict(values)


def fit(schema=None, tables=("item", "tag", "kind", "device", "rating"), fixed=()) -> Fit:
    return Fit(schema or draft(), {name: TableRule() for name in tables}, fixed)


def feature(schema: Schema, name: str):
    return next(f for f in schema.all_fields() if f.name == name)


# Moments.


def test_moments_are_those_of_all_numbers_together():
    rng = np.random.default_rng(0)
    parts = [rng.normal(1e6, 3.0, size) for size in (1, 50, 0, 7)]
    moments = Moments()
    for part in parts:
        moments.add(part)
    whole = np.concatenate(parts)
    assert moments.count == 58
    assert moments.mean == pytest.approx(whole.mean(), rel=1e-12)
    assert moments.scale() == pytest.approx(whole.std(), rel=1e-9)


def test_weights_are_repetitions_and_nan_is_nothing():
    moments, repeated = Moments(), Moments()
    moments.add(np.array([1.0, np.nan, 4.0, 9.0]), np.array([2, 5, 0, 3]))
    repeated.add(np.array([1.0, 1.0, 9.0, 9.0, 9.0]))
    assert (moments.count, moments.mean) == (repeated.count, repeated.mean) == (5, 5.8)
    assert moments.scale() == pytest.approx(repeated.scale())


def test_moments_merge():
    one, two = Moments(), Moments()
    one.add(np.array([1.0, 2.0]))
    two.add(np.array([6.0]))
    one.merge(two)
    one.merge(Moments())
    assert (one.count, one.mean, one.squares) == (3, 3.0, 14.0)


@pytest.mark.parametrize("values", [[], [np.nan], [0.0, 0.0], [0.1] * 7, [1e9 + 1e-3] * 3])
def test_a_constant_keeps_its_scale(values):
    moments = Moments()
    moments.add(np.array(values, np.float32), np.full(len(values), 3))
    moments.add(np.array(values, np.float32))
    assert moments.scale() == 1.0


# Counts.


def counted(*parts) -> Counts:
    counts = Counts()
    for values, numbers in parts:
        counts.add(pa.array(values, pa.large_string()), np.array(numbers))
    return counts


def test_the_commonest_come_first_and_equals_in_their_own_order():
    counts = counted(
        (["b", "a", "c", ""], [2, 1, 3, 9]), (["a", "d"], [1, 0]), (["b", "ü"], [1, 2])
    )
    assert counts.vocabulary(TableRule(), "string") == ("b", "c", "a", "ü")
    assert counts.vocabulary(TableRule(min_count=3), "string") == ("b", "c")
    assert counts.vocabulary(TableRule(max_size=3), "string") == ("b", "c", "a")


def test_whole_numbers_are_counted_as_numbers():
    counts = Counts()
    counts.add_values(np.array([10, 9, -1, 10, -1, -1, -5, -5, 9]))
    assert counts.vocabulary(TableRule(), "int64") == (-5, 9, 10)


def test_text_is_counted_each_time():
    counts = Counts()
    counts.add_values(np.array(["x", "", "y", "x"], object))
    assert counts.vocabulary(TableRule(), "string") == ("x", "y")
    assert Counts().vocabulary(TableRule(), "string") == ()


def test_counts_merge_and_are_summed_up_on_the_way(monkeypatch):
    monkeypatch.setattr("loopctr_tf.prepare.fitting._CONSOLIDATE", 3)
    counts = counted((["a", "b"], [1, 2]), (["b", "c"], [2, 1]), (["c", "d"], [5, 1]))
    counts.merge(counted((["a"], [9]), (["e"], [1])))
    assert counts.vocabulary(TableRule(), "string") == ("a", "c", "b", "d", "e")


# The whole schema.


def test_only_what_is_to_be_fitted_is_fitted():
    found = fit(draft(age={"mean": 7.0, "std": 2.0, "default": 5.0}), fixed=("age",))
    for name in ("price", "age", "affinity"):
        found.measure(feature(found.draft, name), np.array([3.0, 8.0]))
    found.counts["item"].add_values(np.array(["i1"], object))
    schema = found.schema()
    assert schema.table("item").vocabulary == ("i1",)
    assert schema.table("tag").vocabulary == ()
    assert schema.table("city").hash_buckets == 7
    age, price = feature(schema, "age"), feature(schema, "price")
    assert (age.mean, age.std, age.default) == (7.0, 2.0, 5.0)
    # log1p: 4 and 9 have the geometric mean 6, and 5 stands for what is missing.
    assert price.mean == pytest.approx(np.log(6))
    assert price.std == pytest.approx(np.log(9 / 4) / 2)
    assert price.default == pytest.approx(5.0)
    affinity = feature(schema, "affinity")
    assert (affinity.mean, affinity.std, affinity.default) == (5.5, 2.5, 5.5)
    never = feature(schema, "views_label")
    assert (never.mean, never.std, never.default) == (0.0, 1.0, 0.0)


def test_negative_numbers_are_fitted_as_the_model_standardises_them():
    found, values = fit(), np.array([-9.0, -0.9, -0.5, 0.5, 2.0, np.nan])
    found.measure(feature(found.draft, "price"), values)
    # What no row holds is no matter.
    found.measure(feature(found.draft, "price"), np.array([1e6]), np.array([0]))
    price = feature(found.schema(), "price")
    seen = standardize(price, tf.constant(values[:5], tf.float32)).numpy()
    assert (seen.mean(), seen.std()) == pytest.approx((0, 1), abs=1e-6)
    missing = tf.constant([price.default], tf.float32)
    assert price.default < 0
    assert standardize(price, missing).numpy() == pytest.approx(0, abs=1e-6)


def test_fits_merge():
    one, two = fit(), fit()
    for part, age, item in ((one, 10.0, "a"), (two, 30.0, "b"), (two, 50.0, "b")):
        part.measure(feature(part.draft, "age"), np.array([age]))
        part.counts["item"].add_values(np.array([item], object))
    one.merge(two)
    one.merge(one.empty())
    assert feature(one.schema(), "age").mean == 30.0
    assert one.schema().table("item").vocabulary == ("b", "a")
