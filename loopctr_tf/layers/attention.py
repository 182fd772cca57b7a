"""Multi-head attention whose value and output projections are mixtures of experts."""

from typing import NamedTuple

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers.common import build, flat, linear, reshape_last, stable_dtype
from loopctr_tf.layers.counting import record_product
from loopctr_tf.layers.frozen import made_of_weights
from loopctr_tf.layers.moe import ExpertDense
from loopctr_tf.layers.routing import Router, Routing

MASKED = -1e38
"""The bias of tokens that may not be attended to: weight zero, whatever padding holds."""


class KeysValues(NamedTuple):
    """What tokens show to those that attend to them, head by head.

    Attributes:
      keys: [R, H, T, d / H + 1] or [R, H, N, T, d / H + 1]. The last column is the bias of a token's
        logits; it meets the one that stands last in every query, so that masks and sinks are part of
        the product and no array of the size of the weights is added to them.
      values: [..., T, d / H].
      some: [R], 0 where there is nothing to attend to, else 1; None where that cannot be.
    """

    keys: tf.Tensor
    values: tf.Tensor
    some: tf.Tensor | None = None


def ask(x: tf.Tensor, kernel: tf.Tensor, heads: int, like: tf.Tensor) -> tf.Tensor:
    """Queries x W_Q / sqrt(d / H), each followed by a one.

    Args:
      x: [tokens, d], the tokens of ``like`` one after the other.
      kernel: W_Q [d, d].
      heads: H.
      like: [R, Q, d] or [R, N, Q, d].

    Returns:
      [R, H, Q, d / H + 1] or [R, H, N, Q, d / H + 1].
    """
    width = kernel.shape[1] // heads

    def scaled():
        by_head = tf.reshape(tf.cast(kernel, x.dtype) * width**-0.5, [-1, heads, width])
        by_head = tf.pad(by_head, [[0, 0], [0, 0], [0, 1]])
        return tf.reshape(by_head, [-1, heads * (width + 1)])

    # Scale and ones cost nothing in the weights: product and bias are one kernel.
    ones = tf.constant(([0] * width + [1]) * heads, x.dtype)
    record_product(x.shape, -heads)  # the ones
    rows = tf.nn.bias_add(linear(x, made_of_weights(kernel, "scaled_query", scaled)), ones)
    return split_heads(rows, heads, like)


def split_heads(x: tf.Tensor, heads: int, like: tf.Tensor) -> tf.Tensor:
    """``x`` [tokens, H c] as [R, H, T, c] or [R, H, N, T, c], after ``like`` [R, (N,) T, d]."""
    x = reshape_last(x, like, heads, x.shape[-1] // heads)
    return tf.transpose(x, [0, 2, 1, 3] if like.shape.rank == 3 else [0, 3, 1, 2, 4])


def join_heads(x: tf.Tensor) -> tf.Tensor:
    """The inverse of :func:`split_heads`, [tokens, H c]."""
    width = x.shape[1] * x.shape[-1]
    x = tf.transpose(x, [0, 2, 1, 3] if x.shape.rank == 4 else [0, 2, 3, 1, 4])
    return tf.reshape(x, [-1, width])


def show(
    keys: tf.Tensor, values: tf.Tensor, mask: tf.Tensor | None = None, sink: tf.Tensor | None = None
) -> KeysValues:
    """Keys and values by head [R, H, (N,) T, d / H], with mask [R, T] and a null logit a head [H].

    Mask and sink are for tokens without the axis N. The null logit belongs to a token in front of the
    others that says nothing: its key and its value are zero and its bias is the sink. It takes part in
    the softmax like any other, so that where all is padding (or T is 0) the result is exactly zero.
    """
    one_column = tf.shape(keys[..., :1])
    bias, some = tf.zeros(one_column, keys.dtype), None
    if mask is not None:
        masked = tf.constant(max(MASKED, keys.dtype.min), keys.dtype)
        bias = tf.where(mask[:, None, :, None], bias, masked)
    keys = tf.concat([keys, bias], axis=-1)
    if sink is None:
        if mask is not None:
            some = tf.cast(tf.reduce_any(mask, axis=1), keys.dtype)
        return KeysValues(keys, values, some)
    rows, heads, _, width = tf.unstack(tf.shape(keys))
    sink = tf.tile(tf.cast(sink, keys.dtype)[None, :, None, None], tf.stack([rows, 1, 1, 1]))
    nothing = tf.zeros(tf.stack([rows, heads, 1, width - 1]), keys.dtype)
    null = tf.concat([nothing, sink], axis=-1)
    return KeysValues(tf.concat([null, keys], axis=2), tf.concat([nothing, values], axis=2))


def attend(queries: tf.Tensor, shared: KeysValues, own: KeysValues | None = None) -> tf.Tensor:
    """softmax(Q K^T / sqrt(d / H)) V, softmax at least in float32.

    Args:
      queries: of :func:`ask`, [R, H, Q, d / H + 1], or [R, H, N, Q, d / H + 1] for N candidates.
      shared: tokens [R, H, T, ...], common to all N candidates and never copied.
      own: further tokens [R, H, N, T', ...] of each candidate; one softmax spans both.

    Returns:
      [R, H, Q, d / H] or [R, H, N, Q, d / H]; zero where there is nothing to attend to.
    """
    width = shared.values.shape[-1]
    outer, shape = queries.shape[:-1], tf.shape(queries)
    # Candidates in the queries' axis: all of a request's read the same keys in one product.
    count = tf.reduce_prod(shape[2:-1])
    rows = tf.reshape(queries, tf.stack([shape[0], shape[1], count, width + 1]))
    if own is None:
        read = _attended(rows, shared.keys, shared.values)
        if shared.some is not None:
            read *= shared.some[:, None, None, None]
        return _shaped(read, outer, shape)
    for keys in (shared.keys, own.keys):
        record_product(outer, 2 * width, keys.shape[-2])
    logits = [
        _shaped(tf.matmul(rows, shared.keys, transpose_b=True), outer, shape),
        tf.matmul(queries, own.keys, transpose_b=True),
    ]
    weights = _softmax(tf.concat(logits, axis=-1))
    ours, theirs = tf.split(weights, [tf.shape(logit)[-1] for logit in logits], axis=-1)
    ours = tf.reshape(ours, tf.concat([tf.shape(rows)[:-1], tf.shape(ours)[-1:]], axis=0))
    read = tf.matmul(ours, shared.values)
    return _shaped(read, outer, shape) + tf.matmul(theirs, own.values)


def _shaped(x: tf.Tensor, outer: tf.TensorShape, shape: tf.Tensor) -> tf.Tensor:
    """``x`` with the leading axes ``outer`` of queries of ``shape``, and its own last one."""
    last = tf.shape(x)[-1:]
    shaped = tf.reshape(x, tf.concat([shape[:-1], last], axis=0))
    shaped.set_shape(outer.concatenate(x.shape[-1]))
    return shaped


def _softmax(logits: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.nn.softmax(tf.cast(logits, stable_dtype(logits.dtype))), logits.dtype)


@tf.custom_gradient
def _attended(queries, keys, values):
    """softmax(Q K^T) V, whose backward pass goes over the weights once between its products."""
    record_product(queries.shape[:-1], 2 * values.shape[-1], keys.shape[-2])
    weights = _softmax(tf.matmul(queries, keys, transpose_b=True))
    read = tf.matmul(weights, values)

    def gradient(slope):
        # sum_t w_t dw_t = dO . O, a number a query, instead of a sum over all weights.
        stable = stable_dtype(slope.dtype)
        inner = tf.cast(slope, stable) * tf.cast(read, stable)
        inner = tf.reduce_sum(inner, axis=-1, keepdims=True)
        by_weight = tf.cast(tf.matmul(slope, values, transpose_b=True), stable) - inner
        by_logit = tf.cast(tf.cast(weights, stable) * by_weight, weights.dtype)
        return (
            tf.matmul(by_logit, keys),
            tf.matmul(by_logit, queries, transpose_a=True),
            tf.matmul(weights, slope, transpose_a=True),
        )

    return read, gradient


@keras.utils.register_keras_serializable("loopctr_tf")
class MoEAttention(keras.layers.Layer):
    """softmax(Q K^T / sqrt(d / H)) V, then the output projection (eq. 9 with section 3.4).

    Q = x W_Q and K = x W_K are plain, without bias. V and the output are mixtures of experts behind
    one router, so that a token uses the same experts for both: as a key its gates pick its value
    experts, as a query its output experts. Masks and softmax are float32.

    Args:
      heads: H, a divisor of the width d.
      experts: E.
      active_experts: k.
      sink: one learned null logit a head, zero at first (ours). Nothing to attend to gives zero.
      equal_experts: see :class:`~loopctr_tf.layers.moe.StackedExperts`.

    Input: query [B, Q, d]; context [B, T, d] (the query itself where it is left out); query_mask
    [B, Q] and context_mask [B, T], False at padding.
    Output: (y [B, Q, d], router statistics [2, E] over the real tokens of query and context).
    """

    def __init__(self, heads, experts=4, active_experts=2, sink=True, equal_experts=True, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.experts, self.active_experts = heads, experts, active_experts
        self.use_sink, self.equal_experts = sink, equal_experts
        policy = self.dtype_policy
        self.router = Router(experts, active_experts, name="router", dtype=policy)
        self.value = ExpertDense(experts, equal_experts=equal_experts, name="value", dtype=policy)
        self.out = ExpertDense(experts, equal_experts=equal_experts, name="output", dtype=policy)

    def build(self, input_shape):
        """Creates W_Q, W_K [d, d], the experts, the router and the sink [H]."""
        width = input_shape[-1]
        if width % self.heads:
            raise ValueError(f"heads is {self.heads}; give a divisor of the width {width}")
        self.query_kernel = self.add_weight("query", (width, width), initializer="glorot_uniform")
        self.key_kernel = self.add_weight("key", (width, width), initializer="glorot_uniform")
        for child in (self.router, self.value, self.out):
            build(child, input_shape)
        self.sink = None
        if self.use_sink:
            self.sink = self.add_weight(
                "sink", (self.heads,), initializer="zeros", experimental_autocast=False
            )
        self.built = True

    def route(
        self, x: tf.Tensor, mask: tf.Tensor | None = None, parts: int | None = None
    ) -> Routing:
        """Experts of the tokens ``x`` [tokens, d], for both value and output.

        ``parts``: see :meth:`~loopctr_tf.layers.routing.Router.count`.
        """
        return self.router(x, None if mask is None else tf.reshape(mask, [-1]), parts)

    def keys(self, x: tf.Tensor) -> tf.Tensor:
        """x W_K, [tokens, d]."""
        return linear(x, self.key_kernel)

    def show(self, keys, values, like, mask=None, sink: bool = True) -> KeysValues:
        """What tokens of ``like`` [R, T, d] or [R, N, T, d] show; see :func:`show`.

        Args:
          keys: of :meth:`keys`, [tokens, d].
          values: of :meth:`value`, [tokens, d].
          like: has the axes of the tokens.
          mask: [R, T].
          sink: whether a null token stands in front; only where ``like`` is [R, T, d].
        """
        by_head = (split_heads(x, self.heads, like) for x in (keys, values))
        return show(*by_head, mask, self.sink if sink else None)

    def read(self, x, like, shared: KeysValues, own: KeysValues | None = None) -> tf.Tensor:
        """What the tokens ``x`` [tokens, d] of ``like`` [R, Q, d] or [R, N, Q, d] read, [tokens, d].

        See :func:`attend`. The output projection is still to come.
        """
        return join_heads(attend(ask(x, self.query_kernel, self.heads, like), shared, own))

    def call(self, query, context=None, query_mask=None, context_mask=None):
        """Attention from ``query`` to ``context``; see the class."""
        x = flat(query)
        gates, statistics = self.route(x, query_mask)
        if context is None:
            shown = self.show(self.keys(x), self.value(x, gates), query, query_mask)
        else:
            context = tf.cast(context, query.dtype)  # Keras casts the first argument alone
            y = flat(context)
            context_gates, context_statistics = self.route(y, context_mask)
            values = self.value(y, context_gates)
            shown = self.show(self.keys(y), values, context, context_mask)
            statistics += context_statistics
        y = self.out(self.read(x, query, shown), gates)
        return tf.reshape(y, tf.shape(query)), statistics

    def get_config(self):
        """Constructor arguments."""
        return {
            **super().get_config(),
            "heads": self.heads,
            "experts": self.experts,
            "active_experts": self.active_experts,
            "sink": self.use_sink,
            "equal_experts": self.equal_experts,
        }
