import numpy as np
import pytest
import tensorflow as tf

from loopctr_tf.layers import MLP
from tests.layers import harness
from tests.layers.harness import Case, normal


def test_by_hand():
    layer = MLP([2, 1])
    layer.build([None, 1])
    for weight, value in zip(layer.weights, ([[1, -1]], [0.5, 0], [[2], [10]], [3]), strict=True):
        weight.assign(value)
    # relu([2 + 0.5, -2]) = [2.5, 0]; 2 * 2.5 + 0 + 3; the last layer has no activation.
    np.testing.assert_array_equal(layer(tf.constant([[2.0], [-3.0]])), [[8], [33]])


def reference(w, x, last=False):
    for i in range(2):
        x = x @ w[f"dense_{i}/kernel"] + w[f"dense_{i}/bias"]
        x = np.tanh(x) if i == 0 or last else x
    return x


CASES = {
    "plain": Case(lambda **k: MLP([3, 2], "tanh", **k), (normal(2, 4, 5),), reference),
    "activated": Case(
        lambda **k: MLP([3, 2], "tanh", activate_last=True, **k),
        (normal(4, 5),),
        lambda w, x: reference(w, x, last=True),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("check", harness.CHECKS)
def test_layer(case, check, tmp_path):
    check(case, tmp_path)


def test_every_option_is_kept():
    harness.keeps_options(MLP, units=[3], activation="tanh", activate_last=True, dropout=0.5)
