"""One Wukong layer: a factorization machine block beside a linear compression."""

from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers.common import EPSILON, build, linear
from loopctr_tf.layers.counting import record_product
from loopctr_tf.layers.interactions import LinearCompression
from loopctr_tf.layers.mlp import MLP


@keras.utils.register_keras_serializable("loopctr_tf")
class WukongLayer(keras.layers.Layer):
    """LN(concat(FMB(X), W_L X) + R X), FMB(X) = reshape(MLP(LN(flatten(X (X^T Y))))).

    X X^T Y holds, for every vector, its dot products with k learned combinations of all vectors; the
    order of the products makes the cost linear in n. R is the identity where the number of vectors stays
    n_F + n_L, else a learned matrix.

    Args:
      fm_outputs: n_F, vectors of the factorization machine block.
      compressed: n_L, vectors of the linear compression.
      rank: k, columns of Y.
      mlp_units: hidden widths of the block's MLP.
      dropout: rate behind each activation of the MLP in training.

    Input: [B, n, d]. Output: [B, n_F + n_L, d]. Weights: Y [n, k], a norm of 2 n k, the MLP's from n k
    to n_F d, W_L [n_L, n], R [n_F + n_L, n] where it is needed, and a norm of 2 d.

    Source: Zhang et al., Wukong: Towards a Scaling Law for Large-Scale Recommendation, section 3.

    >>> WukongLayer(fm_outputs=4, compressed=2, rank=3, mlp_units=[16])(tf.ones([3, 5, 8])).shape
    TensorShape([3, 6, 8])
    """

    def __init__(
        self,
        fm_outputs: int,
        compressed: int,
        rank: int,
        mlp_units: Sequence[int] = (),
        dropout: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.fm_outputs, self.compressed, self.rank = fm_outputs, compressed, rank
        self.mlp_units, self.dropout = tuple(mlp_units), dropout
        policy = {"dtype": self.dtype_policy}
        norm = {"epsilon": EPSILON, **policy}
        self.fm_norm = keras.layers.LayerNormalization(name="fm_norm", **norm)
        self.norm = keras.layers.LayerNormalization(name="norm", **norm)
        self.compression = LinearCompression(compressed, name="compression", **policy)
        self.residual = LinearCompression(fm_outputs + compressed, name="residual", **policy)

    def build(self, input_shape):
        """Creates all weights for n vectors of width d."""
        self.vectors, self.width = input_shape[1:]
        self.projection = self.add_weight(
            "projection", (self.vectors, self.rank), initializer="glorot_uniform"
        )
        self.mlp = MLP(
            (*self.mlp_units, self.fm_outputs * self.width),
            dropout=self.dropout,
            name="mlp",
            dtype=self.dtype_policy,
        )
        machine = tf.TensorShape([None, self.vectors * self.rank])
        build(self.fm_norm, machine)
        build(self.mlp, machine)
        vectors = tf.TensorShape([None, self.vectors, self.width])
        build(self.compression, vectors)
        self._same_number = self.vectors == self.fm_outputs + self.compressed
        if not self._same_number:
            build(self.residual, vectors)
        build(self.norm, vectors)
        self.built = True

    def call(self, x, training=None):
        """The next layer's vectors from ``x`` [B, n, d]."""
        x = tf.ensure_shape(x, [None, self.vectors, self.width])
        machine = self._factorization_machine(x, training)
        found = tf.concat([machine, self.compression(x)], axis=1)
        return self.norm(found + (x if self._same_number else self.residual(x)))

    def _factorization_machine(self, x, training) -> tf.Tensor:
        """FMB(X), [B, n_F, d]."""
        projected = linear(tf.transpose(x, [0, 2, 1]), self.projection)  # X^T Y, [B, d, k]
        record_product(x.shape, self.rank)
        products = tf.matmul(x, projected)  # [B, n, k]
        products = self.fm_norm(tf.reshape(products, [-1, self.vectors * self.rank]))
        return tf.reshape(self.mlp(products, training=training), [-1, self.fm_outputs, self.width])

    def get_config(self):
        """Constructor arguments."""
        return {
            **super().get_config(),
            "fm_outputs": self.fm_outputs,
            "compressed": self.compressed,
            "rank": self.rank,
            "mlp_units": list(self.mlp_units),
            "dropout": self.dropout,
        }
