"""The Entry Block: self-attention inside each token group, then the feed-forward network."""

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers.block import Streams, TransformerBlock, flat_streams, streams_like


@keras.utils.register_keras_serializable("loopctr_tf")
class EntryBlock(TransformerBlock):
    """Encodes token groups one by one with one set of weights (eq. 2).

    A sequence is a group; a global token is a group of its own, for which attention is the identity
    on its value. Statistics of routing are summed over everything that passes. Arguments: see
    :class:`~loopctr_tf.layers.block.TransformerBlock`.

    Input: sequences, a list of n-stream groups, each a tuple of n tensors [B, T_g, d]; masks, a list
    of [B, T_g]; globals, n tensors [..., G, d].
    Output: (sequences, globals) in the same structure, and statistics [2 routers, 2, E].
    """

    def build(self, input_shape):
        """Creates all weights; ``input_shape`` is (sequences, masks, globals) as given to call."""
        self.build_width(input_shape[2][0][-1])

    def call(self, inputs, training=None):
        """Encodes (sequences, masks, globals)."""
        sequences, masks, global_tokens = inputs
        encoded, statistics = [], []
        for group, mask in zip(sequences, masks, strict=True):
            group, _, counted = self.attend_within(tuple(group), mask, training)
            encoded.append(group)
            statistics.append(counted)
        global_tokens, counted = self.encode_globals(tuple(global_tokens), training)
        return (encoded, global_tokens), tf.add_n([*statistics, counted])

    def encode_globals(self, tokens: Streams, training=None):
        """Global tokens, n tensors [..., G, d]: (streams, statistics [2, 2, E])."""
        like = tokens[0]
        connection, x, gates, attention_counts = self.read_attention(flat_streams(tokens))
        output = self.attention.attend_to_self_alone(x, gates)
        rows, ffn_counts = self.feed_forward(
            self.write(connection, output, training), training=training
        )
        return streams_like(rows, like), tf.stack([attention_counts, ffn_counts])
