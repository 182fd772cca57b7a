"""The Entry Block: self-attention inside each token group, then the feed-forward network."""

import tf_keras as keras

from loopctr_tf.layers.block import Streams, TransformerBlock


@keras.utils.register_keras_serializable("loopctr_tf")
class EntryBlock(TransformerBlock):
    """Encodes token groups one by one with one set of weights (eq. 2).

    A sequence is a group; a global token is a group of its own, for which attention is the identity
    on its value. Statistics of routing are summed over everything that passes. Arguments: see
    :class:`~loopctr_tf.layers.block.TransformerBlock`.

    Input: sequences, a list of n-stream groups, each a tuple of n tensors [B, T_g, d]; masks, a list
    of [B, T_g]; globals, n tensors [..., G, d], or nothing.
    Output: (sequences, globals) in the same structure, and statistics [2 routers, 2, E].
    """

    def build(self, input_shape):
        """Creates all weights; ``input_shape`` is (sequences, masks, globals) as given to call."""
        self.build_width(input_shape[2][0][-1])

    def call(self, inputs, training=None):
        """Encodes (sequences, masks, globals)."""
        sequences, masks, global_tokens = inputs
        groups, masks = list(sequences), list(masks)
        likes = [group[0] for group in groups]

        def attend(tokens, values):
            reads = list(values)  # of a global token its own: softmax over one token is one
            for place, (like, mask) in enumerate(zip(likes, masks, strict=True)):
                x, v = tokens[place], values[place]
                keys_values = self.attention.keys_values_by_head(
                    self.attention.project_keys(x), v, like, mask
                )
                reads[place] = self.attention.attend(x, like, keys_values)
            return reads, None

        last = [global_tokens] if global_tokens else []
        groups, _, statistics = self.transform(
            [*groups, *last], [*masks, *[None] * len(last)], attend, training
        )
        encoded = groups[: len(masks)]
        return (encoded, groups[-1] if last else ()), statistics

    def encode_globals(self, tokens: Streams, training=None):
        """Global tokens alone, n tensors [..., G, d]: (streams, statistics [2, 2, E])."""
        (_, tokens), statistics = self(([], [], tokens), training=training)
        return tokens, statistics
