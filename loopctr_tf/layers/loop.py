"""The Loop Block: one Transformer block under the asymmetric prefix mask, applied repeatedly."""

import tf_keras as keras

from loopctr_tf.layers.attention import KeysValues
from loopctr_tf.layers.block import Streams, TransformerBlock


@keras.utils.register_keras_serializable("loopctr_tf")
class LoopBlock(TransformerBlock):
    """One loop (eq. 3-4): sequence tokens see sequence tokens, global tokens see everything.

    No mask matrix is built: sequence tokens attend among themselves, and global tokens to the keys of
    both. The block does not know which iteration it runs. Arguments: see
    :class:`~loopctr_tf.layers.block.TransformerBlock`.

    Input: (sequence, mask, globals): n tensors [R, T, d], [R, T], n tensors [R, N, G, d], where N
    candidates share a request's sequence (N = 1 in training).
    Output: (sequence, globals) in the same structure, and statistics [2 routers, 2, E].

    >>> block = LoopBlock(heads=2, ffn_dim=16)
    >>> sequence, mask = (tf.ones([3, 5, 8]),) * 2, tf.ones([3, 5], tf.bool)
    >>> (sequence, tokens), counts = block((sequence, mask, (tf.ones([3, 1, 4, 8]),) * 2))
    >>> sequence[0].shape, tokens[0].shape, counts.shape
    (TensorShape([3, 5, 8]), TensorShape([3, 1, 4, 8]), TensorShape([2, 2, 4]))
    """

    def build(self, input_shape):
        """Creates all weights; ``input_shape`` is (sequence, mask, globals) as passed to call."""
        self.build_width(input_shape[0][0][-1])

    def call(self, inputs, training: bool | None = None):
        """Runs one iteration."""
        sequence, mask, global_tokens = inputs
        by_head, attend_to = self.attention.keys_values_by_head, self.attention.attend

        def attend(tokens, values):
            keys = [self.attention.project_keys(x) for x in tokens]
            shared = by_head(keys[0], values[0], sequence[0], mask)
            own = by_head(keys[1], values[1], global_tokens[0], sink=False)
            return [
                attend_to(tokens[0], sequence[0], shared),
                attend_to(tokens[1], global_tokens[0], shared, own),
            ], None

        groups, _, counts = self.transform(
            [sequence, global_tokens], [mask, None], attend, training
        )
        return tuple(groups), counts

    def step_globals(self, tokens: Streams, sequence: KeysValues, training: bool | None = None):
        """The candidates' half, n tensors [R, N, G, d]: (streams, statistics [2, 2, E])."""
        first = tokens[0]

        def attend(x, values):
            keys = self.attention.project_keys(*x)
            own = self.attention.keys_values_by_head(keys, *values, first, sink=False)
            return [self.attention.attend(*x, first, sequence, own)], None

        (tokens,), _, counts = self.transform([tokens], [None], attend, training)
        return tokens, counts
