"""Three ways to bring tokens to the feed-forward experts that they chose; the same numbers."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

BLOCK = 128
"""Tokens of one block of :func:`batched`, all of one expert."""


class Visits(NamedTuple):
    """Which tokens each expert sees, and where its answers lie.

    Attributes:
      tokens: E tensors of places among all tokens, for each expert those that visit it.
      places: int32 [tokens, k], of a token's answers when those of expert 0, 1, ... lie one after the
        other; of padding the place behind the last.
    """

    tokens: list[tf.Tensor]
    places: tf.Tensor


def visit(experts: tf.Tensor, count: int) -> Visits:
    """Sorts tokens by expert.

    Args:
      experts: int32 [tokens, k], the experts of each token; E for padding, which visits nobody.
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
    """One product for each expert on the tokens that chose it, gathered: of sizes known when it runs.

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
    # Zero, which the graph optimiser cannot know: with a bias it makes product and GELU one kernel.
    nothing = tf.cast(tf.fill([units], tf.shape(rows)[0] < 0), rows.dtype)
    outputs = []
    for tokens, first, second in zip(
        visits.tokens, tf.unstack(inner), tf.unstack(outer), strict=True
    ):
        hidden = activation(tf.nn.bias_add(tf.matmul(tf.gather(rows, tokens), first), nothing))
        outputs.append(tf.matmul(hidden, second))
    return _combined(tf.concat(outputs, axis=0), visits.places, weights)


def batched(rows, experts, weights, inner, outer, activation) -> tf.Tensor:
    """Blocks of :data:`BLOCK` tokens of one expert in one batched product: of sizes known beforehand.

    Each expert's tokens fill blocks, the last of which may stay part empty: T k / BLOCK + E blocks hold
    them however they are spread. Nothing here depends on what was chosen but numbers, so that XLA can
    compile it. Arguments and result: see :func:`grouped`.
    """
    count, width, _ = inner.shape
    active = experts.shape[1]
    chosen = tf.reshape(experts, [-1])
    pairs = tf.size(chosen) if chosen.shape[0] is None else chosen.shape[0]
    blocks = pairs // BLOCK + count
    one_hot = tf.one_hot(chosen, count, dtype=tf.int32)  # of padding all zero
    filled = (tf.reduce_sum(one_hot, axis=0) + BLOCK - 1) // BLOCK  # blocks of each expert
    first = tf.cumsum(filled, exclusive=True) * BLOCK
    rank = tf.cumsum(one_hot, axis=0, exclusive=True)  # among those of the same expert
    slots = tf.reduce_sum((first + rank) * one_hot, axis=1)
    slots = tf.where(chosen < count, slots, blocks * BLOCK)
    # The token of each slot, counted from one; zero stands before the tokens, for slots that stay empty.
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
    hidden = activation(tf.matmul(rows, tf.reshape(tf.transpose(inner, [1, 0, 2]), [width, -1])))
    gates = tf.reduce_sum(
        tf.one_hot(experts, count, dtype=weights.dtype) * weights[..., None], axis=1
    )
    hidden = tf.reshape(hidden, [-1, count, units]) * gates[..., None]
    return tf.matmul(tf.reshape(hidden, [-1, count * units]), tf.reshape(outer, [-1, width]))


def _combined(outputs: tf.Tensor, places: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """The weighted sum of each token's ``outputs``; beyond the last one stands zero."""
    outputs = tf.concat([outputs, tf.zeros([1, outputs.shape[-1]], outputs.dtype)], axis=0)
    return tf.add_n(
        [tf.gather(outputs, places[:, i]) * weights[:, i : i + 1] for i in range(places.shape[1])]
    )


DISPATCH: dict[str, Callable[..., tf.Tensor]] = {
    "grouped": grouped,
    "batched": batched,
    "dense": dense,
}
