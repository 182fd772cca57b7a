"""Rows or candidates scored a chunk at a time, so that memory does not grow with their number."""

from collections.abc import Callable, Sequence

import tensorflow as tf


def in_chunks(
    size: tf.Tensor, chunk: tf.Tensor | int, score: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
) -> tf.Tensor:
    """``score`` of one chunk after the other, joined along the first axis.

    Args:
      size: int32 scalar, how many there are; may be 0.
      chunk: how many at most are scored at a time.
      score: called with (start, end) of a chunk, returns float32 [chunk, ...].

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


WEIGHTS_AT_A_TIME = 2_000_000
"""Attention weights of a chunk of candidates; 8 MB, measured no slower than all at once."""


def rank_in_chunks(
    tokens: Sequence[tf.Tensor],
    weights: tf.Tensor | int,
    score: Callable[[list[tf.Tensor]], tf.Tensor],
) -> tf.Tensor:
    """Scores of candidates in chunks whose attention weights stay below :data:`WEIGHTS_AT_A_TIME`.

    Args:
      tokens: tensors [R, N, ...] to cut along the candidates.
      weights: attention weights for one candidate of one request.
      score: called with a chunk of ``tokens``, returns float32 [R, n].

    Returns:
      [R, N].
    """
    requests, size = tf.unstack(tf.shape(tokens[0])[:2])
    # In int64, as the product of a large batch's sizes is beyond int32.
    each = tf.maximum(tf.cast(requests, tf.int64) * tf.cast(weights, tf.int64), 1)
    chunk = tf.cast(tf.maximum(WEIGHTS_AT_A_TIME // each, 1), tf.int32)

    def transposed(start, end):
        return tf.transpose(score([token[:, start:end] for token in tokens]))

    scores = in_chunks(size, chunk, transposed)  # [N, R]
    scores.set_shape([None, None])
    return tf.transpose(scores)
