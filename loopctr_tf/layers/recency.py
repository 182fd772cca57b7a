"""Recency embedding: how long ago an event was, counted in events."""

import tensorflow as tf
import tf_keras as keras


@keras.utils.register_keras_serializable("loopctr_tf")
class RecencyEmbedding(keras.layers.Layer):
    """Adds a learned vector for a token's age: 0 for the most recent event (ours).

    Initially zero. Ages of ``max_length`` and more share the last vector.

    Args:
      max_length: number of vectors.

    Input: tokens [B, T, d], oldest first, right-padded, and lengths int [B].
    Output: [B, T, d]; values at padding are undefined.

    >>> layer = RecencyEmbedding(max_length=5)
    >>> layer(tf.ones([2, 5, 8]), tf.constant([5, 2])).shape
    TensorShape([2, 5, 8])
    """

    def __init__(self, max_length: int, **kwargs):
        super().__init__(**kwargs)
        self.max_length = max_length

    def build(self, input_shape):
        """Creates the vectors [max_length, d]."""
        self.vectors = self.add_weight(
            "vectors",
            (self.max_length, input_shape[-1]),
            initializer="zeros",
            experimental_autocast=False,
        )
        self.built = True

    def call(self, tokens, lengths):
        """Adds the vectors to ``tokens``."""
        positions = tf.range(tf.shape(tokens)[1], dtype=tf.int32)
        age = tf.cast(lengths, tf.int32)[:, None] - 1 - positions
        vectors = tf.gather(self.vectors, tf.clip_by_value(age, 0, self.max_length - 1))
        # Cast after the gather, so that a vector's gradient is summed over the batch in float32.
        return tokens + tf.cast(vectors, tokens.dtype)

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "max_length": self.max_length}
