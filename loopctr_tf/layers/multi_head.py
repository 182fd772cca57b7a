"""Plain multi-head attention, with a mask and rotary positions."""

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers.attention import attend, join_heads, masked_keys_values, split_heads
from loopctr_tf.layers.common import linear, reshape_last, stable_dtype


def rotate(x: tf.Tensor, base: float = 10_000.0) -> tf.Tensor:
    """Rotary positions: the pair (x_i, x_{i + c/2}) of token t turns by the angle t base^(-2i/c).

    The product of a query and a key then depends on the difference of their positions alone.

    Args:
      x: queries or keys [..., T, c], c even; a token's position is its place among the T.
      base: of the angles' geometric series.

    Returns:
      [..., T, c].

    Source: Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, eq. 34.

    >>> rotate(tf.constant([[1.0, 0.0], [1.0, 0.0]])).numpy().round(2)  # by 0 and by 1 radian
    array([[1.  , 0.  ],
           [0.54, 0.84]], dtype=float32)
    """
    half, stable = x.shape[-1] // 2, stable_dtype(x.dtype)
    turns = tf.cast(base, stable) ** (-tf.range(half, dtype=stable) / half)
    angles = tf.range(tf.shape(x)[-2], dtype=stable)[:, None] * turns  # [T, c / 2]
    cosine, sine = tf.cast(tf.cos(angles), x.dtype), tf.cast(tf.sin(angles), x.dtype)
    first, second = x[..., :half], x[..., half:]
    return tf.concat([first * cosine - second * sine, first * sine + second * cosine], axis=-1)


def attend_by_head(
    queries: tf.Tensor,
    keys: tf.Tensor,
    values: tf.Tensor,
    heads: int,
    mask: tf.Tensor | None = None,
    rotary: bool = False,
) -> tf.Tensor:
    """softmax(Q K^T / sqrt(d / H)) V of each head, joined; zero where all keys are masked.

    Args:
      queries: [B, Q, d].
      keys: [B, T, d]; finite at padding too, like the values.
      values: [B, T, d].
      heads: H, a divisor of d.
      mask: bool [B, T], False at padding.
      rotary: whether queries and keys are turned by their positions; see :func:`rotate`.

    Returns:
      [B, Q, d].

    >>> tokens = tf.constant([[[1.0], [3.0], [9.0]]])
    >>> mask = tf.constant([[True, True, False]])
    >>> attend_by_head(tf.zeros([1, 1, 1]), tokens, tokens, heads=1, mask=mask).numpy()
    array([[[2.]]], dtype=float32)
    """
    width = queries.shape[-1]
    q, k, v = (split_heads(x, heads, shaped_like=x) for x in (queries, keys, values))
    if rotary:
        q, k = rotate(q), rotate(k)
    q *= (width // heads) ** -0.5
    q = tf.concat([q, tf.ones_like(q[..., :1])], axis=-1)  # what the keys' mask is multiplied by
    read = attend(q, masked_keys_values(k, v, mask))  # [B, H, Q, d / H]
    return reshape_last(join_heads(read), queries, width)


@keras.utils.register_keras_serializable("loopctr_tf")
class MultiHeadAttention(keras.layers.Layer):
    """concat_h(softmax(Q_h K_h^T / sqrt(d / H)) V_h) W_O with Q = x W_Q, K = y W_K, V = y W_V.

    Args:
      heads: H, a divisor of the width d.
      rotary: whether queries and keys are turned by their positions; see :func:`rotate`.

    Weights: four matrices [d, d], without biases. Input: queries x [B, Q, d], context y [B, T, d],
    finite at padding too, and a mask of the context, bool [B, T]. Output: [B, Q, d], zero where nothing
    is visible. Source: Vaswani et al., Attention Is All You Need, section 3.2.

    >>> layer, tokens = MultiHeadAttention(heads=2), tf.ones([3, 5, 8])
    >>> read = layer(tokens, tokens, tf.sequence_mask([5, 2, 0], 5))
    >>> read.shape, float(tf.reduce_sum(abs(read[2])))
    (TensorShape([3, 5, 8]), 0.0)
    """

    def __init__(self, heads: int, rotary: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.rotary = heads, rotary

    def build(self, input_shape):
        """Creates W_Q, W_K, W_V and W_O."""
        width = input_shape[-1]
        if width % self.heads:
            raise ValueError(f"heads is {self.heads}; give a divisor of the width {width}")
        if self.rotary and width // self.heads % 2:
            raise ValueError(
                f"rotary positions turn pairs, but a head's width is {width // self.heads}; give other "
                "heads or rotary=False"
            )
        self.query, self.key, self.value, self.output_kernel = (
            self.add_weight(name, (width, width), initializer="glorot_uniform")
            for name in ("query", "key", "value", "output")
        )
        self.built = True

    def call(self, queries, context, mask=None):
        """Attention from ``queries`` to ``context``; see the class."""
        context = tf.cast(context, queries.dtype)  # Keras casts the first argument alone
        read = attend_by_head(
            linear(queries, self.query),
            linear(context, self.key),
            linear(context, self.value),
            self.heads,
            mask,
            self.rotary,
        )
        return linear(read, self.output_kernel)

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "heads": self.heads, "rotary": self.rotary}
