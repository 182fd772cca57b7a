"""A multilayer perceptron: the towers of models that have no Exit Block."""

from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers.common import build, linear


@keras.utils.register_keras_serializable("loopctr_tf")
class MLP(keras.layers.Layer):
    """Dense layers with biases; the activation stands behind every layer, or all but the last.

    Args:
      units: widths of the layers.
      activation: a Keras name.
      activate_last: whether the activation follows the last layer too.
      dropout: rate behind each activation in training.

    Input: [..., d]. Output: [..., units[-1]].

    >>> MLP([4, 1])(tf.ones([2, 3, 8])).shape
    TensorShape([2, 3, 1])
    """

    def __init__(
        self,
        units: Sequence[int],
        activation: str = "relu",
        activate_last: bool = False,
        dropout: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.units, self.activation = tuple(units), keras.activations.get(activation)
        self.activate_last, self.dropout = activate_last, dropout
        # These hold weights alone; the products are `linear`'s.
        self.layers = [
            keras.layers.Dense(width, name=f"dense_{i}", dtype=self.variable_dtype)
            for i, width in enumerate(self.units)
        ]
        self.drop = keras.layers.Dropout(dropout, name="drop", dtype=self.dtype_policy)

    def build(self, input_shape):
        """Creates kernels and biases."""
        width = input_shape[-1]
        for dense in self.layers:
            build(dense, tf.TensorShape([None, width]))
            width = dense.units
        self.built = True

    def call(self, x, training=None):
        """Applies all layers to ``x`` [..., d]."""
        for dense in self.layers:
            x = linear(x, dense.kernel)
            x += tf.cast(dense.bias, x.dtype)
            if self.activate_last or dense is not self.layers[-1]:
                x = self.drop(self.activation(x), training=training)
        return x

    def get_config(self):
        """Constructor arguments."""
        return {
            **super().get_config(),
            "units": list(self.units),
            "activation": keras.activations.serialize(self.activation),
            "activate_last": self.activate_last,
            "dropout": self.dropout,
        }
