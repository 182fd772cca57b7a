"""Hyper-connected residuals: n residual streams with input-dependent coefficients."""

from typing import NamedTuple

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers.common import inverse_rms, linear, stable_dtype
from loopctr_tf.layers.frozen import folded


class Connection(NamedTuple):
    """A sub-layer's input, and how its output is added to the streams.

    Attributes:
      layer_input: a_m^T S, [..., d].
      mixed: a_r^T S as n tensors [..., d], at least float32 if n > 1, as are the weights.
      weights: b as n tensors [..., 1].
    """

    layer_input: tf.Tensor
    mixed: tuple[tf.Tensor, ...]
    weights: tuple[tf.Tensor, ...]

    def add(self, output: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """The new streams a_r^T S + b^T output."""
        wide = tf.cast(output, self.mixed[0].dtype)
        return tuple(
            tf.cast(m + w * wide, output.dtype)
            for m, w in zip(self.mixed, self.weights, strict=True)
        )


def _read_stream(sub_layer: int, streams: int):
    def initializer(shape, dtype=None, **kwargs):
        return tf.one_hot(sub_layer % streams, streams, dtype=dtype)

    return initializer


@keras.utils.register_keras_serializable("loopctr_tf")
class HyperConnection(keras.layers.Layer):
    """The coefficients of one sub-layer's residual (eq. 6-8).

    With S the n streams of a token and S_bar = S / RMS(S) stream by stream (no gain):

        a_m = A_m + s_a tanh(S_bar W_m)    [n, 1]
        a_r = A_r + s_a tanh(S_bar W_r)    [n, n]
        b   = B + s_b tanh(S_bar W_b)^T    [1, n]
        S'  = a_r^T S + b^T T(norm(a_m^T S))

    Initially W_* = 0, A_m = e_{s mod n}, A_r = I, B = 1 and s_a = s_b = 0.01 (Hyper-Connections' value;
    the paper gives none), which is a plain residual. 4 d + 10 parameters at n = 2. Under mixed precision
    coefficients are float32: near 1, bfloat16 has steps of 0.008, which would swallow s_a tanh.

    Args:
      streams: n; 1 is a plain residual without any parameter, x + T(norm(x)).
      sub_layer: s, 0 for attention and 1 for the feed-forward network.
      scale: initial value of s_a and s_b.

    Input: the streams, a sequence of n tensors [..., d]. Output: :class:`Connection`.
    Source: Zhu et al., Hyper-Connections, 2024.

    >>> x = tf.ones([3, 8])
    >>> connection = HyperConnection(streams=2)((x, x))
    >>> first, second = connection.add(5 * connection.layer_input)
    >>> float(first[0, 0])
    6.0
    """

    def __init__(self, streams: int = 2, sub_layer: int = 0, scale: float = 0.01, **kwargs):
        super().__init__(**kwargs)
        self.streams, self.sub_layer, self.scale = streams, sub_layer, scale

    def build(self, input_shape):
        """Creates the static coefficients, the projections and the two scales."""
        if self.streams > 1:
            n = self.streams
            width = input_shape[0][-1]
            whole = {"experimental_autocast": False}
            read = _read_stream(self.sub_layer, n)
            self.read = self.add_weight("read", (n,), initializer=read, **whole)
            self.mix = self.add_weight("mix", (n, n), initializer="identity", **whole)
            self.write = self.add_weight("write", (n,), initializer="ones", **whole)
            self.read_kernel = self.add_weight("read_kernel", (width, 1), initializer="zeros")
            self.mix_kernel = self.add_weight("mix_kernel", (width, n), initializer="zeros")
            self.write_kernel = self.add_weight("write_kernel", (width, 1), initializer="zeros")
            scale = keras.initializers.Constant(self.scale)
            self.read_scale = self.add_weight("read_scale", (), initializer=scale, **whole)
            self.write_scale = self.add_weight("write_scale", (), initializer=scale, **whole)
        self.built = True

    def call(self, streams):
        """The sub-layer's input, and the streams that its output is added to."""
        # A reloaded Keras model passes a single stream without its tuple.
        streams, n = tuple(tf.nest.flatten(streams)), self.streams
        if len(streams) != n:
            raise ValueError(f"HyperConnection got {len(streams)} streams; it was made for {n}")
        if n == 1:
            return Connection(streams[0], streams, (tf.ones([], streams[0].dtype),))
        kernel, static, scale = self._coefficients()
        if all(stream is streams[0] for stream in streams):
            return self._of_equal_streams(streams[0], kernel, static, scale)
        reads, mixes, writes = [], [], []
        for i, stream in enumerate(streams):
            row = static[i] + scale * self._by_token(stream, kernel)
            read, *mix, write = tf.split(row, n + 2, axis=-1)
            reads.append(read)
            mixes.append(mix)
            writes.append(write)
        wide = [tf.cast(stream, static.dtype) for stream in streams]
        layer_input = tf.add_n([a * s for a, s in zip(reads, wide, strict=True)])
        mixed = tuple(tf.add_n([mixes[i][j] * wide[i] for i in range(n)]) for j in range(n))
        return Connection(tf.cast(layer_input, streams[0].dtype), mixed, tuple(writes))

    def _of_equal_streams(self, stream, kernel, static, scale) -> Connection:
        """For equal streams, as at the start of the Entry Block: their coefficients add up."""
        n = self.streams
        dynamic = scale * self._by_token(stream, kernel)
        row = tf.reduce_sum(static, axis=0) + n * dynamic
        read, *mix, _ = tf.split(row, n + 2, axis=-1)
        writes = tuple(static[i, -1] + dynamic[..., -1:] for i in range(n))
        wide = tf.cast(stream, static.dtype)
        return Connection(tf.cast(read * wide, stream.dtype), tuple(m * wide for m in mix), writes)

    def _coefficients(self):
        """(kernel [d, n + 2], static [n, n + 2], scale [n + 2]): columns read, mix, write."""
        dtype = stable_dtype(self.compute_dtype)

        def kernel():
            parts = self.read_kernel, self.mix_kernel, self.write_kernel
            return tf.cast(tf.concat(parts, axis=1), self.compute_dtype)

        def static():
            parts = self.read[:, None], self.mix, self.write[:, None]
            return tf.cast(tf.concat(parts, axis=1), dtype)

        def scale():
            parts = tf.fill([1 + self.streams], self.read_scale), [self.write_scale]
            return tf.cast(tf.concat(parts, axis=0), dtype)

        return tuple(
            folded(self.read, name, make)
            for name, make in (("kernel", kernel), ("static", static), ("scale", scale))
        )

    def _by_token(self, stream, kernel) -> tf.Tensor:
        """tanh(S_bar W), [..., n + 2]: one narrow product for all coefficients of a stream."""
        # S_bar W = (S W) / RMS(S), which avoids a normalised copy of S.
        scale = inverse_rms(stream)
        return tf.tanh(tf.cast(linear(stream, kernel), scale.dtype) * scale)

    def get_config(self):
        """Constructor arguments."""
        return {
            **super().get_config(),
            "streams": self.streams,
            "sub_layer": self.sub_layer,
            "scale": self.scale,
        }
