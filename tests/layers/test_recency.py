import numpy as np
import pytest
import tensorflow as tf

from loopctr_tf.layers import RecencyEmbedding
from tests.layers import harness
from tests.layers.harness import Case, normal
from tests.reference.basics import unsaid


def test_by_hand():
    layer = RecencyEmbedding(2)
    layer.build([None, None, 1])
    layer.vectors.assign([[10], [20]])
    added = layer(tf.constant([[[1.0], [2.0], [3.0]], [[4.0], [5.0], [0.0]]]), tf.constant([3, 2]))
    # The last of three and the last of two are the most recent; older ones share the last vector.
    np.testing.assert_array_equal(added[0, :, 0], [21, 22, 13])
    np.testing.assert_array_equal(added[1, :2, 0], [24, 15])


LENGTHS = np.array([4, 2, 0], np.int32)


def reference(w, tokens, lengths):
    added = unsaid(tokens.shape)
    for b, length in enumerate(lengths):
        for t in range(length):
            age = length - 1 - t
            added[b, t] = tokens[b, t] + w["vectors"][min(age, len(w["vectors"]) - 1)]
    return added


CASE = Case(lambda **kwargs: RecencyEmbedding(3, **kwargs), (normal(3, 4, 2), LENGTHS), reference)


@pytest.mark.parametrize("check", harness.CHECKS)
def test_layer(check, tmp_path):
    check(CASE, tmp_path)


def test_a_vectors_gradient_counts_every_row_in_bfloat16():
    layer = RecencyEmbedding(2, dtype="mixed_bfloat16")
    tokens = tf.zeros([3000, 1, 1], tf.bfloat16)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(tf.cast(layer(tokens, tf.ones([3000], tf.int32)), tf.float32))
    gradient = tape.gradient(total, layer.vectors)
    np.testing.assert_array_equal(tf.convert_to_tensor(gradient), [[3000.0], [0.0]])


def test_at_first_nothing_is_added():
    tokens, lengths = harness.tensors(CASE.inputs, "float32")
    np.testing.assert_array_equal(RecencyEmbedding(3)(tokens, lengths), tokens)


@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
def test_lengths_of_any_integer_type(dtype):
    tokens, lengths = harness.tensors(CASE.inputs, "float32")
    layer = harness.made(CASE, "float32", jitter=0.4)
    np.testing.assert_array_equal(layer(tokens, tf.cast(lengths, dtype)), layer(tokens, lengths))


def test_every_option_is_kept():
    harness.keeps_options(RecencyEmbedding, max_length=3)
