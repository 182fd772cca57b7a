"""Several sequences as one line of tokens, newest event first."""

import tensorflow as tf
import tf_keras as keras


@keras.utils.register_keras_serializable("loopctr_tf")
class NewestFirst(keras.layers.Layer):
    """Joins sequences in their order, a learned separator between two, and turns the line round.

    In the line [S_1, SEP, S_2, SEP, ..., S_n] the last event of S_n is the newest. It comes out first,
    so that padding stands at the end and the newest K tokens are the first K, however long a batch is.
    An empty sequence leaves its separator.

    Input: a list of (tokens [B, T_i, d], lengths int [B]), each right-padded, oldest first.
    Output: (line [B, sum T_i + n - 1, d], number of its tokens int32 [B]).

    Weights: the separator d, with more than one sequence.

    >>> line, lengths = NewestFirst()([(tf.constant([[[1.0], [2.0], [0.0]]]), tf.constant([2]))])
    >>> line[0, :, 0].numpy(), lengths.numpy()
    (array([2., 1., 0.], dtype=float32), array([2], dtype=int32))
    """

    def build(self, input_shape):
        """Creates the separator; ``input_shape`` is that of the list."""
        self.separator = None
        if len(input_shape) > 1:
            self.separator = self.add_weight(
                "separator_token",
                (input_shape[0][0][-1],),
                initializer=keras.initializers.RandomNormal(stddev=0.02),
                experimental_autocast=False,
            )
        self.built = True

    def call(self, sequences):
        """The joined line; see the class."""
        (tokens, lengths), *newer = sequences
        count = tf.cast(lengths, tf.int32)
        line = turned(tokens, count)
        for tokens, lengths in newer:
            older = tf.reverse(line, axis=[1])  # padding, then the events up to now
            shape = tf.shape(tokens)
            separator = tf.cast(self.separator, tokens.dtype)
            separator = tf.broadcast_to(separator, tf.stack([shape[0], 1, shape[2]]))
            added = 1 + tf.cast(lengths, tf.int32)
            joined = tf.concat([older, separator, tokens], axis=1)
            # What is turned ends with the newest event; the padding before the oldest comes last.
            line = turned(joined, tf.shape(older)[1] + added)
            count += added
        return line, count


def turned(tokens: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
    """``tokens`` [B, T, d] with the first ``lengths`` of each row in reverse order.

    >>> turned(tf.constant([[[1], [2], [3]]]), tf.constant([2]))[0, :, 0].numpy()
    array([2, 1, 3], dtype=int32)
    """
    place = tf.range(tf.shape(tokens)[1])
    turned_place = lengths[:, None] - 1 - place
    source = tf.where(turned_place >= 0, turned_place, place)

    @tf.custom_gradient
    def turn(x):
        # Turned twice is as before: the gradient is a gather, where TensorFlow's would be a scatter.
        return tf.gather(x, source, axis=1, batch_dims=1), turn

    return turn(tokens)
