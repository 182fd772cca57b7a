import numpy as np
import tensorflow as tf

from loopctr_tf.layers import masked_mean


def test_by_hand():
    tokens = tf.constant([[[1.0], [5.0], [99.0]], [[7.0], [8.0], [9.0]]])
    mask = tf.constant([[True, True, False], [False] * 3])
    with tf.GradientTape() as tape:
        tape.watch(tokens)
        mean = masked_mean(tokens, mask)
    np.testing.assert_array_equal(mean, [[3.0], [0.0]])
    expected = [[[0.5], [0.5], [0.0]], [[0.0]] * 3]
    np.testing.assert_array_equal(tape.gradient(mean, tokens), expected)


def test_bfloat16_sums_in_float32():
    tokens = tf.ones([1, 1000, 1], tf.bfloat16)
    mean = masked_mean(tokens, tf.fill([1, 1000], True))
    assert mean.dtype == tf.bfloat16
    assert float(mean[0, 0]) == 1.0
