"""Multi-head attention whose value and output projections are mixtures of experts."""

from typing import NamedTuple

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers.common import build, flat, linear, reshape_last, stable_dtype
from loopctr_tf.layers.counting import record_product
from loopctr_tf.layers.frozen import folded
from loopctr_tf.layers.moe import ExpertDense
from loopctr_tf.layers.routing import Router, Routing

MASKED = -1e38
"""The bias of masked tokens: their weight is zero, whatever values padding has."""


class KeysValues(NamedTuple):
    """Keys and values of tokens that can be attended to, head by head.

    Attributes:
      keys: [R, H, T, d / H + 1] or [R, H, N, T, d / H + 1]. The last column is the bias of a token's
        logits. It is multiplied by the one at the end of every query, so that masks and sinks are part
        of the product, and no array as large as the attention weights is added to them.
      values: [..., T, d / H].
      any_visible: [R], 0 if there is nothing to attend to, else 1; None if that cannot happen.
    """

    keys: tf.Tensor
    values: tf.Tensor
    any_visible: tf.Tensor | None = None


def project_queries(
    x: tf.Tensor, kernel: tf.Tensor, heads: int, shaped_like: tf.Tensor
) -> tf.Tensor:
    """Queries x W_Q / sqrt(d / H), each followed by a one.

    Args:
      x: [tokens, d], the tokens of ``shaped_like``, concatenated.
      kernel: W_Q [d, d].
      heads: H.
      shaped_like: [R, Q, d] or [R, N, Q, d].

    Returns:
      [R, H, Q, d / H + 1] or [R, H, N, Q, d / H + 1].

    >>> tokens = tf.constant([[[2.0]]])
    >>> queries = project_queries(tokens[0], tf.constant([[3.0]]), 1, shaped_like=tokens)
    >>> queries.numpy()  # 2 * 3 / sqrt(1), and the one
    array([[[[6., 1.]]]], dtype=float32)
    """
    width = kernel.shape[1] // heads

    def scaled():
        by_head = tf.reshape(tf.cast(kernel, x.dtype) * width**-0.5, [-1, heads, width])
        by_head = tf.pad(by_head, [[0, 0], [0, 0], [0, 1]])
        return tf.reshape(by_head, [-1, heads * (width + 1)])

    # Folded into the weights, scale and ones are free: product and bias are one kernel.
    ones = tf.constant(([0] * width + [1]) * heads, x.dtype)
    record_product(x.shape, -heads)  # the ones
    rows = tf.nn.bias_add(linear(x, folded(kernel, "scaled_query", scaled)), ones)
    return split_heads(rows, heads, shaped_like)


def split_heads(x: tf.Tensor, heads: int, shaped_like: tf.Tensor) -> tf.Tensor:
    """``x`` [tokens, H c] as [R, H, (N,) T, c]; ``shaped_like`` is [R, (N,) T, d]."""
    x = reshape_last(x, shaped_like, heads, x.shape[-1] // heads)
    return tf.transpose(x, [0, 2, 1, 3] if shaped_like.shape.rank == 3 else [0, 3, 1, 2, 4])


def join_heads(x: tf.Tensor) -> tf.Tensor:
    """The inverse of :func:`split_heads`, [tokens, H c]."""
    width = x.shape[1] * x.shape[-1]
    x = tf.transpose(x, [0, 2, 1, 3] if x.shape.rank == 4 else [0, 2, 3, 1, 4])
    return tf.reshape(x, [-1, width])


def masked_keys_values(
    keys: tf.Tensor, values: tf.Tensor, mask: tf.Tensor | None = None, sink: tf.Tensor | None = None
) -> KeysValues:
    """Keys and values by head [R, H, (N,) T, d / H], with mask [R, T] and a null logit per head [H].

    Mask and sink require tokens without the axis N. The null logit belongs to an additional first token
    whose key and value are zero and whose bias is the sink. It takes part in the softmax like any other,
    so that the result is exactly zero if all tokens are padding (or T is 0).

    >>> keys = tf.zeros([1, 1, 2, 1])
    >>> masked_keys_values(keys, keys, sink=tf.constant([5.0])).keys[0, 0].numpy()
    array([[0., 5.],
           [0., 0.],
           [0., 0.]], dtype=float32)
    """
    one_column = tf.shape(keys[..., :1])
    bias, any_visible = tf.zeros(one_column, keys.dtype), None
    if mask is not None:
        masked = tf.constant(max(MASKED, keys.dtype.min), keys.dtype)
        bias = tf.where(mask[:, None, :, None], bias, masked)
    keys = tf.concat([keys, bias], axis=-1)
    if sink is None:
        if mask is not None:
            any_visible = tf.cast(tf.reduce_any(mask, axis=1), keys.dtype)
        return KeysValues(keys, values, any_visible)
    rows, heads, _, width = tf.unstack(tf.shape(keys))
    sink = tf.tile(tf.cast(sink, keys.dtype)[None, :, None, None], tf.stack([rows, 1, 1, 1]))
    nothing = tf.zeros(tf.stack([rows, heads, 1, width - 1]), keys.dtype)
    null = tf.concat([nothing, sink], axis=-1)
    return KeysValues(tf.concat([null, keys], axis=2), tf.concat([nothing, values], axis=2))


def attend(queries: tf.Tensor, shared: KeysValues, own: KeysValues | None = None) -> tf.Tensor:
    """softmax(Q K^T / sqrt(d / H)) V, softmax at least in float32.

    Args:
      queries: of :func:`project_queries`, [R, H, Q, d / H + 1], or [R, H, N, Q, d / H + 1] for N
        candidates.
      shared: tokens [R, H, T, ...], common to all N candidates and never copied.
      own: further tokens [R, H, N, T', ...] of each candidate; one softmax spans both.

    Returns:
      [R, H, Q, d / H] or [R, H, N, Q, d / H]; zero if there is nothing to attend to.

    >>> tokens = tf.constant([[[[1.0], [3.0]]]])
    >>> equal = masked_keys_values(0 * tokens, tokens)  # both logits are zero
    >>> attend(tf.ones([1, 1, 1, 2]), equal).numpy()
    array([[[[2.]]]], dtype=float32)
    """
    width = shared.values.shape[-1]
    outer, shape = queries.shape[:-1], tf.shape(queries)
    # Candidates join the queries' axis: all of a request meet the same keys in one product.
    count = tf.reduce_prod(shape[2:-1])
    rows = tf.reshape(queries, tf.stack([shape[0], shape[1], count, width + 1]))
    if own is None:
        output = _attended(rows, shared.keys, shared.values)
        if shared.any_visible is not None:
            output *= shared.any_visible[:, None, None, None]
        return _shaped(output, outer, shape)
    for keys in (shared.keys, own.keys):
        record_product(outer, 2 * width, keys.shape[-2])
    logits = [
        _shaped(tf.matmul(rows, shared.keys, transpose_b=True), outer, shape),
        tf.matmul(queries, own.keys, transpose_b=True),
    ]
    weights = _softmax(tf.concat(logits, axis=-1))
    ours, theirs = tf.split(weights, [tf.shape(logit)[-1] for logit in logits], axis=-1)
    ours = tf.reshape(ours, tf.concat([tf.shape(rows)[:-1], tf.shape(ours)[-1:]], axis=0))
    output = tf.matmul(ours, shared.values)
    return _shaped(output, outer, shape) + tf.matmul(theirs, own.values)


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
    """softmax(Q K^T) V; the backward pass reads the weights once between its products."""
    record_product(queries.shape[:-1], 2 * values.shape[-1], keys.shape[-2])
    weights = _softmax(tf.matmul(queries, keys, transpose_b=True))
    output = tf.matmul(weights, values)

    def gradient(slope):
        # sum_t w_t dw_t = dO . O: one number per query instead of a sum over all weights.
        stable = stable_dtype(slope.dtype)
        inner = tf.cast(slope, stable) * tf.cast(output, stable)
        inner = tf.reduce_sum(inner, axis=-1, keepdims=True)
        by_weight = tf.cast(tf.matmul(slope, values, transpose_b=True), stable) - inner
        by_logit = tf.cast(tf.cast(weights, stable) * by_weight, weights.dtype)
        return (
            tf.matmul(by_logit, keys),
            tf.matmul(by_logit, queries, transpose_a=True),
            tf.matmul(weights, slope, transpose_a=True),
        )

    return output, gradient


@keras.utils.register_keras_serializable("loopctr_tf")
class MoEAttention(keras.layers.Layer):
    """softmax(Q K^T / sqrt(d / H)) V, then the output projection (eq. 9 with section 3.4).

    Q = x W_Q and K = x W_K are plain, without bias. V and the output are mixtures of experts with one
    router, so that a token uses the same experts for both: as a key its gates pick its value
    experts, as a query its output experts. Masks and softmax are float32.

    Args:
      heads: H, a divisor of the width d.
      experts: E.
      active_experts: k.
      sink: one learned null logit per head, initially zero (ours). Without tokens to attend to, the
        result is zero.
      equal_experts: see :class:`~loopctr_tf.layers.moe.StackedExperts`.
      zero_outputs: whether the output experts start at zero, and y with them.

    Input: query [B, Q, d]; context [B, T, d] (by default the query itself); query_mask
    [B, Q] and context_mask [B, T], False at padding.
    Output: (y [B, Q, d], router statistics [2, E] over the real tokens of query and context).

    >>> attention = MoEAttention(heads=2)
    >>> y, statistics = attention(tf.ones([3, 5, 8]), query_mask=tf.sequence_mask([5, 2, 0], 5))
    >>> y.shape, float(tf.reduce_sum(statistics[0]))  # seven tokens, two experts each
    (TensorShape([3, 5, 8]), 14.0)
    """

    def __init__(
        self,
        heads: int,
        experts: int = 4,
        active_experts: int = 2,
        sink: bool = True,
        equal_experts: bool = True,
        zero_outputs: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.heads, self.experts, self.active_experts = heads, experts, active_experts
        self.use_sink, self.equal_experts = sink, equal_experts
        self.zero_outputs = zero_outputs
        policy = self.dtype_policy
        self.router = Router(experts, active_experts, name="router", dtype=policy)
        mixture = {"experts": experts, "equal_experts": equal_experts, "dtype": policy}
        self.value = ExpertDense(**mixture, name="value")
        self.out = ExpertDense(**mixture, zeros=zero_outputs, name="output")

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
        self, x: tf.Tensor, mask: tf.Tensor | None = None, depths: int | None = None
    ) -> Routing:
        """Experts of the tokens ``x`` [tokens, d], for both value and output.

        ``depths``: see :meth:`~loopctr_tf.layers.routing.Router.count`.
        """
        return self.router(x, None if mask is None else tf.reshape(mask, [-1]), depths)

    def project_keys(self, x: tf.Tensor) -> tf.Tensor:
        """x W_K, [tokens, d]."""
        return linear(x, self.key_kernel)

    def keys_values_by_head(
        self, keys, values, shaped_like, mask=None, sink: bool = True
    ) -> KeysValues:
        """Keys and values of tokens ``shaped_like`` [R, (N,) T, d]; see :func:`masked_keys_values`.

        Args:
          keys: from :meth:`project_keys`, [tokens, d].
          values: from ``value``, [tokens, d].
          shaped_like: has the axes of the tokens.
          mask: [R, T].
          sink: whether to add the null token; only if ``shaped_like`` is [R, T, d].
        """
        by_head = (split_heads(x, self.heads, shaped_like) for x in (keys, values))
        return masked_keys_values(*by_head, mask, self.sink if sink else None)

    def attend(
        self, x, shaped_like, shared: KeysValues, own: KeysValues | None = None
    ) -> tf.Tensor:
        """Attention output [tokens, d] of tokens ``x`` [tokens, d]; see :func:`attend`.

        ``shaped_like`` [R, Q, d] or [R, N, Q, d] has the axes of the tokens. The output projection is
        still to be applied.
        """
        return join_heads(
            attend(project_queries(x, self.query_kernel, self.heads, shaped_like), shared, own)
        )

    def call(self, query, context=None, query_mask=None, context_mask=None):
        """Attention from ``query`` to ``context``; see the class."""
        x = flat(query)
        gates, statistics = self.route(x, query_mask)
        if context is None:
            keys_values = self.keys_values_by_head(
                self.project_keys(x), self.value(x, gates), query, query_mask
            )
        else:
            context = tf.cast(context, query.dtype)  # Keras casts the first argument alone
            y = flat(context)
            context_gates, context_statistics = self.route(y, context_mask)
            values = self.value(y, context_gates)
            keys_values = self.keys_values_by_head(
                self.project_keys(y), values, context, context_mask
            )
            statistics += context_statistics
        y = self.out(self.attend(x, query, keys_values), gates)
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
            "zero_outputs": self.zero_outputs,
        }
