"""Multi-head attention whose value and output projections are mixtures of experts."""

from typing import NamedTuple

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers.common import build, flat, linear, reshape_last, stable_dtype
from loopctr_tf.layers.moe import ExpertDense
from loopctr_tf.layers.routing import Router, Routing

MASKED = -1e38
"""Added to the logits of tokens that may not be attended to: weight zero, whatever padding holds."""


class KeysValues(NamedTuple):
    """What tokens show to those that attend to them.

    Attributes:
      keys, values: [..., T, H, d / H].
      bias: added to logits, at least float32, broadcasts to [..., H, Q, T]; None is zero.
      some: [..., 1, 1], 0 where there is nothing to attend to; None where that cannot be.
    """

    keys: tf.Tensor
    values: tf.Tensor
    bias: tf.Tensor | None = None
    some: tf.Tensor | None = None


def show(
    keys: tf.Tensor, values: tf.Tensor, mask: tf.Tensor | None = None, sink: tf.Tensor | None = None
) -> KeysValues:
    """Keys and values [B, T, H, d / H] with their mask [B, T] and an optional null logit a head [H].

    The null logit belongs to a token in front of the others that says nothing: its key and its value are
    zero and its logit is the sink. It takes part in the softmax like any other, so that where all is
    padding (or T is 0) the result is exactly zero.
    """
    bias = some = None
    if mask is not None:
        # [B, 1, 1, T]
        bias = tf.where(mask, 0.0, tf.constant(MASKED, stable_dtype(keys.dtype)))[:, None, None, :]
    if sink is None:
        if mask is not None:
            some = tf.cast(tf.reduce_any(mask, axis=1), keys.dtype)[:, None, None]
        return KeysValues(keys, values, bias, some)
    batch, tokens, heads = tf.unstack(tf.shape(keys)[:3])
    null = (
        tf.zeros_like(keys[:, :1])
        if keys.shape[1]
        else tf.zeros(tf.stack([batch, 1, heads, keys.shape[-1]]), keys.dtype)
    )
    sink = tf.cast(sink, stable_dtype(keys.dtype))[None, :, None, None]
    if bias is None:
        bias = tf.zeros(tf.stack([1, 1, 1, tokens]), sink.dtype)
    rows = tf.shape(bias)[0]
    bias = tf.concat(
        [tf.tile(sink, tf.stack([rows, 1, 1, 1])), tf.tile(bias, tf.stack([1, heads, 1, 1]))],
        axis=-1,
    )
    return KeysValues(
        tf.concat([null, keys], axis=1), tf.concat([null, values], axis=1), bias, None
    )


def attend(queries: tf.Tensor, shared: KeysValues, own: KeysValues | None = None) -> tf.Tensor:
    """softmax(Q K^T / sqrt(d / H)) V, softmax at least in float32.

    Args:
      queries: [R, Q, H, d / H], or [R, N, Q, H, d / H] for N candidates of a request.
      shared: tokens [R, T, H, d / H], common to all N candidates and never copied.
      own: further tokens [R, N, T', H, d / H] of each candidate; one softmax spans both.

    Returns:
      The shape of ``queries``; zero where there is nothing to attend to.
    """
    n = "n" if queries.shape.rank == 5 else ""
    queries *= queries.shape[-1] ** -0.5
    parts = [(shared, f"r{n}qhd,rthd->r{n}hqt", f"r{n}hqt,rthd->r{n}qhd")]
    if own is not None:
        parts.append((own, f"r{n}qhd,r{n}thd->r{n}hqt", f"r{n}hqt,r{n}thd->r{n}qhd"))
    logits = []
    for part, equation, _ in parts:
        logit = tf.einsum(equation, queries, part.keys)
        logit = tf.cast(logit, stable_dtype(logit.dtype))
        if part.bias is not None:
            logit += part.bias[:, None] if n and part is shared else part.bias
        logits.append(logit)
    weights = tf.cast(
        tf.nn.softmax(logits[0] if own is None else tf.concat(logits, axis=-1)), queries.dtype
    )
    if own is None:
        read = tf.einsum(parts[0][2], weights, shared.values)
    else:
        weights = tf.split(weights, [tf.shape(logit)[-1] for logit in logits], axis=-1)
        read = tf.add_n(
            [
                tf.einsum(equation, weight, part.values)
                for weight, (part, _, equation) in zip(weights, parts, strict=True)
            ]
        )
    if shared.some is not None and own is None:
        read *= tf.reshape(shared.some, [-1] + [1] * (read.shape.rank - 1))
    return read


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

    def route(self, x: tf.Tensor, mask: tf.Tensor | None = None) -> Routing:
        """Experts of the tokens ``x`` [tokens, d], for both value and output."""
        return self.router(x, None if mask is None else tf.reshape(mask, [-1]))

    def keys_values(self, x, values, like, mask=None, sink: bool = True) -> KeysValues:
        """What tokens show.

        Args:
          x: [tokens, d], the tokens of ``like`` one after the other.
          values: [tokens, d], of :meth:`value`.
          like: [..., T, d], whose axes the result has.
          mask: [B, T].
          sink: whether a null token stands in front; only where ``like`` is [B, T, d].
        """
        keys = self.split_heads(linear(x, self.key_kernel), like)
        return show(keys, self.split_heads(values, like), mask, self.sink if sink else None)

    def read(self, x, like, shared: KeysValues, own: KeysValues | None = None) -> tf.Tensor:
        """What the tokens ``x`` [tokens, d] of ``like`` [R, Q, d] or [R, N, Q, d] read, [tokens, d].

        See :func:`attend`. The output projection is still to come.
        """
        read = attend(self.split_heads(linear(x, self.query_kernel), like), shared, own)
        return tf.reshape(read, [-1, x.shape[-1]])

    def call(self, query, context=None, query_mask=None, context_mask=None):
        """Attention from ``query`` to ``context``; see the class."""
        x = flat(query)
        gates, statistics = self.route(x, query_mask)
        if context is None:
            shown = self.keys_values(x, self.value(x, gates), query, query_mask)
        else:
            context = tf.cast(context, query.dtype)  # Keras casts the first argument alone
            y = flat(context)
            context_gates, context_statistics = self.route(y, context_mask)
            values = self.value(y, context_gates)
            shown = self.keys_values(y, values, context, context_mask)
            statistics += context_statistics
        y = self.out(self.read(x, query, shown), gates)
        return tf.reshape(y, tf.shape(query)), statistics

    def split_heads(self, x: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
        """``x`` as [..., H, d / H] with the axes of ``like`` [..., d]."""
        return reshape_last(x, like, self.heads, x.shape[-1] // self.heads)

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
