"""Group projections: every token group is mapped to the model's width by weights of its own."""

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers.common import linear


@keras.utils.register_keras_serializable("loopctr_tf")
class GroupProjection(keras.layers.Layer):
    """h = t W_g + b_g, one (W_g, b_g) a group (section 3.2).

    Args:
      units: d, the model's width.
      shared: one (W, b) for all groups that have the same width of input: the ablation of
        heterogeneous projections.

    Input: a list of groups, each [..., d_g]. Output: a list of [..., units].
    """

    def __init__(self, units, shared=False, **kwargs):
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
        groups = tf.nest.flatten(groups)  # a reloaded Keras model hands over a lone group bare
        if len(groups) != len(self._index):
            raise ValueError(
                f"got {len(groups)} groups; the layer was built for {len(self._index)}"
            )
        return [self.project(tokens, group) for group, tokens in enumerate(groups)]

    def project(self, tokens, group: int):
        """Projects the tokens [..., d_g] of one group alone."""
        place = self._index[group]
        projected = linear(tokens, self.kernels[place])
        # Not tf.nn.bias_add, whose gradient loses count in bfloat16 on a CPU.
        return projected + tf.cast(self.biases[place], projected.dtype)

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "units": self.units, "shared": self.shared}
