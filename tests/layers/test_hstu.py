import random

import numpy as np
import pytest
import tensorflow as tf

from loopctr_tf.layers import HSTULayer, Timeline
from tests.layers import harness

SILU_1 = 1 / (1 + np.exp(-1))


def line(lengths, width, ages=None) -> Timeline:
    """Events alone, right-padded."""
    lengths = tf.constant(lengths)
    position = lengths[:, None] - 1 - tf.range(width)
    return Timeline(tf.sequence_mask(lengths, width), position, ages)


def test_by_hand():
    """A width of two and one head: the weight of a pair is SiLU(q.k + rab) / tokens."""
    layer = HSTULayer(heads=1, tokens=2)
    layer.build([None, None, 2])
    values = {
        "uvqk": np.concatenate([np.eye(2)] * 4, axis=1),
        "output": np.eye(2),
        "output_bias": [0, 0],
        "position_bias": [0, 1, 0],
    }
    for weight in layer.weights:
        name = weight.name.rpartition("/")[2].partition(":")[0]
        if name in values:
            weight.assign(values[name])
    encoded, keys, read = layer(tf.constant([[[1.0, -1.0], [1.0, -1.0]]]), line([2], 2))
    # The input norm leaves (1, -1) as it is, to 5e-7; u = v = q = k = SiLU(1, -1).
    projected = np.array([SILU_1, SILU_1 - 1])
    np.testing.assert_allclose(keys[0], [projected] * 2, atol=1e-5)
    np.testing.assert_allclose(read[0], [projected] * 2, atol=1e-5)
    # The older event sees itself, the newer one both: whatever the weights, the sum is along v, and
    # its norm is (1, -1) again; gated by u and added to x.
    np.testing.assert_allclose(encoded[0], [[1 + SILU_1, -1 - (SILU_1 - 1)]] * 2, atol=1e-4)
    bias = layer.bias(line([2], 2), tf.constant([[1, 0, -1]]), None)
    np.testing.assert_array_equal(bias[0], [[0, 0], [1, 0], [0, 1]])


def test_times_fall_into_logarithmic_buckets():
    layer = HSTULayer(heads=1, tokens=4, time_buckets=3)
    layer.build([None, None, 2])
    layer.time_bias.assign([100.0, 1.0, 2.0, 3.0])
    events = line([3], 3, tf.constant([[-1.0, 7.0, 1.0]]))
    bias = layer.bias(events, tf.constant([[-1]]), tf.constant([[0.0]]))
    # No time; log2(1 + 7) = 3, cut to the last bucket; log2(1 + 1) = 1.
    np.testing.assert_array_equal(bias[0], [[100.0, 3.0, 2.0]])


def layer_of(dtype="float32", **options):
    random.seed(1)  # of the initialisers
    layer = HSTULayer(heads=2, tokens=9, dtype=dtype, **options)
    layer.build([None, None, 4])
    harness.move_weights(layer)
    return layer


def test_padding_and_later_events_never_move_an_event():
    layer, x = layer_of(), tf.constant(harness.normal(2, 3, 4), tf.float32)
    short, _, _ = layer(x, line([3, 2], 3))
    longer = tf.concat([x, 100 * tf.ones([2, 2, 4])], axis=1)
    found, _, _ = layer(longer, line([3, 2], 5))
    np.testing.assert_allclose(found[0, :3], short[0], atol=1e-6)
    np.testing.assert_allclose(found[1, :2], short[1, :2], atol=1e-6)
    # One event more: the others are older than it by one, as they are to each other as before.
    more, _, _ = layer(longer, line([4, 3], 5))
    np.testing.assert_allclose(more[0, :3], short[0], atol=1e-6)


@pytest.mark.parametrize("buckets", [0, 5])
def test_a_candidate_is_the_next_event_of_the_line(buckets):
    layer, x = layer_of(time_buckets=buckets), tf.constant(harness.normal(2, 4, 4), tf.float32)
    ages = tf.constant([[9.0, 4.0, 1.0, 0.0]] * 2) if buckets else None
    whole, _, _ = layer(x, line([4, 4], 4, ages))
    user = line([3, 3], 3, ages[:, :3] if buckets else None)
    _, keys, values = layer(x[:, :3], user)
    found = layer.rank(tf.stack([x[:, 3], x[:, 0]], axis=1), keys, values, user)
    np.testing.assert_allclose(found[:, 0], whole[:, 3], atol=1e-5)


def test_tokens_of_one_order_see_one_another_at_distances_without_sign():
    layer, x = layer_of(), tf.constant(harness.normal(1, 4, 4), tf.float32)
    whole = line([4], 4)._replace(order=tf.zeros([1, 4], tf.int32))
    forth, _, _ = layer(x, whole)
    back, _, _ = layer(x[:, ::-1], whole)
    np.testing.assert_allclose(forth, back[:, ::-1], atol=1e-6)
    causal, _, _ = layer(x, line([4], 4))
    np.testing.assert_allclose(forth[:, 3], causal[:, 3], atol=1e-6)
    assert np.abs(forth - causal)[:, :3].max(axis=(0, 2)).min() > 1e-3


def test_norms_of_groups_that_are_equal_are_one_norm():
    plain, grouped = layer_of(), layer_of(groups=2)
    x, events = tf.constant(harness.normal(2, 3, 4), tf.float32), line([3, 3], 3)
    for weight in grouped.weights:
        name = weight.name.replace("gain", "gamma").replace("norm/bias", "norm/beta")
        (same,) = [w for w in plain.weights if w.name == name]
        weight.assign(tf.broadcast_to(same, weight.shape))
    expected, keys, values = plain(x, events)
    found, _, _ = grouped(x, events._replace(group=tf.constant([0, 1, 0])))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    expected = plain.rank(x, keys, values, events)
    np.testing.assert_allclose(grouped.rank(x, keys, values, events), expected, atol=1e-5)
    # A candidate is of the last group.
    grouped.input_norm.bias.assign_add([[1.0] * 4, [0.0] * 4])
    np.testing.assert_allclose(grouped.rank(x, keys, values, events), expected, atol=1e-5)


def test_a_layer_with_groups_needs_those_of_the_tokens():
    with pytest.raises(ValueError, match="groups is 2; give a line with the group of each token"):
        layer_of(groups=2)(tf.ones([1, 3, 4]), line([3], 3))


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="heads is 3; give a divisor of the width 4"):
        HSTULayer(heads=3, tokens=2).build([None, None, 4])


def test_every_option_is_kept():
    harness.keeps_options(HSTULayer, heads=2, tokens=3, time_buckets=4, dropout=0.5, groups=3)
