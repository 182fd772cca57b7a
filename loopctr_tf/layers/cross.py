"""DCN-V2's cross layer: TensorFlow Recommenders', with this library's products."""

import tensorflow as tf
import tf_keras as keras
from tensorflow_recommenders.layers.feature_interaction import dcn

from loopctr_tf.layers.common import build, linear


class Dense(keras.layers.Dense):
    """Keras's, in the compute type and counted, for inputs [..., d]."""

    def call(self, inputs):
        """The activated product."""
        outputs = linear(inputs, self.kernel)
        if self.use_bias:
            outputs += tf.cast(self.bias, outputs.dtype)
        return outputs if self.activation is None else self.activation(outputs)


@keras.utils.register_keras_serializable("loopctr_tf")
class CrossLayer(dcn.Cross):
    """x_{l+1} = x_0 * (W x_l + b) + x_l (eq. 1), or with W = U V of rank r (eq. 2, without experts).

    The equation and all options are those of TensorFlow Recommenders' ``Cross``, whose own products are
    float32 under mixed precision, and whose weights have names that depend on the layers made before.

    Args:
      projection_dim: r; None means a full W.
      **kwargs: of ``Cross``, e.g. ``diag_scale``, and Keras's.

    Input: x_0 and x_l [B, D]; x_l is x_0 by default. Output: [B, D].

    Weights: D^2 + D, or 2 D r + D. Source: Wang et al., DCN V2: Improved Deep & Cross Network and
    Practical Lessons for Web-scale Learning to Rank Systems.

    >>> CrossLayer(kernel_initializer="ones")(tf.constant([[1.0, 2.0]])).numpy()  # W x = [3, 3]
    array([[4., 8.]], dtype=float32)
    """

    def __init__(self, projection_dim: int | None = None, **kwargs):
        super().__init__(projection_dim, **kwargs)

    def build(self, input_shape):
        """Creates U and V, or W, and b."""
        super().build(input_shape)
        width = input_shape[-1]
        for name in ("dense_u", "dense_v") if self._projection_dim else ("dense",):
            config = getattr(self, f"_{name}").get_config()
            dense = Dense.from_config({**config, "name": name, "dtype": self.dtype_policy})
            build(dense, tf.TensorShape([None, width]))
            setattr(self, f"_{name}", dense)
            width = dense.units
        self.built = True

    def call(self, x0, x=None):
        """The next x [B, D]."""
        # Keras casts the first argument alone.
        return super().call(x0, x0 if x is None else tf.cast(x, x0.dtype))
