"""Group projections: each token group has its own linear map to the model's width."""

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers.common import linear


@keras.utils.register_keras_serializable("loopctr_tf")
class GroupProjection(keras.layers.Layer):
    """h = t W_g + b_g, one (W_g, b_g) per group (section 3.2).

    Args:
      units: d, the model's width.
      shared: one (W, b) for all groups of the same input width: the ablation of heterogeneous
        projections.

    Input: a list of groups, each [..., d_g]. Output: a list of [..., units].

    >>> history, item = GroupProjection(8)([tf.ones([3, 5, 2]), tf.ones([3, 4])])
    >>> history.shape, item.shape
    (TensorShape([3, 5, 8]), TensorShape([3, 8]))
    """

    def __init__(self, units: int, shared: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.units, self.shared = units, shared

    def build(self, input_shape):
        """Creates the weights of each group, in the order of the input."""
        self.kernels, self.biases, self._index = [], [], []
        places = {}
        for group, shape in enumerate(input_shape):
            place = places.setdefault(shape[-1] if self.shared else group, len(self.kernels))
            self._index.append(place)
            if place < len(self.kernels):
                continue
            self.kernels.append(
                self.add_weight(
                    f"kernel_{place}", (shape[-1], self.units), initializer="glorot_uniform"
                )
            )
            self.biases.append(self.add_weight(f"bias_{place}", (self.units,), initializer="zeros"))
        self.built = True

    def call(self, groups):
        """Projects each group."""
        groups = tf.nest.flatten(
            groups
        )  # a reloaded Keras model passes a single group without its list
        if len(groups) != len(self._index):
            raise ValueError(
                f"got {len(groups)} groups; the layer was built for {len(self._index)}"
            )
        return [self.project(tokens, group) for group, tokens in enumerate(groups)]

    def project(self, tokens, group: int):
        """Projects the tokens [..., d_g] of only one group."""
        place = self._index[group]
        projected = linear(tokens, self.kernels[place])
        # Not tf.nn.bias_add: its gradient accumulates in bfloat16 on a CPU and loses precision.
        return projected + tf.cast(self.biases[place], projected.dtype)

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "units": self.units, "shared": self.shared}
