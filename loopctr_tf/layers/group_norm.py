"""Group layer normalisation: each group of tokens has its own gain and bias."""

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers.common import EPSILON, stable_dtype


@keras.utils.register_keras_serializable("loopctr_tf")
class GroupLayerNorm(keras.layers.Layer):
    """(x - mean(x)) / std(x) * gain_g + bias_g over the last axis, for a token x of group g.

    Tokens of different meaning (a user's age, an event, a candidate) need not agree on one scale for
    each dimension. At least in float32.

    Args:
      groups: number of groups; gains start at one, biases at zero.

    Input: tokens [..., T, d], and the group of each, int [T], or one for all of them.
    Output: [..., T, d]. Source: Han et al., MTGR: Industrial-Scale Generative Recommendation Framework
    in Meituan.

    >>> norm = GroupLayerNorm(groups=2)
    >>> norm(tf.constant([[[1.0, 3.0], [9.0, 5.0]]]), tf.constant([0, 1])).numpy().round(3)
    array([[[-1.,  1.],
            [ 1., -1.]]], dtype=float32)
    """

    def __init__(self, groups: int, **kwargs):
        super().__init__(**kwargs)
        self.groups = groups

    def build(self, input_shape):
        """Creates gains and biases [groups, d]."""
        shape = (self.groups, input_shape[-1])
        self.gain = self.add_weight("gain", shape, initializer="ones", experimental_autocast=False)
        self.bias = self.add_weight("bias", shape, initializer="zeros", experimental_autocast=False)
        self.built = True

    def call(self, x, group):
        """Normalises ``x`` [..., T, d] of ``group`` [T] or []."""
        wide = tf.cast(x, stable_dtype(x.dtype))
        mean, variance = tf.nn.moments(wide, axes=[-1], keepdims=True)
        normed = (wide - mean) * tf.math.rsqrt(variance + EPSILON)
        gain, bias = (
            tf.cast(tf.gather(weight, group), wide.dtype) for weight in (self.gain, self.bias)
        )
        return tf.cast(normed * gain + bias, x.dtype)

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "groups": self.groups}
