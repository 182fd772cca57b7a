"""The Loop Block: one Transformer block under the asymmetric prefix mask, applied again and again."""

import tf_keras as keras

from loopctr_tf.layers.attention import KeysValues
from loopctr_tf.layers.block import Streams, TransformerBlock


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
        likes = sequence[0], global_tokens[0]

        def attend(tokens, values):
            keys = [self.attention.project_keys(x) for x in tokens]
            shown = self.attention.keys_values_by_head(keys[0], values[0], likes[0], mask)
            own = self.attention.keys_values_by_head(keys[1], values[1], likes[1], sink=False)
            return [
                self.attention.attend(tokens[0], likes[0], shown),
                self.attention.attend(tokens[1], likes[1], shown, own),
            ], None

        groups, _, counted = self.transform(
            [sequence, global_tokens], [mask, None], attend, training
        )
        return tuple(groups), counted

    def step_globals(self, tokens: Streams, sequence: KeysValues, training=None):
        """The candidates' half, n tensors [R, N, G, d]: (streams, statistics [2, 2, E])."""
        like = tokens[0]

        def attend(x, values):
            own = self.attention.keys_values_by_head(
                self.attention.project_keys(*x), *values, like, sink=False
            )
            return [self.attention.attend(*x, like, sequence, own)], None

        (tokens,), _, counted = self.transform([tokens], [None], attend, training)
        return tokens, counted
