"""One HSTU layer: pointwise aggregated attention, gated, without a softmax."""

import math
from typing import NamedTuple

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers.common import build, linear, stable_dtype
from loopctr_tf.layers.counting import record_product
from loopctr_tf.layers.group_norm import GroupLayerNorm


class Timeline(NamedTuple):
    """Where tokens stand in time.

    Attributes:
      mask: bool [R, T], False at padding.
      position: int32 [R, T], counted back from the row: 0 is the most recent event.
      age: float32 [R, T], time between the event and the row, -1 for a token without one; or None.
      order: int32 [R, T]: a token sees those whose order is not smaller. None means ``position``, so
        that none sees a more recent one.
      group: int32 [T], the group of each token, for a layer with ``groups``; or None.
    """

    mask: tf.Tensor
    position: tf.Tensor
    age: tf.Tensor | None = None
    order: tf.Tensor | None = None
    group: tf.Tensor | None = None


@keras.utils.register_keras_serializable("loopctr_tf")
class HSTULayer(keras.layers.Layer):
    """X + f2(Norm(A V) * U) with U, V, Q, K = SiLU(f1(Norm(X))) and A = SiLU(Q K^T + rab) / tokens.

    rab is the relative bias of a pair: one learned number for the difference of positions, and one for
    the logarithm of the difference of times, both without sign where a token sees more recent ones. The
    division by ``tokens``, a constant, keeps a score independent of padding. Normalising the input is
    the authors' code's; the paper leaves it open. With ``groups`` both norms have a gain and a bias of
    their own for each group of tokens, as in MTGR.

    Args:
      heads: H, a divisor of d.
      tokens: most tokens that one attends to.
      time_buckets: of log2(1 + time difference); 0 means no time bias.
      dropout: rate on the output in training.
      groups: of tokens, the last of which are the candidates; 0 means one norm for all tokens.

    Weights: f1 [d, 4 d], f2 [d, d] with bias, two norms of 2 d (or 2 d a group), position bias
    ``tokens`` + 1, time bias ``time_buckets`` + 1. Sources: Zhai et al., Actions Speak Louder than
    Words, eq. 1-3; for ``groups``, Han et al., MTGR.

    >>> layer = HSTULayer(heads=2, tokens=4)
    >>> line = Timeline(tf.constant([[True, True, False]]), tf.constant([[1, 0, 0]]))
    >>> encoded, keys, values = layer(tf.ones([1, 3, 8]), line)
    >>> encoded.shape
    TensorShape([1, 3, 8])
    """

    def __init__(
        self,
        heads: int,
        tokens: int,
        time_buckets: int = 0,
        dropout: float = 0.0,
        groups: int = 0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.heads, self.tokens, self.groups = heads, tokens, groups
        self.time_buckets, self.dropout = time_buckets, dropout
        self.input_norm, self.output_norm = self._norm("input_norm"), self._norm("output_norm")
        self.drop = keras.layers.Dropout(dropout, name="drop", dtype=self.dtype_policy)

    def _norm(self, name: str) -> keras.layers.Layer:
        if self.groups:
            return GroupLayerNorm(self.groups, name=name, dtype=self.dtype_policy)
        return keras.layers.LayerNormalization(epsilon=1e-6, name=name, dtype=self.dtype_policy)

    def build(self, input_shape):
        """Creates all weights for tokens of width d."""
        width = input_shape[-1]
        if width % self.heads:
            raise ValueError(f"heads is {self.heads}; give a divisor of the width {width}")
        for norm in (self.input_norm, self.output_norm):
            build(norm, tf.TensorShape([None, None, width]))
        matrix = {"initializer": "glorot_uniform"}
        self.uvqk = self.add_weight("uvqk", (width, 4 * width), **matrix)
        self.output_kernel = self.add_weight("output", (width, width), **matrix)
        self.output_bias = self.add_weight("output_bias", (width,), initializer="zeros")
        bias = {"initializer": "zeros", "experimental_autocast": False}
        self.position_bias = self.add_weight("position_bias", (self.tokens + 1,), **bias)
        if self.time_buckets:
            self.time_bias = self.add_weight("time_bias", (self.time_buckets + 1,), **bias)
        self.built = True

    def call(self, x, line: Timeline, training=None):
        """A user's tokens among themselves: (encoded, keys, values), each [R, T, d]."""
        if self.groups and line.group is None:
            raise ValueError(f"groups is {self.groups}; give a line with the group of each token")
        u, values, queries, keys = self._projected(x, line.group)
        order = line.position if line.order is None else line.order
        visible = order[:, None] >= order[:, :, None]  # [R, T, T]
        visible &= line.mask[:, None]
        bias = self.bias(line, line.position, line.age)
        read = self._read(self._weights(queries, keys, bias, visible), values)
        return self._gated(x, read, u, line.group, training), keys, values

    def rank(self, x, keys, values, line: Timeline, training=None):
        """Candidates [R, N, d], each of which sees the user's tokens and itself: [R, N, d]."""
        group = self.groups - 1
        u, own_values, queries, own_keys = self._projected(x, group)
        now = tf.fill(tf.shape(line.position[:, :1]), -1)
        age = None if line.age is None else tf.zeros_like(line.age[:, :1])
        bias = self.bias(line, now, age)  # [R, 1, T]
        read = self._read(self._weights(queries, keys, bias, line.mask[:, None]), values)
        alone = self._by_head(queries * own_keys, rows_first=True)  # [R, N, H, d / H]
        logits = tf.reduce_sum(tf.cast(alone, stable_dtype(x.dtype)), axis=-1, keepdims=True)
        same = self.position_bias[0] + (self.time_bias[1] if self.time_buckets else 0.0)
        weight = tf.nn.silu(logits + tf.cast(same, logits.dtype)) / self.tokens
        itself = tf.cast(weight, x.dtype) * self._by_head(own_values, rows_first=True)
        return self._gated(x, read + tf.reshape(itself, tf.shape(x)), u, group, training)

    def bias(self, line: Timeline, position: tf.Tensor, age: tf.Tensor | None) -> tf.Tensor:
        """rab [R, Q, T] of queries at ``position`` and ``age`` [R, Q] and the tokens of ``line``."""
        distance = line.position[:, None] - position[:, :, None]
        if line.order is not None:  # a token may see more recent ones
            distance = tf.abs(distance)
        bias = tf.gather(self.position_bias, tf.clip_by_value(distance, 0, self.tokens))
        if not self.time_buckets:
            return bias
        gap = tf.abs(line.age[:, None] - age[:, :, None])
        bucket = 1 + tf.cast(tf.math.log1p(gap) / math.log(2), tf.int32)
        bucket = tf.minimum(bucket, self.time_buckets)
        timed = (line.age[:, None] >= 0) & (age[:, :, None] >= 0)
        return bias + tf.gather(self.time_bias, tf.where(timed, bucket, 0))

    def _projected(self, x, group):
        normed = self._normed(self.input_norm, x, group)
        return tf.split(tf.nn.silu(linear(normed, self.uvqk)), 4, axis=-1)

    def _normed(self, norm, x, group) -> tf.Tensor:
        return norm(x, group) if self.groups else norm(x)

    def _by_head(self, x: tf.Tensor, rows_first: bool = False) -> tf.Tensor:
        """[R, T, d] as [R, H, T, d / H], or [R, T, H, d / H]."""
        shape = tf.shape(x)
        x = tf.reshape(x, [shape[0], shape[1], self.heads, x.shape[-1] // self.heads])
        return x if rows_first else tf.transpose(x, [0, 2, 1, 3])

    def _weights(self, queries, keys, bias, visible) -> tf.Tensor:
        """A [R, H, Q, T]."""
        record_product(queries.shape, keys.shape[1], 2)  # this product and the one with the values
        logits = tf.matmul(self._by_head(queries), self._by_head(keys), transpose_b=True)
        logits = tf.cast(logits, stable_dtype(logits.dtype))
        weights = tf.nn.silu(logits + tf.cast(bias, logits.dtype)[:, None]) / self.tokens
        weights = tf.where(visible[:, None], weights, 0.0)
        return tf.cast(weights, queries.dtype)

    def _read(self, weights, values) -> tf.Tensor:
        """A V, [R, Q, d]."""
        read = tf.transpose(tf.matmul(weights, self._by_head(values)), [0, 2, 1, 3])
        shape = tf.shape(read)
        return tf.reshape(read, [shape[0], shape[1], values.shape[-1]])

    def _gated(self, x, read, u, group, training) -> tf.Tensor:
        y = linear(self._normed(self.output_norm, read, group) * u, self.output_kernel)
        y += tf.cast(self.output_bias, y.dtype)
        return x + self.drop(y, training=training)

    def get_config(self):
        """Constructor arguments."""
        return {
            **super().get_config(),
            "heads": self.heads,
            "tokens": self.tokens,
            "time_buckets": self.time_buckets,
            "dropout": self.dropout,
            "groups": self.groups,
        }
