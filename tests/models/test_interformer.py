"""What is special to InterFormer."""

import numpy as np
import pytest
import tensorflow as tf

import loopctr_tf as lc
from tests.factories import LONG, compact_schema
from tests.models import harness
from tests.reference import interformer as reference


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_parameters_follow_the_formula(positions):
    model = harness.make("interformer", positions=positions)
    d, m, c, p, recent, n, k = 8, 6, 2, 2, 3, 6, 2
    groups = sum(width + 1 for width in (1, 4, 4, 4, 3, 1, 8, 5)) * d
    merge = 3 * k * d**2 + 3 * k * d + 2 * d
    places = (c + LONG) * d if positions == "learned" else 0
    crosses = 3 * (6 * d**2 + (6 + p) * d + n * c)
    layers = 2 * (9 * d**2 + 9 * d + m * (d**2 + (2 + c) * d + 2))
    tower = ((2 * c + p + recent) * d + 1) * 5 + 5 + 1
    assert harness.beside_tables(model) == groups + merge + places + crosses + layers + tower


def test_learned_positions_equal_the_slow_version():
    model = harness.make("interformer", compact_schema(), positions="learned")
    features, _ = harness.batch(compact_schema())
    tokens = model.encoder({name: value[:2] for name, value in features.items()})
    found = model.forward(tokens, False, model.heads).logits[:, 0]
    np.testing.assert_allclose(found, reference.logits(model, tokens), atol=1e-5)


def test_the_order_of_events_matters():
    schema = compact_schema()
    model = harness.make("interformer", schema, recent_tokens=1)
    features, _ = harness.batch(schema)
    features["history_movie"] = tf.constant([["m1", "m2", "m3", "m4"], ["m2", "m1", "m3", "m4"]])
    features["history_length"] = tf.constant([4, 4])
    features = {
        name: value if name.startswith("history") else tf.repeat(value[:1], 2)
        for name, value in features.items()
    }
    first, second = harness.scores(model, features)[:, 0]
    assert abs(first - second) > 1e-5  # not the most recent event, which the summary holds anyway


def test_padding_has_no_gradient_and_short_histories_finite_ones():
    model = harness.make("interformer", compact_schema(), recent_tokens=7)  # more than all five
    tokens = model.encoder(harness.batch(model.schema)[0])
    events = [sequence.tokens for sequence in tokens.sequences]
    with tf.GradientTape() as tape:
        tape.watch(events)
        total = tf.reduce_sum(model.forward(tokens, True, model.heads).logits)
    for sequence, slope in zip(tokens.sequences, tape.gradient(total, events), strict=True):
        real = sequence.mask.numpy()
        assert np.isfinite(slope).all()
        assert (slope.numpy()[~real] == 0).all()
        assert (np.abs(slope.numpy()[real]).sum(axis=-1) > 0).all()


def test_rows_without_any_event_score_alike_whatever_the_width_of_padding():
    model = harness.make("interformer", compact_schema())
    features, _ = harness.batch(model.schema)
    features["history_length"] = tf.zeros_like(features["history_length"])
    expected = harness.scores(model, features)
    assert np.isfinite(expected).all()
    features["history_movie"] = features["history_movie"][:, :0]
    np.testing.assert_allclose(harness.scores(model, features), expected, atol=1e-6)


def test_what_does_not_fit_is_refused():
    with pytest.raises(lc.UsageError, match="heads is 3; give a divisor of dim"):
        harness.make("interformer", heads=3)
    with pytest.raises(
        lc.UsageError, match=r"heads is 8, so that a head has 1 channels.*'learned'"
    ):
        harness.make("interformer", heads=8)
    harness.make("interformer", heads=8, positions="learned")
