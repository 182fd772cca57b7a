"""The Entry Block: self-attention inside each token group, then the feed-forward network."""

import tf_keras as keras

from loopctr_tf.layers.block import Streams, TransformerBlock


@keras.utils.register_keras_serializable("loopctr_tf")
class EntryBlock(TransformerBlock):
    """Encodes token groups separately with one set of weights (eq. 2).

    A sequence is a group; a global token is a group of its own, for which attention is the identity
    on its value. Routing statistics are summed over all groups. Arguments: see
    :class:`~loopctr_tf.layers.block.TransformerBlock`.

    Input: sequences, a list of n-stream groups, each a tuple of n tensors [B, T_g, d]; masks, a list
    of [B, T_g]; globals, n tensors [..., G, d], or nothing.
    Output: (sequences, globals) in the same structure, and statistics [2 routers, 2, E].

    >>> block = EntryBlock(heads=2, ffn_dim=16, streams=1)
    >>> history, mask = (tf.ones([3, 5, 8]),), tf.ones([3, 5], tf.bool)
    >>> ((encoded,), item), counts = block(([history], [mask], (tf.ones([3, 1, 2, 8]),)))
    >>> encoded[0].shape, item[0].shape
    (TensorShape([3, 5, 8]), TensorShape([3, 1, 2, 8]))
    """

    def build(self, input_shape):
        """Creates all weights; ``input_shape`` is (sequences, masks, globals) as passed to call."""
        self.build_width(input_shape[2][0][-1])

    def call(self, inputs, training: bool | None = None):
        """Encodes (sequences, masks, globals)."""
        sequences, masks, global_tokens = inputs
        groups, masks = list(sequences), list(masks)
        first_streams = [group[0] for group in groups]

        def attend(tokens, values):
            outputs = list(values)  # a global token's own value: softmax over one token is one
            for place, (stream, mask) in enumerate(zip(first_streams, masks, strict=True)):
                x, keys = tokens[place], self.attention.project_keys(tokens[place])
                visible = self.attention.keys_values_by_head(keys, values[place], stream, mask)
                outputs[place] = self.attention.attend(x, stream, visible)
            return outputs, None

        last = [global_tokens] if global_tokens else []
        groups, _, statistics = self.transform(
            [*groups, *last], [*masks, *[None] * len(last)], attend, training
        )
        encoded = groups[: len(masks)]
        return (encoded, groups[-1] if last else ()), statistics

    def encode_globals(self, tokens: Streams, training: bool | None = None):
        """Global tokens alone, n tensors [..., G, d]: (streams, statistics [2, 2, E])."""
        (_, tokens), statistics = self(([], [], tokens), training=training)
        return tokens, statistics
