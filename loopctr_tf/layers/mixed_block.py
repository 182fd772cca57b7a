"""A causal Transformer block in which events share their weights and every feature has its own."""

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers.activations import gelu
from loopctr_tf.layers.attention import MASKED, join_heads, split_heads
from loopctr_tf.layers.common import RMSNorm, build, flat, linear, stable_dtype
from loopctr_tf.layers.counting import record_product
from loopctr_tf.layers.frozen import as_stored
from loopctr_tf.layers.moe import StackedExperts


def own_linear(x: tf.Tensor, kernels: tf.Tensor, first: int = 0) -> tf.Tensor:
    """x_i W_i for tokens x [R, N, G', d] and W [G, d, u]: the kernels from ``first`` on, one a token.

    >>> kernels = tf.constant([[[1.0]], [[2.0]], [[3.0]]])
    >>> own_linear(tf.ones([1, 1, 2, 1]), kernels, first=1)[0, 0].numpy()
    array([[2.],
           [3.]], dtype=float32)
    """
    kernels = tf.cast(as_stored(kernels), x.dtype)[first : first + x.shape[2]]
    record_product(x.shape, kernels.shape[-1])
    return tf.einsum("rngd,gdu->rngu", x, kernels)


@keras.utils.register_keras_serializable("loopctr_tf")
class MixedBlock(keras.layers.Layer):
    """Z = X + MHA(Norm(X)), then Z + FFN(Norm(Z)), with FFN(x) = gelu(x W_1) W_2, without biases.

    The line is [events; features]. All events share W_Q, W_K, W_V, W_O, W_1 and W_2; each of the M
    features has its own. The mask is causal: an event sees itself and older ones, a feature all events,
    the features before it and itself. Only the newest K events issue queries and come out (the pyramid),
    and all events of the input are read.

    Args:
      heads: H, a divisor of d.
      ffn_dim: d_ff.
      features: M.
      queries: K; None means every event. With 0 only features come out.
      dropout: rate on both residual branches in training.

    Input: features [R, M, d], events [R, T, d] newest first, and their mask [R, T], False at padding.
    Output: (features [R, M, d], events [R, min(K, T), d]).

    Weights: M (4 d^2 + 2 d d_ff) + 2 d; of the events 2 d^2, and 2 d^2 + 2 d d_ff unless K is 0.

    Source: Zhang et al., OneTrans, section 3.3.

    >>> block = MixedBlock(heads=2, ffn_dim=16, features=3, queries=4)
    >>> mask = tf.sequence_mask([5, 0], 5)
    >>> features, events = block(tf.ones([2, 3, 8]), tf.ones([2, 5, 8]), mask)
    >>> features.shape, events.shape
    (TensorShape([2, 3, 8]), TensorShape([2, 4, 8]))
    """

    def __init__(
        self,
        heads: int,
        ffn_dim: int,
        features: int,
        queries: int | None = None,
        dropout: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.heads, self.ffn_dim, self.features = heads, ffn_dim, features
        self.queries, self.dropout = queries, dropout
        self.attention_norm = RMSNorm(name="attention_norm", dtype=self.dtype_policy)
        self.ffn_norm = RMSNorm(name="ffn_norm", dtype=self.dtype_policy)
        self.drop = keras.layers.Dropout(dropout, name="drop", dtype=self.dtype_policy)

    def build(self, input_shape):
        """Creates all weights for tokens of width d."""
        width, inner = input_shape[-1], self.ffn_dim
        if width % self.heads:
            raise ValueError(f"heads is {self.heads}; give a divisor of the width {width}")
        for norm in (self.attention_norm, self.ffn_norm):
            build(norm, tf.TensorShape([None, None, width]))
        sizes = {
            "query": (width, width),
            "key_value": (width, 2 * width),
            "output": (width, width),
            "inner": (width, inner),
            "outer": (inner, width),
        }
        self.own = {
            name: self.add_weight(
                f"own_{name}", (self.features, *size), initializer=StackedExperts(equal=False)
            )
            for name, size in sizes.items()
        }
        # Without queries an event is no more than its key and its value.
        named = ["key_value"] if self.queries == 0 else list(sizes)
        self.shared = {
            name: self.add_weight(f"shared_{name}", sizes[name], initializer="glorot_uniform")
            for name in named
        }
        self.built = True

    def call(self, features, events, mask, training=None):
        """Both kinds of tokens; see the class."""
        events = tf.cast(events, features.dtype)  # Keras casts the first argument alone
        events, keys, values = self.step_events(events, mask, training=training)
        features = tf.ensure_shape(features, [None, self.features, keys.shape[-1]])[:, None]
        features, _, _ = self.step_features(features, keys, values, mask, training=training)
        return features[:, 0], events

    def step_events(self, x, mask, training=None):
        """The events [R, T, d]: (those of the K newest, and keys and values of all), [R, ., d]."""
        normed = self.attention_norm(x)
        keys, values = tf.split(linear(normed, self.shared["key_value"]), 2, axis=-1)
        x, normed = x[:, : self.queries], normed[:, : self.queries]
        if self.queries == 0:
            return x, keys, values
        queries = linear(normed, self.shared["query"])
        place = tf.range(tf.shape(keys)[1])
        visible = (place >= place[: self.queries, None]) & mask[:, None]  # [R, K, T]
        logits = self._logits(queries, keys) + _bias(visible, keys.dtype)[:, None]
        read = join_heads(tf.matmul(_softmax(logits, x.dtype), self._by_head(values)))
        read = tf.reshape(read, tf.shape(x))
        x += self.drop(linear(read, self.shared["output"]), training=training)
        inner = gelu(linear(self.ffn_norm(x), self.shared["inner"]))
        x += self.drop(linear(inner, self.shared["outer"]), training=training)
        return x, keys, values

    def step_features(self, x, keys, values, mask, first: int = 0, training=None):
        """Features [R, N, G', d] of N candidates, which see what a request's candidates share.

        Args:
          x: the features from ``first`` on.
          keys: of events and of the features before ``first``, [R, T, d]; ``values`` alike.
          values: see ``keys``.
          mask: [R, T], False at padding.
          first: index of the first of these features among all.
          training: whether dropout is on.

        Returns:
          (the features, their keys, their values), each [R, N, G', d].
        """
        normed = self.attention_norm(x)
        queries = own_linear(normed, self.own["query"], first)
        own_keys, own_values = tf.split(
            own_linear(normed, self.own["key_value"], first), 2, axis=-1
        )
        size, (rows, count, tokens, width) = x.shape[2], tf.unstack(tf.shape(x))
        # Candidates join the axis of features: all of a request meet the same keys in one product.
        seen = self._logits(tf.reshape(queries, [rows, count * tokens, width]), keys)
        seen = tf.reshape(seen, [rows, self.heads, count, tokens, tf.shape(keys)[1]])
        seen += _bias(mask, seen.dtype)[:, None, None, None]
        place = tf.range(size)
        own = self._logits(queries, own_keys) + _bias(place <= place[:, None], seen.dtype)
        weights = _softmax(tf.concat([seen, own], axis=-1), x.dtype)
        seen, own = weights[..., :-size], weights[..., -size:]
        seen = tf.reshape(seen, [rows, self.heads, count * tokens, tf.shape(keys)[1]])
        read = tf.matmul(own, self._by_head(own_values))  # [R, H, N, G', d / H]
        read += tf.reshape(tf.matmul(seen, self._by_head(values)), tf.shape(read))
        read = tf.ensure_shape(tf.reshape(join_heads(read), tf.shape(x)), x.shape)
        x += self.drop(own_linear(read, self.own["output"], first), training=training)
        inner = gelu(own_linear(self.ffn_norm(x), self.own["inner"], first))
        x += self.drop(own_linear(inner, self.own["outer"], first), training=training)
        return x, own_keys, own_values

    def _by_head(self, x: tf.Tensor) -> tf.Tensor:
        """[R, T, d] as [R, H, T, d / H], or [R, N, G, d] as [R, H, N, G, d / H]."""
        return split_heads(flat(x), self.heads, x)

    def _logits(self, queries: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        """Q K^T / sqrt(d / H) by head, at least in float32."""
        record_product(queries.shape, keys.shape[-2], 2)  # this product and the one with the values
        scale = (queries.shape[-1] // self.heads) ** -0.5
        logits = tf.matmul(self._by_head(queries * scale), self._by_head(keys), transpose_b=True)
        return tf.cast(logits, stable_dtype(logits.dtype))

    def get_config(self):
        """Constructor arguments."""
        return {
            **super().get_config(),
            "heads": self.heads,
            "ffn_dim": self.ffn_dim,
            "features": self.features,
            "queries": self.queries,
            "dropout": self.dropout,
        }


def _bias(visible: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    return tf.where(visible, tf.constant(0, stable_dtype(dtype)), MASKED)


def _softmax(logits: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    return tf.cast(tf.nn.softmax(logits), dtype)
