"""What all layers share: builds with full variable names, cloned initialisers, RMS normalisation."""

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers.counting import record_product
from loopctr_tf.layers.frozen import as_stored

EPSILON = 1e-6


def build(layer: keras.layers.Layer, input_shape=None) -> None:
    """Builds a child inside its own name scope, so that its variables carry the whole path."""
    if not layer.built:
        with tf.name_scope(layer.name):
            layer.build(input_shape)


def clone_initializer(initializer) -> keras.initializers.Initializer:
    """A fresh copy: an initialiser shared between weights may draw the same numbers twice."""
    return keras.initializers.deserialize(keras.initializers.serialize(initializer))


def stable_dtype(dtype: tf.DType | str) -> tf.DType:
    """float32 for half precision, else the type itself: for masks, softmax, norms and routers."""
    dtype = tf.as_dtype(dtype)
    return tf.float32 if dtype.size < 4 else dtype


def linear(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """x W for x [..., d] and W [d, u], as one product of matrices.

    Never ``tf.matmul`` on more than two axes: with unequal ranks TensorFlow 2.21's oneDNN kernel reads
    past W and corrupts the heap (tensorflow/tensorflow#117700); besides, one large product is faster.
    W is cast to the type of x: outside a Keras call, nothing else does so under mixed precision.
    """
    kernel = tf.cast(as_stored(kernel), x.dtype)
    record_product(x.shape, kernel.shape[1])
    if x.shape.rank == 2:
        return tf.matmul(x, kernel)
    return reshape_last(tf.matmul(flat(x), kernel), x, kernel.shape[1])


def flat(x: tf.Tensor) -> tf.Tensor:
    """[..., d] as [rows, d]: one row a token."""
    return x if x.shape.rank == 2 else tf.reshape(x, [-1, x.shape[-1]])


def reshape_last(x: tf.Tensor, shaped_like: tf.Tensor, *last: int) -> tf.Tensor:
    """``x`` as [..., *last], with all axes of ``shaped_like`` but its last in front."""
    if shaped_like.shape.rank == 2:
        return tf.reshape(x, [-1, *last])
    reshaped = tf.reshape(x, tf.concat([tf.shape(shaped_like)[:-1], last], axis=0))
    # Set again, because inside a while_loop's gradient even the rank is lost.
    reshaped.set_shape(shaped_like.shape[:-1].concatenate(last))
    return reshaped


def inverse_rms(x: tf.Tensor) -> tf.Tensor:
    """1 / RMS over the last axis, [..., 1], at least in float32."""
    x = tf.cast(x, stable_dtype(x.dtype))
    return tf.math.rsqrt(tf.reduce_mean(tf.square(x), axis=-1, keepdims=True) + EPSILON)


@keras.utils.register_keras_serializable("loopctr_tf")
class RMSNorm(keras.layers.Layer):
    """x / RMS(x) * gain over the last axis, with a learned gain, initially one; at least in float32.

    Args:
      axes: number of last axes that the gain spans: with 1 all tokens share a gain, with 2 each token
        of the second-to-last axis has its own.

    Input and output: [..., d]. Source: Zhang and Sennrich, Root Mean Square Layer Normalization.

    >>> RMSNorm()(tf.constant([[7.0, 1.0]])).numpy().round(4)  # the RMS is 5
    array([[1.4, 0.2]], dtype=float32)
    """

    def __init__(self, axes: int = 1, **kwargs):
        super().__init__(**kwargs)
        self.axes = axes

    def build(self, input_shape):
        """Creates the gain."""
        self.gain = self.add_weight(
            "gain", input_shape[-self.axes :], initializer="ones", experimental_autocast=False
        )
        self.built = True

    def call(self, x):
        """Normalises ``x`` [..., d]."""
        return self._scaled(x, self.gain)

    def part(self, x, first: int):
        """Normalises tokens [..., G', d], the ones from index ``first`` on among all."""
        return self._scaled(x, self.gain[first : first + x.shape[-2]])

    def _scaled(self, x, gain):
        scale = inverse_rms(x)
        normed = tf.cast(x, scale.dtype) * scale * tf.cast(gain, scale.dtype)
        return tf.cast(normed, x.dtype)

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "axes": self.axes}
