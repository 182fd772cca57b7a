"""One DHEN layer: an ensemble of interaction modules with a shortcut."""

from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers.common import EPSILON, build
from loopctr_tf.layers.interactions import LinearCompression


@keras.utils.register_keras_serializable("loopctr_tf")
class DHENLayer(keras.layers.Layer):
    """Norm(Ensemble_i(Interaction_i(X)) + ShortCut(X)), with the sum or concatenation as ensemble.

    ShortCut(X) is X where the number of vectors stays, else W X. Norm is a layer norm of each vector.
    A weighted sum would express no more than the sum, since each module ends in a linear map.

    Args:
      modules: layers from [B, n, d] to [B, m, d], with different names, e.g. those of
        ``loopctr_tf.layers.interactions``; where outputs are concatenated, each may have its own m.
      concat: whether outputs are concatenated, not summed.

    Input: [B, n, d]. Output: [B, m, d], or as many vectors as all modules have. Weights: the modules',
    W [m, n] where it is needed, and a norm of 2 d.

    Source: Zhang et al., DHEN: A Deep and Hierarchical Ensemble Network for Large-Scale Click-Through
    Rate Prediction, eq. 1 and 2.

    >>> from loopctr_tf.layers import CrossProducts, DotProducts
    >>> modules = [CrossProducts(2, rank=4, name="cross"), DotProducts(2, name="dot")]
    >>> DHENLayer(modules)(tf.ones([3, 5, 8])).shape
    TensorShape([3, 2, 8])
    """

    def __init__(self, modules: Sequence[keras.layers.Layer], concat: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.modules, self.concat = list(modules), concat
        numbers = [module.outputs for module in self.modules]
        if not concat and len(set(numbers)) != 1:
            raise ValueError(f"modules have {numbers} outputs; a sum needs the same number of each")
        self.outputs = sum(numbers) if concat else numbers[0]
        policy = {"dtype": self.dtype_policy}
        self.shortcut = LinearCompression(self.outputs, name="shortcut", **policy)
        self.norm = keras.layers.LayerNormalization(epsilon=EPSILON, name="norm", **policy)

    def build(self, input_shape):
        """Builds the modules, and creates W where it is needed."""
        for module in self.modules:
            build(module, input_shape)
        self._same_number = input_shape[1] == self.outputs
        if not self._same_number:
            build(self.shortcut, input_shape)
        build(self.norm, tf.TensorShape([None, self.outputs, input_shape[2]]))
        self.built = True

    def call(self, x, training=None):
        """The next layer's vectors from ``x`` [B, n, d]."""
        found = [module(x, training=training) for module in self.modules]
        joined = tf.concat(found, axis=1) if self.concat else tf.add_n(found)
        return self.norm(joined + (x if self._same_number else self.shortcut(x)))

    def get_config(self):
        """Constructor arguments."""
        return {
            **super().get_config(),
            "modules": [keras.layers.serialize(module) for module in self.modules],
            "concat": self.concat,
        }

    @classmethod
    def from_config(cls, config):
        """The inverse of :meth:`get_config`."""
        modules = [keras.layers.deserialize(module) for module in config["modules"]]
        return cls(**{**config, "modules": modules})
