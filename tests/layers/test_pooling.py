import numpy as np
import pytest
import tensorflow as tf

from loopctr_tf.layers import SequencePooling, masked_mean
from tests.layers import harness
from tests.layers.harness import Case, mask_of, normal

MASK = mask_of([4, 2, 0], 4)


def reference(w, tokens, mask):
    means = np.zeros([len(tokens), tokens.shape[-1]])
    for row, (own, real) in enumerate(zip(tokens, mask, strict=True)):
        if real.any():
            means[row] = own[real].mean(axis=0)
    return means


def test_by_hand():
    tokens = tf.constant([[[1.0], [5.0], [99.0]], [[7.0], [8.0], [9.0]]])
    mask = tf.constant([[True, True, False], [False] * 3])
    np.testing.assert_array_equal(masked_mean(tokens, mask), [[3.0], [0.0]])


@pytest.mark.parametrize("check", [harness.equals_reference, *harness.IN_KERAS])
def test_layer(check, tmp_path):
    check(Case(SequencePooling, (normal(3, 4, 2), MASK), reference), tmp_path)
