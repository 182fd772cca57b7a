"""The mean of a sequence's tokens."""

import tensorflow as tf

from loopctr_tf.layers.common import stable_dtype


def masked_mean(tokens: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Mean of the real tokens, zero where there is none.

    Args:
      tokens: [B, T, d].
      mask: [B, T], False at padding.

    Returns:
      [B, d].

    >>> masked_mean(tf.constant([[[1.0], [5.0], [9.0]]]), tf.constant([[True, True, False]])).numpy()
    array([[3.]], dtype=float32)
    """
    real = tf.cast(mask, stable_dtype(tokens.dtype))[..., None]
    total = tf.reduce_sum(tf.cast(tokens, real.dtype) * real, axis=1)
    return tf.cast(total / tf.maximum(tf.reduce_sum(real, axis=1), 1), tokens.dtype)
