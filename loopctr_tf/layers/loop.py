"""The Loop Block: one Transformer block under the asymmetric prefix mask, applied again and again."""

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers.attention import KeysValues
from loopctr_tf.layers.block import Streams, TransformerBlock, flat_streams, streams_like


@keras.utils.register_keras_serializable("loopctr_tf")
class LoopBlock(TransformerBlock):
    """One loop (eq. 3-4): sequence tokens see sequence tokens, global tokens see everything.

    The mask is never made: sequence tokens attend among themselves, and global tokens to the keys of
    both. The block is not told which iteration it runs. Arguments: see
    :class:`~loopctr_tf.layers.block.TransformerBlock`.

    Input: (sequence, mask, globals): n tensors [R, T, d], [R, T], n tensors [R, N, G, d], where N
    candidates share a request's sequence (N = 1 in training).
    Output: (sequence, globals) in the same structure, and statistics [2 routers, 2, E].
    """

    def build(self, input_shape):
        """Creates all weights; ``input_shape`` is (sequence, mask, globals) as given to call."""
        self.build_width(input_shape[0][0][-1])

    def call(self, inputs, training=None):
        """Runs one iteration."""
        sequence, mask, global_tokens = inputs
        sequence, shown, counted = self.attend_within(tuple(sequence), mask, training)
        global_tokens, global_counted = self.step_globals(tuple(global_tokens), shown, training)
        return (sequence, global_tokens), counted + global_counted

    def step_globals(self, tokens: Streams, sequence: KeysValues, training=None):
        """The candidates' half, n tensors [R, N, G, d]: (streams, statistics [2, 2, E])."""
        like = tokens[0]
        connection, x, gates, attention_counts = self.read_attention(flat_streams(tokens))
        own = self.attention.keys_values(x, gates, like, sink=False)
        read = self.attention.attend(x, gates, like, sequence, own)
        rows, ffn_counts = self.feed_forward(
            self.write(connection, read, training), training=training
        )
        return streams_like(rows, like), tf.stack([attention_counts, ffn_counts])
