import numpy as np
import pytest
import tensorflow as tf
from tensorflow_recommenders.layers.feature_interaction import dcn

from loopctr_tf.layers import CrossLayer
from loopctr_tf.layers.counting import count_flops
from tests.layers import harness
from tests.layers.harness import Case, normal


def test_by_hand():
    layer = CrossLayer()
    layer.build([None, 2])
    for weight, value in zip(layer.weights, ([[1, 0], [2, 1]], [0.5, 0]), strict=True):
        weight.assign(value)
    # W x + b = [1 * 3 + 2 * 4 + 0.5, 4] = [11.5, 4]; times [2, -1], plus [3, 4].
    found = layer(tf.constant([[2.0, -1.0]]), tf.constant([[3.0, 4.0]]))
    np.testing.assert_array_equal(found, [[26, 0]])


def reference(w, start, x):
    inner = x
    for name in ("dense_u", "dense_v") if "dense_u/kernel" in w else ("dense",):
        inner = inner @ w[f"{name}/kernel"]
    return start * (inner + w[f"{name}/bias"]) + x


CASES = {
    "full": Case(lambda **k: CrossLayer(**k), (normal(4, 5), normal(4, 5, seed=1)), reference),
    "low rank": Case(
        lambda **k: CrossLayer(2, **k), (normal(4, 5), normal(4, 5, seed=1)), reference
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("check", harness.CHECKS)
def test_layer(case, check, tmp_path):
    check(case, tmp_path)


OPTIONS = {
    "diag_scale": 0.5,
    "use_bias": False,
    "preactivation": "tanh",
    "kernel_regularizer": "l2",
    "bias_regularizer": "l1",
}


@pytest.mark.parametrize("options", [{}, OPTIONS, {"projection_dim": 2, **OPTIONS}])
def test_every_option_means_what_it_means_in_tensorflow_recommenders(options):
    ours, theirs = CrossLayer(**options), dcn.Cross(**options)
    start, x = tf.constant(normal(3, 4), tf.float32), tf.constant(normal(3, 4, seed=1), tf.float32)
    for layer in (ours, theirs):
        layer(start, x)
    assert ours.get_config() == {**theirs.get_config(), "name": ours.name}
    harness.move_weights(ours)
    theirs.set_weights(ours.get_weights())
    np.testing.assert_allclose(ours(start, x), theirs(start, x), rtol=1e-6)
    np.testing.assert_allclose(ours.losses, theirs.losses, rtol=1e-6)


def test_products_are_counted_and_those_of_mixed_precision_are_bfloat16():
    for rank, expected in ((None, 5 * 5), (2, 5 * 2 + 2 * 5)):
        layer = CrossLayer(rank, dtype="mixed_bfloat16")
        with count_flops() as counted:
            assert layer(tf.ones([3, 5])).dtype == tf.bfloat16
        assert sum(counted) == 2 * 3 * expected
