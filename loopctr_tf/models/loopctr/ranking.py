"""One user against N candidates: the user's side computed once a request, then kept or used at once.

Sequence tokens never depend on a candidate (eq. 4), at any depth; at zero loops neither do the user's
and the context's tokens, nor what they add to the tower's first layer. So a request is split in two:
what :func:`encode_user` computes from the user's side, and :func:`rank`, which adds the candidates.
"""

from typing import NamedTuple

import tensorflow as tf

from loopctr_tf.layers import KeysValues, MoEAttention
from loopctr_tf.layers.common import flat
from loopctr_tf.models.chunks import in_chunks
from loopctr_tf.models.loopctr.sandwich import SandwichModel, UserState, join_tokens, merge_streams

WEIGHTS_AT_A_TIME = 2_000_000
"""Attention weights of a chunk of candidates; 8 MB, found no slower than all at once."""


class UserCache(NamedTuple):
    """All that ranking at depth i needs to know of R users; T tokens of all sequences.

    Attributes:
      mask: bool [R, T], False at padding.
      keys, values: [R, i + 1, T, d]: what global tokens attend to in loop 1..i, then in the Exit.
      tokens: user and context tokens after Entry, [R, n, G_u, d]; G_u is 0 at depth 0.
      tower: share of the user's side in the tower's first layer, [R, h].
    """

    mask: tf.Tensor
    keys: tf.Tensor
    values: tf.Tensor
    tokens: tf.Tensor
    tower: tf.Tensor


def encode_user(model: SandwichModel, features, loops: int) -> UserCache:
    """The user's side at depth ``loops`` of user and context features [R, ...]."""
    return user_cache(model, model.encode_user(features, training=False), loops)


def user_cache(model: SandwichModel, state: UserState, loops: int) -> UserCache:
    """As :func:`encode_user`, from what the Entry Block made of the user's side."""
    sequence, shown = state.sequence, []
    for iteration in range(loops):
        block = model.loop_block_of(iteration)
        sequence, kept, _ = block.attend_within(sequence, state.mask, training=False)
        shown.append(kept)
    exit_block, merged = model.exit_block, merge_streams(sequence)
    *kept, _ = exit_block.keys_values(merged, state.mask)
    shown.append([tf.reshape(x, tf.shape(merged)) for x in kept])
    keys, values = (tf.stack(parts, axis=1) for parts in zip(*shown, strict=True))

    rows = tf.shape(state.mask)[0]
    width, streams = model.config.dim, model.config.streams
    tokens = tf.zeros(tf.stack([rows, streams, 0, width]), keys.dtype)
    tower = tf.zeros(tf.stack([rows, 1, exit_block.tower_width]), exit_block.tower_dtype)
    if state.extra is not None:
        tower += exit_block.extra_input(state.extra)
    if state.tokens and loops:
        tokens = tf.stack([stream[:, 0] for stream in state.tokens], axis=1)
    elif state.tokens:
        # At depth 0 a user's token meets no candidate, in the Exit neither.
        shown = exit_block.attention.keys_values_by_head(*kept, merged, state.mask)
        read, _ = exit_block.attend(merge_streams(state.tokens), shown, training=False)
        tower += exit_block.tower_input(read)
    return UserCache(state.mask, keys, values, tokens, tower[:, 0])


def cache_dtypes(model: SandwichModel) -> UserCache:
    """The type of each tensor of a :class:`UserCache` of ``model``."""
    dtype = model.compute_dtype
    return UserCache("bool", dtype, dtype, dtype, model.exit_block.tower_dtype)


def padded(cache: UserCache, tokens: int) -> UserCache:
    """``cache`` with padding up to ``tokens`` tokens: states of all users have one shape then."""

    def fill(tensor, axis):
        ends = [[0, 0]] * tensor.shape.rank
        ends[axis] = [0, tokens - tf.shape(cache.mask)[1]]
        filled = tf.pad(tensor, ends)
        filled.set_shape([tokens if i == axis else n for i, n in enumerate(tensor.shape)])
        return filled

    mask = fill(cache.mask, 1)
    return cache._replace(mask=mask, keys=fill(cache.keys, 2), values=fill(cache.values, 2))


def rank(model: SandwichModel, cache: UserCache, candidates, loops: int) -> tf.Tensor:
    """Probability float32 [R, N] at depth ``loops`` of item and cross features [R, N, ...]."""
    tokens = model.encode_candidates(candidates, training=False)
    return rank_tokens(model, cache, tokens, loops)


def rank_tokens(model: SandwichModel, cache: UserCache, tokens, loops: int) -> tf.Tensor:
    """As :func:`rank`, from the candidates' tokens after Entry, n tensors [R, N, G_c, d].

    Candidates go through in chunks, because each attends to T tokens with every head: at T = 1024 the
    attention weights of 2,000 candidates would take a hundred times the memory of the result's inputs.
    """
    size = tf.shape(tokens[0])[1]
    # In int64, as the product of a large batch's sizes is beyond int32.
    requests, _, own, _ = tf.unstack(tf.shape(tokens[0], tf.int64))
    own += cache.tokens.shape[2]
    seen = tf.shape(cache.mask, tf.int64)[1] + own
    weights = tf.maximum(requests * seen * own * model.config.heads, 1)
    chunk = tf.cast(tf.maximum(WEIGHTS_AT_A_TIME // weights, 1), tf.int32)

    def score(start, end):
        part = tuple(t[:, start:end] for t in tokens)
        return tf.transpose(_rank_chunk(model, cache, part, loops))

    scores = in_chunks(size, chunk, score)  # [N, R]
    scores.set_shape([None, None])
    return tf.transpose(scores)


def _rank_chunk(model: SandwichModel, cache: UserCache, tokens, loops: int) -> tf.Tensor:
    exit_block = model.exit_block
    first = len(model.schema.request_features)
    if loops:
        user = tuple(stream[:, None] for stream in tf.unstack(cache.tokens, axis=1))
        tokens, first = join_tokens(user if first else (), tokens), 0
    for iteration in range(loops):
        block = model.loop_block_of(iteration)
        shown = _shown(block.attention, cache, iteration)
        tokens, _ = block.step_globals(tokens, shown, training=False)
    shown = _shown(exit_block.attention, cache, loops)
    read, _ = exit_block.attend(merge_streams(tokens), shown, training=False)
    tower = exit_block.tower_input(read, first) + cache.tower[:, None]
    return tf.sigmoid(tf.cast(exit_block.finish(tower), tf.float32))


def cascade(model: SandwichModel, user, candidates, refine_top_k: tf.Tensor, loops: int):
    """Zero loops for all candidates, ``loops`` loops for each request's best ones.

    Args:
      model: the model.
      user: user and context features [R, ...].
      candidates: item and cross features [R, N, ...].
      refine_top_k: int32 [R]; how many of the best candidates at zero loops are scored again. More
        than N means N, fewer than 0 means 0.
      loops: depth of the second look.

    Returns:
      (probability float32 [R, N], depth int32 [R, N]).
    """
    state = model.encode_user(user, training=False)
    tokens = model.encode_candidates(candidates, training=False)
    probability = rank_tokens(model, user_cache(model, state, 0), tokens, 0)
    size = tf.shape(probability)[1]
    wanted = tf.clip_by_value(refine_top_k, 0, size)
    most = tf.reduce_max(tf.concat([wanted, [0]], axis=0))
    _, best = tf.math.top_k(probability, most)  # [R, K]
    picked = tuple(tf.gather(stream, best, axis=1, batch_dims=1) for stream in tokens)
    refined = rank_tokens(model, user_cache(model, state, loops), picked, loops)
    chosen = tf.sequence_mask(wanted, most)
    request = tf.repeat(tf.range(tf.shape(best)[0])[:, None], most, axis=1)
    places = tf.stack([request, best], axis=-1)  # [R, K, 2]
    places = tf.boolean_mask(places, chosen)
    probability = tf.tensor_scatter_nd_update(probability, places, tf.boolean_mask(refined, chosen))
    depth = tf.scatter_nd(places, tf.fill([tf.shape(places)[0]], loops), tf.shape(probability))
    return probability, depth


def _shown(attention: MoEAttention, cache: UserCache, place: int) -> KeysValues:
    """What the cache keeps for one attention, ready to be attended to."""
    keys, values = cache.keys[:, place], cache.values[:, place]
    return attention.keys_values_by_head(flat(keys), flat(values), keys, cache.mask)
