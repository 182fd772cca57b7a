"""Each system of another paper against a slow version, in value and gradient, and its parameters."""

import importlib

import numpy as np
import pytest
import tensorflow as tf

import loopctr_tf as lc
from loopctr_tf.models import MODELS
from loopctr_tf.models.hstu import HSTU
from tests.factories import compact_schema
from tests.models import harness
from tests.models.harness import beside_tables

REFERENCES = {
    name: importlib.import_module(f"tests.reference.{name}").logits
    for name in MODELS
    if name not in ("loopctr", "stackctr")  # their layers have references of their own
}
"""``logits(model, tokens)`` of each module in tests/reference that is named after a model."""


@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_logits_and_gradients_equal_the_slow_version(name):
    model = harness.make(name)
    features, _ = harness.batch()
    # Rows of (0, 9) and (3, 2) events.
    features = {key: tf.gather(value, [1, 3]) for key, value in features.items()}
    weights = [w for w in model.trainable_weights if "embedding" not in w.name]
    found = []
    tokens = model.encoder(features)
    for logits in (
        lambda: tf.cast(model.forward(tokens, False, model.heads).logits[:, 0], tf.float64),
        lambda: REFERENCES[name](model, tokens),
    ):
        with tf.GradientTape() as tape:
            values = logits()
            total = tf.reduce_sum(values * tf.constant([1.0, -2.0], tf.float64))
        found.append((values, tape.gradient(total, weights)))
    (values, gradients), (expected, slopes) = found
    np.testing.assert_allclose(values, expected, atol=1e-5)
    for weight, gradient, slope in zip(weights, gradients, slopes, strict=True):
        slope = tf.zeros_like(weight) if slope is None else tf.convert_to_tensor(slope)
        limit = 2e-5 * max(1.0, float(tf.reduce_max(tf.abs(slope))))
        gradient = tf.convert_to_tensor(gradient)
        np.testing.assert_allclose(gradient, slope, atol=limit, err_msg=weight.name)


def test_parameters_of_dlrm_follow_its_formula():
    model = harness.make("dlrm")
    # Vectors: x, movie, zip and device of width 4, genres 3, both sequences 4 + 3 + 1 and 4 + 1.
    projected = sum(width + 1 for width in (4, 4, 4, 3, 5)) * 8  # the sequence of width 8 is not
    bottom = (2 + 1) * 5 + (5 + 1) * 8
    pairs = 7 * 6 // 2
    tower = (pairs + 8 + 1) * 6 + 6 + 1
    assert beside_tables(model) == projected + bottom + tower


def test_parameters_of_hstu_follow_its_formula():
    model = harness.make("hstu")
    d, most, buckets = 8, 3 + 5 + 9 + 1, 64
    projections = sum(width + 1 for width in (1, 4, 4, 4, 3, 1, 8, 5)) * d
    layer = 5 * d**2 + 5 * d + (most + 1) + (buckets + 1)
    tower = (d + 1) * 5 + 5 + 1
    assert beside_tables(model) == projections + 2 * layer + 2 * d + tower


@pytest.mark.parametrize(
    "fields", [["history_gap"], ["history_gap", "long_movie"], ["history_gap", "long_rating", "x"]]
)
def test_time_fields_name_one_number_of_each_sequence(fields):
    with pytest.raises(
        lc.UsageError, match=r"time_fields are .* exactly one numeric field of each"
    ):
        harness.make("hstu", time_fields=fields)


def test_a_models_settings_are_checked():
    with pytest.raises(lc.UsageError, match="heads is 3; give a divisor of dim"):
        HSTU(compact_schema(), dim=8, heads=3)
    with pytest.raises(lc.UsageError, match="recompute is True, which HSTU does not use"):
        HSTU(compact_schema(), recompute=True)
    with pytest.raises(
        lc.UsageError, match="model setting 'head' does not exist; did you mean 'heads'"
    ):
        HSTU(compact_schema(), head=3)
    with pytest.raises(lc.UsageError, match="loops is 2; HSTU has no loops"):
        harness.make("hstu").heads_to(2)
