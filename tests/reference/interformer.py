"""InterFormer row by row and token by token, in float64, from the weights of a model."""

import math

import tensorflow as tf

from tests.reference.dlrm import mlp, wide
from tests.reference.hiformer import attention, times
from tests.reference.hstu import layer_norm


def turned(x: tf.Tensor, position: int, heads: int) -> tf.Tensor:
    """A query or key [d] whose pairs of channels are rotated, head by head."""
    found = []
    for head in tf.split(x, heads):
        a, b = tf.split(head, 2)
        angles = [position * 10_000.0 ** (-i / a.shape[0]) for i in range(a.shape[0])]
        cosine = tf.constant([math.cos(angle) for angle in angles], tf.float64)
        sine = tf.constant([math.sin(angle) for angle in angles], tf.float64)
        found += [a * cosine - b * sine, a * sine + b * cosine]
    return tf.concat(found, 0)


def attend(layer, queries: list, context: list) -> list:
    """Multi-head attention of ``queries`` to all of ``context``."""
    asked = [times(x, layer.query) for x in queries]
    keys = [times(x, layer.key) for x in context]
    if layer.rotary:
        asked = [turned(q, i, layer.heads) for i, q in enumerate(asked)]
        keys = [turned(k, i, layer.heads) for i, k in enumerate(keys)]
    values = [times(x, layer.value) for x in context]
    read = [attention(q, keys, values, layer.heads) for q in asked]
    return [times(x, layer.output_kernel) for x in read]


def gated(gate, x: tf.Tensor) -> tf.Tensor:
    return x / (1 + tf.exp(-mlp(gate, x)))


def of_features(cross, x: list) -> list:
    """X_sum."""
    normed = [layer_norm(cross.feature_norm, token) for token in x]
    compress = wide(cross.compress)
    return [
        gated(cross.feature_gate, sum(compress[i, j] * token for i, token in enumerate(normed)))
        for j in range(cross.cls_tokens)
    ]


def of_sequence(cross, s: list) -> list:
    """S_sum; None for an event or a pooled token that does not exist."""
    s = [layer_norm(cross.sequence_norm, token) for token in s]
    cls, events = s[: cross.cls_tokens], s[cross.cls_tokens :]
    pooled: list = [None] * cross.pma_tokens
    if events:
        pooled = attend(cross.pool, list(tf.unstack(wide(cross.queries))), events)
    recent = [events[i] if i < len(events) else None for i in range(cross.recent_tokens)]
    summary = [*cls, *pooled, *recent]
    return [None if token is None else gated(cross.sequence_gate, token) for token in summary]


def encode(layer, x: list, s: list, x_sum: list, s_sum: list) -> tuple[list, list]:
    """One layer."""
    normed = [layer_norm(layer.interaction_norm, token) for token in x]
    every = [*normed, *(token for token in s_sum if token is not None)]
    read = attend(layer.interaction, normed, every)
    x = [token + more for token, more in zip(x, read, strict=True)]
    x = [token + mlp(layer.mlp, layer_norm(layer.mlp_norm, token)) for token in x]
    width = x[0].shape[0]
    matrix = tf.reshape(mlp(layer.personal, tf.concat(x_sum, 0)), [width, width])
    s = [token + tf.tensordot(layer_norm(layer.personal_norm, token), matrix, 1) for token in s]
    normed = [layer_norm(layer.attention_norm, token) for token in s]
    read = attend(layer.attention, normed, normed)
    return x, [token + more for token, more in zip(s, read, strict=True)]


def logits(model, tokens) -> tf.Tensor:
    """[B] of token groups as ``model.encoder`` returns them: real events only, no padding."""
    kernels, biases, found = model.projection.kernels, model.projection.biases, []
    dim = model.config.dim

    def projected(token, group):
        return times(wide(token), kernels[group]) + wide(biases[group])

    for row in range(tokens.sequences[0].lengths.shape[0]):
        features = [*tokens.request, *tokens.candidate]
        x = [projected(token[row], i) for i, token in enumerate(features)]
        lengths = [int(sequence.lengths[row]) for sequence in tokens.sequences]
        x_sum = of_features(model.crosses[0], x)
        s = list(x_sum)
        for ago in range(max(lengths)):
            parts = [
                projected(sequence.tokens[row, length - 1 - ago], len(x) + i)
                if ago < length
                else tf.zeros(dim, tf.float64)
                for i, (sequence, length) in enumerate(zip(tokens.sequences, lengths, strict=True))
            ]
            joined = layer_norm(model.merge.norm, tf.concat(parts, 0))
            s.append(mlp(model.merge.compress, joined * mlp(model.merge.mask, joined)))
        if model.config.positions == "learned":
            s = [token + wide(model.places)[i] for i, token in enumerate(s)]
        s_sum = of_sequence(model.crosses[0], s)
        for layer, cross in zip(model.stack, model.crosses[1:], strict=True):
            x, s = encode(layer, x, s, x_sum, s_sum)
            x_sum, s_sum = of_features(cross, x), of_sequence(cross, s)
        nothing = tf.zeros(dim, tf.float64)
        summary = [nothing if token is None else token for token in (*x_sum, *s_sum)]
        found.append(mlp(model.tower, tf.concat(summary, 0))[0])
    return tf.stack(found)
