"""LoopCTR's user side computed once: the two-sided protocol on stored keys and values.

Sequence tokens never depend on a candidate (eq. 4), at any depth; at zero loops neither do the user's
and the context's tokens, nor what they add to the tower's first layer.
"""

import tensorflow as tf

from loopctr_tf.layers import KeysValues, MoEAttention
from loopctr_tf.layers.common import flat
from loopctr_tf.models.chunks import rank_in_chunks
from loopctr_tf.models.encoder import TokenGroups
from loopctr_tf.models.loopctr.loops import EncodedRows, join_tokens, merge_streams
from loopctr_tf.models.two_sided import State


class CachedUser:
    """Overrides the two-sided protocol; mixed into LoopCTR.

    A state at depth i, with T tokens of all sequences (``num_queries`` for a compressed one), width d, n
    streams, G_u user and context features and a tower of first width h:

    - ``mask``: bool [R, T], False at padding.
    - ``keys``, ``values``: [R, i + 1, T, d], what global tokens attend to in loop 1..i and the Exit.
    - ``tokens``: user and context tokens after Entry, [R, n, G_u, d]; G_u is 0 at depth 0.
    - ``tower``: the user side's share of the tower's first layer, [R, h].

    Stored, it takes T bytes and 2 (i + 1) T d + n G_u d + h numbers of 4 or 2 bytes each.
    """

    def encode_user(self, tokens: TokenGroups, heads: tuple[str, ...]) -> list[State]:
        """The user's side at the depths of ``heads``; the Entry Block runs once."""
        side = self.user_side(tokens)
        entered = self.entered(side, side.tokens, training=False)
        return [_user_state(self, entered, self.loops_of(head)) for head in heads]

    def state_specs(self, head: str, dtype: tf.DType) -> dict[str, tf.TensorSpec]:
        """The sizes of a full history, whatever the user's; see the class."""
        config, loops = self.config, self.loops_of(head)
        length = sum(
            config.num_queries if sequence.compress else sequence.max_length
            for sequence in self.schema.sequences
        )
        user_tokens = len(self.schema.request_features) if loops else 0
        return {
            "mask": tf.TensorSpec([None, length], tf.bool),
            "keys": tf.TensorSpec([None, loops + 1, length, config.dim], dtype),
            "values": tf.TensorSpec([None, loops + 1, length, config.dim], dtype),
            "tokens": tf.TensorSpec([None, config.streams, user_tokens, config.dim], dtype),
            "tower": tf.TensorSpec([None, self.exit_block.tower_width], dtype),
        }

    def rank(self, state: State, candidates: TokenGroups, head: str) -> tf.Tensor:
        """Probability float32 [R, N] of candidates [R, N, d_g] at the depth of ``head``.

        Candidates pass in chunks, because each attends to T tokens with every head: at T = 1024 the
        attention weights of 2,000 candidates would take a hundred times the memory of the inputs.
        """
        streams = self.candidate_tokens(candidates.candidate)
        tokens, _ = self.entry_block.encode_globals(streams, training=False)
        state = {
            name: value if value.dtype == tf.bool else tf.cast(value, self.compute_dtype)
            for name, value in state.items()
            if name != "tower"
        } | {"tower": tf.cast(state["tower"], self.exit_block.tower_dtype)}
        own = len(self.schema.candidate_features) + state["tokens"].shape[2]
        weights = (tf.shape(state["mask"])[1] + own) * own * self.config.heads

        def score(streams):
            return _rank_chunk(self, state, tuple(streams), self.loops_of(head))

        return rank_in_chunks(tokens, weights, score)


def _user_state(model, entered: EncodedRows, loops: int) -> State:
    sequence, visible = entered.sequence, []
    for iteration in range(loops):
        block = model.loop_block_of(iteration)
        sequence, keys_values, _ = block.attend_within(sequence, entered.mask, training=False)
        visible.append(keys_values)
    exit_block, merged = model.exit_block, merge_streams(sequence)
    *last, _ = exit_block.keys_values(merged, entered.mask)
    visible.append([tf.reshape(x, tf.shape(merged)) for x in last])
    keys, values = (tf.stack(tensors, axis=1) for tensors in zip(*visible, strict=True))

    rows = tf.shape(entered.mask)[0]
    width, streams = model.config.dim, model.config.streams
    tokens = tf.zeros(tf.stack([rows, streams, 0, width]), keys.dtype)
    tower = tf.zeros(tf.stack([rows, 1, exit_block.tower_width]), exit_block.tower_dtype)
    if entered.extra is not None:
        tower += exit_block.extra_input(entered.extra)
    if entered.tokens and loops:
        tokens = tf.stack([stream[:, 0] for stream in entered.tokens], axis=1)
    elif entered.tokens:
        # At depth 0 a user's token meets no candidate, not in the Exit either.
        attended = exit_block.attention.keys_values_by_head(*last, merged, entered.mask)
        read, _ = exit_block.attend(merge_streams(entered.tokens), attended, training=False)
        tower += exit_block.tower_input(read)
    return {
        "mask": entered.mask,
        "keys": keys,
        "values": values,
        "tokens": tokens,
        "tower": tower[:, 0],
    }


def _rank_chunk(model, state: State, tokens, loops: int) -> tf.Tensor:
    exit_block = model.exit_block
    first = len(model.schema.request_features)
    if loops:
        user = tuple(stream[:, None] for stream in tf.unstack(state["tokens"], axis=1))
        tokens, first = join_tokens(user if first else (), tokens), 0
    for iteration in range(loops):
        block = model.loop_block_of(iteration)
        attended = _attended(block.attention, state, iteration)
        tokens, _ = block.step_globals(tokens, attended, training=False)
    attended = _attended(exit_block.attention, state, loops)
    read, _ = exit_block.attend(merge_streams(tokens), attended, training=False)
    tower = exit_block.tower_input(read, first) + state["tower"][:, None]
    return tf.sigmoid(tf.cast(exit_block.finish(tower), tf.float32))


def _attended(attention: MoEAttention, state: State, place: int) -> KeysValues:
    """The stored keys and values for one attention, ready to be attended to."""
    keys, values = state["keys"][:, place], state["values"][:, place]
    return attention.keys_values_by_head(flat(keys), flat(values), keys, state["mask"])
