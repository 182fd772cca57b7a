"""Compression of a long sequence to a few tokens by learnable queries."""

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers.attention import (
    attend,
    join_heads,
    masked_keys_values,
    project_queries,
    split_heads,
)
from loopctr_tf.layers.common import RMSNorm, build, flat, linear


@keras.utils.register_keras_serializable("loopctr_tf")
class SequenceCompression(keras.layers.Layer):
    """Learnable queries cross-attend to a long sequence and take its place (section 2).

        y_q = e_q + sum_t softmax_t(e_q W_Q (norm(x_t) W_K)^T / sqrt(d / H)) (norm(x_t) W_V) W_O

    The paper specifies no more; plain projections without bias, the residual to the query and the sink
    are ours. The cost is linear in T.

    Args:
      num_queries: number of output tokens.
      heads: H, a divisor of d.
      sink: one learned null logit per head, initially zero.

    Input: x [B, T, d] and mask [B, T], False at padding. Output: [B, num_queries, d].

    >>> long, mask = tf.ones([2, 100, 8]), tf.sequence_mask([100, 3], 100)
    >>> SequenceCompression(num_queries=16)(long, mask).shape
    TensorShape([2, 16, 8])
    """

    def __init__(self, num_queries: int = 16, heads: int = 4, sink: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.num_queries, self.heads, self.use_sink = num_queries, heads, sink
        self.norm = RMSNorm(name="norm", dtype=self.dtype_policy)

    def build(self, input_shape):
        """Creates the queries [num_queries, d] and W_Q, W_K, W_V, W_O [d, d]."""
        width = input_shape[-1]
        if width % self.heads:
            raise ValueError(f"heads is {self.heads}; give a divisor of the width {width}")
        build(self.norm, input_shape)
        self.queries = self.add_weight(
            "queries",
            (self.num_queries, width),
            initializer=keras.initializers.RandomNormal(stddev=width**-0.5),
        )
        self.query_kernel, self.key_kernel, self.value_kernel, self.output_kernel = (
            self.add_weight(name, (width, width), initializer="glorot_uniform")
            for name in ("query", "key", "value", "output")
        )
        self.sink = None
        if self.use_sink:
            self.sink = self.add_weight(
                "sink", (self.heads,), initializer="zeros", experimental_autocast=False
            )
        self.built = True

    def call(self, x, mask=None):
        """Compresses ``x`` [B, T, d]."""
        normed = self.norm(flat(x))
        keys, values = (
            split_heads(linear(normed, kernel), self.heads, shaped_like=x)
            for kernel in (self.key_kernel, self.value_kernel)
        )
        own = tf.cast(self.queries, x.dtype)
        queries = project_queries(own, self.query_kernel, self.heads, shaped_like=own[None])
        # Repeated, because a product that broadcasts is not safe; see `linear`.
        queries = tf.repeat(queries, tf.shape(x)[0], axis=0)
        attended = join_heads(attend(queries, masked_keys_values(keys, values, mask, self.sink)))
        return own + tf.reshape(linear(attended, self.output_kernel), [-1, *own.shape])

    def get_config(self):
        """Constructor arguments."""
        return {
            **super().get_config(),
            "num_queries": self.num_queries,
            "heads": self.heads,
            "sink": self.use_sink,
        }
