"""One Hiformer layer: attention and feed-forward networks whose weights differ by feature."""

from typing import Literal

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers.activations import gelu
from loopctr_tf.layers.common import build, linear
from loopctr_tf.layers.multi_head import attend_by_head
from loopctr_tf.layers.token_dense import TokenDense


@keras.utils.register_keras_serializable("loopctr_tf")
class CompositeDense(keras.layers.Layer):
    """[y_1; ...; y_O] = [x_1; ...; x_F] W: every output token is made of all F input tokens.

    Args:
      tokens: O; None means F.
      rank: r, W = U V with U [F d, r] and V [r, O d]; None means a full W [F d, O d].

    Weights: F d O d, or (F + O) d r. Input: [B, F, d]. Output: [B, O, d].

    >>> layer = CompositeDense(tokens=2, rank=3)
    >>> layer(tf.ones([4, 5, 8])).shape, layer.count_params()
    (TensorShape([4, 2, 8]), 168)
    """

    def __init__(self, tokens: int | None = None, rank: int | None = None, **kwargs):
        super().__init__(**kwargs)
        self.tokens, self.rank = tokens, rank

    def build(self, input_shape):
        """Creates W, or U and V."""
        tokens, width = input_shape[-2:]
        self._shape = (self.tokens or tokens, width)
        self._sizes = tokens * width, self._shape[0] * width
        matrix = {"initializer": "glorot_uniform"}
        if self.rank is None:
            self.kernels = [self.add_weight("kernel", self._sizes, **matrix)]
        else:
            self.kernels = [
                self.add_weight("down", (self._sizes[0], self.rank), **matrix),
                self.add_weight("up", (self.rank, self._sizes[1]), **matrix),
            ]
        self.built = True

    def call(self, x):
        """Projects the tokens ``x`` [B, F, d] together."""
        x = tf.reshape(x, [-1, self._sizes[0]])
        for kernel in self.kernels:
            x = linear(x, kernel)
        return tf.reshape(x, [-1, *self._shape])

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "tokens": self.tokens, "rank": self.rank}


@keras.utils.register_keras_serializable("loopctr_tf")
class HiformerLayer(keras.layers.Layer):
    """z_i = x_i + concat_h(sum_j softmax_j(q_i . k_j / sqrt(d / H)) v_j) W_i, then z_i + FFN_i(z_i).

    FFN_i is GELU(z_i A_i + a_i) B_i + b_i; W_i, A_i and B_i belong to the feature i. So do queries, keys
    and values: with "pair" (the paper's heterogeneous attention) they are x_i Q_i, x_j K_j and x_j V_j,
    so that a pair of features has a product Q_i K_j^T of its own; with "composite" (Hiformer) each of
    them is a projection of all features; see :class:`CompositeDense`. Ours: the norms stand in front of
    attention and FFN.

    Args:
      heads: H, a divisor of the width d.
      ffn_dim: f, inner width of the FFN.
      projection: "pair" or "composite".
      rank: r of composite projections, for all heads together; None means full matrices.
      outputs: O, how many tokens, the first ones, are read afterwards; only they are computed. None
        means all.
      dropout: rate behind attention and FFN in training.

    Weights for F tokens: (2 F + O) d^2 for "pair", (2 F + O) F d^2 for "composite", of rank r
    (5 F + O) d r; O d^2 + O (2 d f + f + d) and two norms of 2 d. Input: [B, F, d]. Output: [B, O, d].

    Source: Gui et al., Hiformer: Heterogeneous Feature Interactions Learning with Transformers for
    Recommender Systems.

    >>> HiformerLayer(heads=2, ffn_dim=6, rank=3, outputs=1)(tf.ones([4, 5, 8])).shape
    TensorShape([4, 1, 8])
    """

    def __init__(
        self,
        heads: int,
        ffn_dim: int,
        projection: Literal["pair", "composite"] = "composite",
        rank: int | None = None,
        outputs: int | None = None,
        dropout: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.heads, self.ffn_dim, self.projection = heads, ffn_dim, projection
        self.rank, self.outputs, self.dropout = rank, outputs, dropout
        policy = {"dtype": self.dtype_policy}
        norm = {"epsilon": 1e-6, **policy}
        self.attention_norm = keras.layers.LayerNormalization(name="attention_norm", **norm)
        self.ffn_norm = keras.layers.LayerNormalization(name="ffn_norm", **norm)
        self.drop = keras.layers.Dropout(dropout, name="drop", **policy)

    def build(self, input_shape):
        """Creates all weights for F tokens of width d."""
        tokens, width = input_shape[-2:]
        if width % self.heads:
            raise ValueError(f"heads is {self.heads}; give a divisor of the width {width}")
        if self.rank is not None and self.projection == "pair":
            raise ValueError(f"rank is {self.rank}; leave it out, or give projection='composite'")
        policy, outputs = {"dtype": self.dtype_policy}, self.outputs or tokens
        every, read = (tf.TensorShape([None, n, width]) for n in (tokens, outputs))
        if self.projection == "composite":
            self.query = CompositeDense(outputs, self.rank, name="query", **policy)
            self.key = CompositeDense(rank=self.rank, name="key", **policy)
            self.value = CompositeDense(rank=self.rank, name="value", **policy)
        else:
            self.query, self.key, self.value = (
                TokenDense(width, use_bias=False, name=name, **policy)
                for name in ("query", "key", "value")
            )
        self.out = TokenDense(width, use_bias=False, name="output", **policy)
        self.inner = TokenDense(self.ffn_dim, name="inner", **policy)
        self.outer = TokenDense(width, name="outer", **policy)
        for layer in (self.attention_norm, self.key, self.value):
            build(layer, every)
        build(self.query, every if self.projection == "composite" else read)
        for layer in (self.out, self.ffn_norm, self.inner):
            build(layer, read)
        build(self.outer, tf.TensorShape([None, outputs, self.ffn_dim]))
        self.built = True

    def call(self, x, training=None):
        """Encodes the tokens ``x`` [B, F, d]."""
        normed, x = self.attention_norm(x), x[:, : self.outputs]
        asking = normed if self.projection == "composite" else normed[:, : self.outputs]
        read = attend_by_head(self.query(asking), self.key(normed), self.value(normed), self.heads)
        x += self.drop(self.out(read), training=training)
        inner = gelu(self.inner(self.ffn_norm(x)))
        return x + self.drop(self.outer(inner), training=training)

    def get_config(self):
        """Constructor arguments."""
        return {
            **super().get_config(),
            "heads": self.heads,
            "ffn_dim": self.ffn_dim,
            "projection": self.projection,
            "rank": self.rank,
            "outputs": self.outputs,
            "dropout": self.dropout,
        }
