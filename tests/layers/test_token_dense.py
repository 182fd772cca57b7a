import numpy as np
import pytest
import tensorflow as tf

from loopctr_tf.layers import TokenDense
from tests.layers import harness
from tests.layers.harness import Case, normal


def test_by_hand():
    layer = TokenDense(1)
    layer.build([None, 2, 2])
    layer.set_weights([np.array([[[1.0], [2.0]], [[3.0], [4.0]]]), np.array([[10.0], [20.0]])])
    # 1 + 2 * 5 + 10, and 3 + 4 * 5 + 20.
    np.testing.assert_array_equal(layer(tf.constant([[[1.0, 5.0]] * 2])), [[[21.0], [43.0]]])


def reference(w, x):
    tokens = [x[:, i] @ w["kernel"][i] for i in range(x.shape[1])]
    return np.stack(tokens, axis=1) + w.get("bias", 0)


CASES = {
    "biased": Case(lambda **k: TokenDense(2, **k), (normal(4, 3, 5),), reference),
    "plain": Case(lambda **k: TokenDense(2, use_bias=False, **k), (normal(4, 3, 5),), reference),
}


# A Keras model with an unknown number of tokens cannot hold weights of each.
CHECKS = [
    harness.survives_config if check is harness.lives_in_a_keras_model else check
    for check in harness.CHECKS
]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("check", CHECKS)
def test_layer(case, check, tmp_path):
    check(case, tmp_path)


def test_tokens_start_differently():
    layer = TokenDense(2)
    layer.build([None, 3, 4])
    assert not np.allclose(layer.kernel[0], layer.kernel[1])


def test_every_option_is_kept():
    harness.keeps_options(TokenDense, units=3, use_bias=False)
