"""AutoInt's interacting layer: multi-head self-attention over the features of a row."""

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers.attention import join_heads, split_heads
from loopctr_tf.layers.common import flat, linear, reshape_last, stable_dtype
from loopctr_tf.layers.counting import record_product


@keras.utils.register_keras_serializable("loopctr_tf")
class InteractingLayer(keras.layers.Layer):
    """ReLU(softmax(Q K^T) V + X W_res) of the features X [F, d] of each row (eq. 5-8).

    Q, K and V are X W without biases, cut into H heads of width d / H; logits are not scaled, as in the
    paper (the authors' code divides by a root). The output has the width of the input (ours: the paper
    chooses the heads' width freely), so that W_res is square.

    Args:
      heads: H, a divisor of d.
      dropout: rate of the attention weights in training.

    Input and output: [B, F, d]. Weights: 4 d^2, Q, K, V and the residual in one kernel. Source: Song et
    al., AutoInt: Automatic Feature Interaction Learning via Self-Attentive Neural Networks.

    >>> InteractingLayer(heads=2)(tf.ones([3, 5, 8])).shape
    TensorShape([3, 5, 8])
    """

    def __init__(self, heads: int = 2, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.dropout = heads, dropout
        self.drop = keras.layers.Dropout(dropout, name="drop", dtype=self.dtype_policy)

    def build(self, input_shape):
        """Creates the kernel [d, 4 d]."""
        width = input_shape[-1]
        if width % self.heads:
            raise ValueError(f"heads is {self.heads}; give a divisor of the width {width}")
        self.kernel = self.add_weight("kernel", (width, 4 * width), initializer="glorot_uniform")
        self.built = True

    def call(self, x, training=None):
        """Features [B, F, d] that have seen each other."""
        width = x.shape[-1]
        *projected, residual = tf.split(linear(flat(x), self.kernel), 4, axis=-1)  # each [B F, d]
        # Each [B, H, F, d / H].
        queries, keys, values = (split_heads(part, self.heads, x) for part in projected)
        record_product(x.shape, x.shape[1], 2)  # this product and the one with the values
        logits = tf.matmul(queries, keys, transpose_b=True)
        weights = tf.nn.softmax(tf.cast(logits, stable_dtype(logits.dtype)))  # [B, H, F, F]
        weights = self.drop(tf.cast(weights, x.dtype), training=training)
        read = join_heads(tf.matmul(weights, values))
        return reshape_last(tf.nn.relu(read + residual), x, width)

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "heads": self.heads, "dropout": self.dropout}
