"""A dense layer whose weights differ from token to token."""

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers.counting import record_product
from loopctr_tf.layers.frozen import as_stored
from loopctr_tf.layers.moe import StackedExperts


@keras.utils.register_keras_serializable("loopctr_tf")
class TokenDense(keras.layers.Layer):
    """y_i = x_i W_i + b_i, one (W_i, b_i) for each of F tokens.

    Args:
      units: width u of the output.
      use_bias: whether there is b.

    Weights: W [F, d, u] and b [F, u]. Input: [B, F, d]. Output: [B, F, u].

    >>> TokenDense(4)(tf.ones([2, 3, 8])).shape
    TensorShape([2, 3, 4])
    """

    def __init__(self, units: int, use_bias: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.units, self.use_bias = units, use_bias

    def build(self, input_shape):
        """Creates the weights of F tokens of width d."""
        tokens, width = input_shape[-2:]
        self.kernel = self.add_weight(
            "kernel", (tokens, width, self.units), initializer=StackedExperts(equal=False)
        )
        if self.use_bias:
            self.bias = self.add_weight("bias", (tokens, self.units), initializer="zeros")
        self.built = True

    def call(self, x):
        """Applies each token's weights to ``x`` [B, F, d]."""
        kernel = tf.cast(as_stored(self.kernel), x.dtype)
        record_product(x.shape, self.units)
        y = tf.matmul(tf.transpose(x, [1, 0, 2]), kernel)  # [F, B, u]
        y = tf.transpose(y, [1, 0, 2])
        return y + tf.cast(self.bias, y.dtype) if self.use_bias else y

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "units": self.units, "use_bias": self.use_bias}
