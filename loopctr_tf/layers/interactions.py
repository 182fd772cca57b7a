"""Interactions of vectors: each layer maps n vectors of width d to a chosen number of them."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers.attention import join_heads, split_heads
from loopctr_tf.layers.common import EPSILON, build, flat, linear, reshape_last, stable_dtype
from loopctr_tf.layers.counting import record_product
from loopctr_tf.layers.mlp import MLP


@keras.utils.register_keras_serializable("loopctr_tf")
class LinearCompression(keras.layers.Layer):
    """W X: every output is a learned combination of the input vectors, the same in every dimension.

    Args:
      outputs: m, the number of output vectors.

    Input: [B, n, d]. Output: [B, m, d]. Weights: n m.

    >>> LinearCompression(2)(tf.ones([3, 5, 8])).shape
    TensorShape([3, 2, 8])
    """

    def __init__(self, outputs: int, **kwargs):
        super().__init__(**kwargs)
        self.outputs = outputs

    def build(self, input_shape):
        """Creates W, transposed."""
        self.kernel = self.add_weight(
            "kernel", (input_shape[1], self.outputs), initializer="glorot_uniform"
        )
        self.built = True

    def call(self, x):
        """Combines the vectors of ``x`` [B, n, d]."""
        x = tf.ensure_shape(x, [None, self.kernel.shape[0], None])
        return tf.transpose(linear(tf.transpose(x, [0, 2, 1]), self.kernel), [0, 2, 1])

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "outputs": self.outputs}


@keras.utils.register_keras_serializable("loopctr_tf")
class VectorMLP(keras.layers.Layer):
    """An MLP from all vectors, concatenated, to new ones.

    Args:
      outputs: m, the number of output vectors.
      units: widths of hidden layers.
      dropout: rate behind each activation in training.

    Input: [B, n, d]. Output: [B, m, d]. Weights: the MLP's, n d to m d.

    >>> VectorMLP(2, [4])(tf.ones([3, 5, 8])).shape
    TensorShape([3, 2, 8])
    """

    def __init__(self, outputs: int, units: Sequence[int] = (), dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.outputs, self.units, self.dropout = outputs, tuple(units), dropout

    def build(self, input_shape):
        """Creates the MLP."""
        self.vectors, self.width = input_shape[1:]
        self.mlp = MLP(
            (*self.units, self.outputs * self.width),
            dropout=self.dropout,
            name="mlp",
            dtype=self.dtype_policy,
        )
        build(self.mlp, tf.TensorShape([None, self._features()]))
        self.built = True

    def call(self, x, training=None):
        """New vectors from ``x`` [B, n, d]."""
        x = tf.ensure_shape(x, [None, self.vectors, self.width])
        new = self.mlp(self._flattened(x), training=training)
        return tf.reshape(new, [-1, self.outputs, self.width])

    def _features(self) -> int:
        return self.vectors * self.width

    def _flattened(self, x):
        return tf.reshape(x, [-1, self._features()])

    def get_config(self):
        """Constructor arguments."""
        return {
            **super().get_config(),
            "outputs": self.outputs,
            "units": list(self.units),
            "dropout": self.dropout,
        }


@keras.utils.register_keras_serializable("loopctr_tf")
class DotProducts(VectorMLP):
    """An MLP from the dot products of all pairs, <x_i, x_j> / sqrt(d) for i < j, to new vectors.

    Takes the arguments of :class:`VectorMLP`; needs two vectors or more.

    Input: [B, n, d]. Output: [B, m, d]. Weights: the MLP's, n (n - 1) / 2 to m d.

    >>> DotProducts(2, [4])(tf.ones([3, 5, 8])).shape
    TensorShape([3, 2, 8])
    """

    def build(self, input_shape):
        """Creates the MLP."""
        if input_shape[1] < 2:
            raise ValueError("there is 1 vector; a dot product needs two")
        super().build(input_shape)

    def _features(self) -> int:
        return self.vectors * (self.vectors - 1) // 2

    def _flattened(self, x):
        record_product(x.shape, self.vectors)
        products = tf.matmul(x, x, transpose_b=True)  # [B, n, n]
        rows, columns = np.triu_indices(self.vectors, 1)
        # Between normalised vectors they are of the order of sqrt(d), more than what they are added to.
        products = tf.reshape(products, [-1, self.vectors**2]) * self.width**-0.5
        return tf.gather(products, rows * self.vectors + columns, axis=1)


@keras.utils.register_keras_serializable("loopctr_tf")
class CrossProducts(keras.layers.Layer):
    """W (x * (U (V x) + b)), with x all vectors, concatenated: a low-rank cross layer, compressed.

    Without the cross layer's residual: the layer around it has a shortcut.

    Args:
      outputs: m, the number of output vectors.
      rank: r of U and V.

    Input: [B, n, d]. Output: [B, m, d]. Weights: V [n d, r], U [r, n d], b [n d] and W [m, n].

    Source: Wang et al., DCN V2: Improved Deep & Cross Network, section 3.

    >>> CrossProducts(2, rank=4)(tf.ones([3, 5, 8])).shape
    TensorShape([3, 2, 8])
    """

    def __init__(self, outputs: int, rank: int, **kwargs):
        super().__init__(**kwargs)
        self.outputs, self.rank = outputs, rank
        self.compression = LinearCompression(outputs, name="compression", dtype=self.dtype_policy)

    def build(self, input_shape):
        """Creates V, U, b and W."""
        self.vectors, self.width = input_shape[1:]
        size, matrix = self.vectors * self.width, {"initializer": "glorot_uniform"}
        self.down = self.add_weight("down", (size, self.rank), **matrix)
        self.up = self.add_weight("up", (self.rank, size), **matrix)
        self.bias = self.add_weight("bias", (size,), initializer="zeros")
        build(self.compression, tf.TensorShape([None, self.vectors, self.width]))
        self.built = True

    def call(self, x):
        """Crosses the vectors of ``x`` [B, n, d]."""
        size = self.vectors * self.width
        x = tf.reshape(x, [-1, size])
        factors = linear(linear(x, self.down), self.up)
        crossed = x * (factors + tf.cast(self.bias, x.dtype))
        return self.compression(tf.reshape(crossed, [-1, self.vectors, self.width]))

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "outputs": self.outputs, "rank": self.rank}


@keras.utils.register_keras_serializable("loopctr_tf")
class VectorAttention(keras.layers.Layer):
    """W LN(H + FFN(H)) with H = LN(X + Attention(X)): a Transformer encoder layer, compressed.

    All vectors attend to all; the projections of the attention have no biases.

    Args:
      outputs: m, the number of output vectors.
      heads: attention heads, a divisor of d.
      ffn_units: hidden width f of the feed-forward network.
      dropout: rate in training, of attention's output and inside the feed-forward network.

    Input: [B, n, d]. Output: [B, m, d]. Weights: W_QKV [d, 3 d], W_O [d, d], the feed-forward network's
    2 d f + f + d, two norms of 2 d and W [m, n].

    >>> VectorAttention(2, heads=4, ffn_units=16)(tf.ones([3, 5, 8])).shape
    TensorShape([3, 2, 8])
    """

    def __init__(self, outputs: int, heads: int, ffn_units: int, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.outputs, self.heads = outputs, heads
        self.ffn_units, self.dropout = ffn_units, dropout
        policy = {"dtype": self.dtype_policy}
        norm = {"epsilon": EPSILON, **policy}
        self.attention_norm = keras.layers.LayerNormalization(name="attention_norm", **norm)
        self.ffn_norm = keras.layers.LayerNormalization(name="ffn_norm", **norm)
        self.drop = keras.layers.Dropout(dropout, name="drop", **policy)
        self.compression = LinearCompression(outputs, name="compression", **policy)

    def build(self, input_shape):
        """Creates all weights for vectors of width d."""
        vectors, width = input_shape[1:]
        if width % self.heads:
            raise ValueError(f"heads is {self.heads}; give a divisor of the width {width}")
        self.qkv = self.add_weight("qkv", (width, 3 * width), initializer="glorot_uniform")
        self.output_kernel = self.add_weight("output", (width, width), initializer="glorot_uniform")
        self.ffn = MLP(
            (self.ffn_units, width), dropout=self.dropout, name="ffn", dtype=self.dtype_policy
        )
        for layer in (self.attention_norm, self.ffn, self.ffn_norm, self.compression):
            build(layer, tf.TensorShape([None, vectors, width]))
        self.built = True

    def call(self, x, training=None):
        """Encodes and compresses the vectors of ``x`` [B, n, d]."""
        x = tf.ensure_shape(x, [None, self.compression.kernel.shape[0], None])
        read = reshape_last(linear(self._read(x), self.output_kernel), x, x.shape[-1])
        h = self.attention_norm(x + self.drop(read, training=training))
        h = self.ffn_norm(h + self.drop(self.ffn(h, training=training), training=training))
        return self.compression(h)

    def _read(self, x) -> tf.Tensor:
        """The values that each vector reads, [B n, d]."""
        queries, keys, values = (
            split_heads(part, self.heads, x)  # [B, H, n, d / H]
            for part in tf.split(linear(flat(x), self.qkv), 3, axis=-1)
        )
        record_product(x.shape, x.shape[1], 2)  # this product and the one with the values
        logits = tf.matmul(queries, keys, transpose_b=True)
        logits = tf.cast(logits, stable_dtype(x.dtype)) * (x.shape[-1] // self.heads) ** -0.5
        return join_heads(tf.matmul(tf.cast(tf.nn.softmax(logits), x.dtype), values))

    def get_config(self):
        """Constructor arguments."""
        return {
            **super().get_config(),
            "outputs": self.outputs,
            "heads": self.heads,
            "ffn_units": self.ffn_units,
            "dropout": self.dropout,
        }
