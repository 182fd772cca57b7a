"""Rows or candidates scored a chunk at a time, so that memory does not grow with their number."""

from collections.abc import Callable

import tensorflow as tf


def in_chunks(
    size: tf.Tensor, chunk: tf.Tensor | int, score: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
) -> tf.Tensor:
    """``score`` of one chunk after the other, joined along the first axis.

    Args:
      size: int32 scalar, how many there are; may be 0.
      chunk: how many at most are scored at a time.
      score: given the places of the first of a chunk and of the first behind it, float32 [chunk, ...].

    Returns:
      [size, ...].
    """
    count = tf.maximum((size + chunk - 1) // chunk, 1)

    def body(index, scores):
        return index + 1, scores.write(index, score(index * chunk, (index + 1) * chunk))

    scores = tf.TensorArray(tf.float32, count, infer_shape=False)
    _, scores = tf.while_loop(
        lambda index, _: index < count, body, (0, scores), parallel_iterations=1
    )
    return scores.concat()
