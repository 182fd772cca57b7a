import numpy as np
import pytest
import tensorflow as tf

from loopctr_tf.layers import InteractingLayer
from loopctr_tf.layers.counting import count_flops
from tests.layers import harness
from tests.layers.harness import Case, normal


def test_by_hand():
    """Width one, two features: logits are the products of the features."""
    layer = InteractingLayer(heads=1)
    layer.build([None, 2, 1])
    layer.kernel.assign([[1, 1, 2, -1]])
    found = layer(tf.constant([[[np.log(2.0)], [0.0]]], tf.float32))
    # The second query is zero: equal weights of the values 2 log 2 and 0, and no residual. The first
    # has weights e^(log^2 2) : 1, less its residual log 2.
    first = np.exp(np.log(2) ** 2)
    expected = [2 * np.log(2) * first / (first + 1) - np.log(2), np.log(2)]
    np.testing.assert_allclose(found[0, :, 0], expected, rtol=1e-5)


def reference(w, x, heads=2):
    width = x.shape[-1] // heads
    query, key, value, residual = np.split(x @ w["kernel"], 4, axis=-1)
    read = np.empty_like(query)
    for h in range(heads):
        part = slice(h * width, (h + 1) * width)
        weights = np.exp(query[..., part] @ np.swapaxes(key[..., part], 1, 2))
        read[..., part] = weights / weights.sum(-1, keepdims=True) @ value[..., part]
    return np.maximum(read + residual, 0)


CASE = Case(lambda **k: InteractingLayer(2, **k), (normal(3, 5, 4),), reference)


@pytest.mark.parametrize("check", harness.CHECKS)
def test_layer(check, tmp_path):
    check(CASE, tmp_path)


def test_the_order_of_features_is_that_of_outputs():
    layer, x = harness.made(CASE, jitter=0.4), tf.constant(normal(3, 5, 4))
    order = [3, 1, 4, 0, 2]
    found = layer(tf.gather(x, order, axis=1))
    np.testing.assert_allclose(found, tf.gather(layer(x), order, axis=1), atol=1e-12)


def test_products_are_counted():
    layer = InteractingLayer(2)
    with count_flops() as counted:
        layer(tf.ones([3, 5, 4]))
    assert sum(counted) == 2 * 3 * (5 * 4 * 16 + 2 * 5 * 5 * 4)


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="heads is 3; give a divisor of the width 4"):
        InteractingLayer(heads=3).build([None, 2, 4])


def test_every_option_is_kept():
    harness.keeps_options(InteractingLayer, heads=4, dropout=0.5)
