import numpy as np
import pytest
import tensorflow as tf

from loopctr_tf.layers import GroupLayerNorm
from tests.layers import harness
from tests.layers.harness import Case, normal


def test_by_hand():
    layer = GroupLayerNorm(2)
    layer.build([None, None, 2])
    layer.gain.assign([[1.0, 2.0], [10.0, 20.0]])
    layer.bias.assign([[0.0, 0.0], [5.0, 6.0]])
    x = tf.constant([[[7.0, 1.0], [0.0, 4.0]]])  # normalised: (1, -1) and (-1, 1)
    np.testing.assert_allclose(
        layer(x, tf.constant([0, 1])), [[[1, -2], [-5, 26]]], rtol=1e-6, atol=1e-5
    )
    np.testing.assert_allclose(layer(x, 1), [[[15, -14], [-5, 26]]], rtol=1e-6, atol=1e-5)


def reference(w, x, group):
    normed = np.zeros_like(x)
    for b, t in np.ndindex(*x.shape[:2]):
        token = x[b, t]
        scaled = (token - token.mean()) / np.sqrt(token.var() + 1e-6)
        normed[b, t] = scaled * w["gain"][group[t]] + w["bias"][group[t]]
    return normed


GROUPS = np.array([2, 0, 2, 1], np.int32)
CASE = Case(lambda **kwargs: GroupLayerNorm(3, **kwargs), (normal(2, 4, 5), GROUPS), reference)


@pytest.mark.parametrize("check", harness.CHECKS)
def test_layer(check, tmp_path):
    check(CASE, tmp_path)


def test_every_option_is_kept():
    harness.keeps_options(GroupLayerNorm, groups=3)
