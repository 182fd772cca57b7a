"""Three ways to send tokens to their feed-forward experts; all give the same numbers."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from loopctr_tf.layers.common import linear

BLOCK = 128
"""Tokens of one block of :func:`batched`, all of one expert."""


class Visits(NamedTuple):
    """Which tokens each expert receives, and where its outputs are.

    Attributes:
      tokens: for each of E experts, a tensor of the indices of its tokens.
      places: int32 [tokens, k], row numbers of a token's outputs when those of expert 0, 1, ... are
        concatenated; for padding, the row after the last.
    """

    tokens: list[tf.Tensor]
    places: tf.Tensor


def visit(experts: tf.Tensor, count: int) -> Visits:
    """Sorts tokens by expert.

    Args:
      experts: int32 [tokens, k], the experts of each token; E for padding, which goes to none.
      count: E.
    """
    active = experts.shape[-1]
    pairs = tf.range(tf.size(experts))
    *by_expert, nobody = tf.dynamic_partition(pairs, tf.reshape(experts, [-1]), count + 1)
    order = tf.concat(by_expert, axis=0)
    last = tf.size(order)
    places = tf.dynamic_stitch([order, nobody], [tf.range(last), tf.fill(tf.shape(nobody), last)])
    return Visits([pairs // active for pairs in by_expert], tf.reshape(places, [-1, active]))


def grouped(rows, experts, weights, inner, outer, activation) -> tf.Tensor:
    """One product for each expert on its gathered tokens; their number is known only at run time.

    Args:
      rows: tokens [tokens, d].
      experts: int32 [tokens, k]; E for padding.
      weights: gates [tokens, k].
      inner, outer: U [E, d, d_ff] and V [E, d_ff, d].
      activation: of the experts.

    Returns:
      sum_e g_e act(x U_e) V_e, [tokens, d]; zero at padding.
    """
    count, _, units = inner.shape
    visits = visit(experts, count)
    # Always zero, unknown to the graph optimiser, which fuses product, bias and GELU into one kernel.
    nothing = tf.cast(tf.fill([units], tf.shape(rows)[0] < 0), rows.dtype)
    outputs = []
    for tokens, first, second in zip(
        visits.tokens, tf.unstack(inner), tf.unstack(outer), strict=True
    ):
        hidden = activation(tf.nn.bias_add(linear(tf.gather(rows, tokens), first), nothing))
        outputs.append(linear(hidden, second))
    return _combined(tf.concat(outputs, axis=0), visits.places, weights)


def batched(rows, experts, weights, inner, outer, activation) -> tf.Tensor:
    """Blocks of :data:`BLOCK` tokens of one expert in one batched product, of a fixed size.

    Each expert's tokens fill blocks, the last perhaps only in part: T k / BLOCK + E blocks are enough
    for any routing. No shape depends on the routing, so that XLA can compile it. Arguments and result:
    see :func:`grouped`.
    """
    count, width, _ = inner.shape
    active = experts.shape[1]
    chosen = tf.reshape(experts, [-1])
    pairs = tf.size(chosen) if chosen.shape[0] is None else chosen.shape[0]
    blocks = pairs // BLOCK + count
    one_hot = tf.one_hot(chosen, count, dtype=tf.int32)  # all zero for padding
    filled = (tf.reduce_sum(one_hot, axis=0) + BLOCK - 1) // BLOCK  # blocks of each expert
    first = tf.cumsum(filled, exclusive=True) * BLOCK
    rank = tf.cumsum(one_hot, axis=0, exclusive=True)  # among those of the same expert
    slots = tf.reduce_sum((first + rank) * one_hot, axis=1)
    slots = tf.where(chosen < count, slots, blocks * BLOCK)
    # The token of each slot, counted from one; row zero is all zeros, for empty slots.
    tokens = tf.range(pairs) // active + 1
    tokens = tf.scatter_nd(slots[:, None], tokens, [blocks * BLOCK + 1])[:-1]
    rows = tf.concat([tf.zeros([1, width], rows.dtype), rows], axis=0)
    expert = tf.reduce_sum(
        tf.cast(tf.range(blocks)[:, None] >= tf.cumsum(filled), tf.int32), axis=1
    )
    expert = tf.minimum(expert, count - 1)
    x = tf.reshape(tf.gather(rows, tokens), [-1, BLOCK, width])
    outputs = tf.matmul(
        activation(tf.matmul(x, tf.gather(inner, expert))), tf.gather(outer, expert)
    )
    return _combined(tf.reshape(outputs, [-1, width]), tf.reshape(slots, [-1, active]), weights)


def dense(rows, experts, weights, inner, outer, activation) -> tf.Tensor:
    """All experts on all tokens, in two products. Arguments and result: see :func:`grouped`."""
    count, width, units = inner.shape
    hidden = activation(linear(rows, tf.reshape(tf.transpose(inner, [1, 0, 2]), [width, -1])))
    gates = tf.reduce_sum(
        tf.one_hot(experts, count, dtype=weights.dtype) * weights[..., None], axis=1
    )
    hidden = tf.reshape(hidden, [-1, count, units]) * gates[..., None]
    return linear(tf.reshape(hidden, [-1, count * units]), tf.reshape(outer, [-1, width]))


def _combined(outputs: tf.Tensor, places: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """The weighted sum of each token's ``outputs``; a row of zeros follows the last."""
    outputs = tf.concat([outputs, tf.zeros([1, outputs.shape[-1]], outputs.dtype)], axis=0)
    return tf.add_n(
        [tf.gather(outputs, places[:, i]) * weights[:, i : i + 1] for i in range(places.shape[1])]
    )


DISPATCH: dict[str, Callable[..., tf.Tensor]] = {
    "grouped": grouped,
    "batched": batched,
    "dense": dense,
}
