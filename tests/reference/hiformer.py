"""Hiformer feature by feature and pair by pair, in float64, from the weights of a model."""

import math

import tensorflow as tf

from tests.reference.dlrm import mlp, wide
from tests.reference.hstu import layer_norm


def times(x: tf.Tensor, kernel) -> tf.Tensor:
    return tf.tensordot(x, wide(kernel), 1)


def gelu(x: tf.Tensor) -> tf.Tensor:
    return x * (1 + tf.math.erf(x / math.sqrt(2))) / 2


def vectors(layer, tokens, row: int) -> list:
    """One projected vector for each feature, and for the mean of each sequence's real events."""
    groups = [token[row] for token in (*tokens.request, *tokens.candidate)]
    for sequence in tokens.sequences:
        length = int(sequence.lengths[row])
        events = [wide(sequence.tokens[row, t]) for t in range(length)]
        nothing = tf.zeros(sequence.tokens.shape[-1], tf.float64)
        groups.append(sum(events) / length if length else nothing)
    kernels, biases = layer.projection.kernels, layer.projection.biases
    return [
        times(wide(group), kernel) + wide(bias)
        for group, kernel, bias in zip(groups, kernels, biases, strict=True)
    ]


def attention(query, keys: list, values: list, heads: int) -> tf.Tensor:
    """One query [d] over keys and values [d], head by head; zero without keys."""
    if not keys:
        return tf.zeros_like(query)
    parts = (tf.split(x, heads, axis=-1) for x in (query, tf.stack(keys), tf.stack(values)))
    read = []
    for q, k, v in zip(*parts, strict=True):
        scores = tf.exp(tf.linalg.matvec(k, q) / math.sqrt(q.shape[0]))
        read.append(tf.linalg.matvec(v, scores / tf.reduce_sum(scores), transpose_a=True))
    return tf.concat(read, 0)


def projected(layer, tokens: list, composite: bool) -> list:
    """Queries, keys or values of ``tokens``."""
    if not composite:
        return [times(x, layer.kernel[i]) for i, x in enumerate(tokens)]
    x = tf.concat(tokens, 0)
    for kernel in layer.kernels:
        x = times(x, kernel)
    return tf.split(x, x.shape[0] // tokens[0].shape[0])


def encode(layer, tokens: list) -> list:
    """One layer; its first ``outputs`` tokens."""
    composite, count = layer.projection == "composite", layer.outputs or len(tokens)
    normed = [layer_norm(layer.attention_norm, x) for x in tokens]
    queries = projected(layer.query, normed if composite else normed[:count], composite)
    keys = projected(layer.key, normed, composite)
    values = projected(layer.value, normed, composite)
    encoded = []
    for i in range(count):
        read = attention(queries[i], keys, values, layer.heads)
        z = tokens[i] + times(read, layer.out.kernel[i])
        inner = times(layer_norm(layer.ffn_norm, z), layer.inner.kernel[i])
        inner = gelu(inner + wide(layer.inner.bias[i]))
        encoded.append(z + times(inner, layer.outer.kernel[i]) + wide(layer.outer.bias[i]))
    return encoded


def logits(model, tokens) -> tf.Tensor:
    """[B] of token groups as ``model.encoder`` returns them."""
    found = []
    for row in range(tokens.sequences[0].lengths.shape[0]):
        line = [wide(model.task), *vectors(model.vectors, tokens, row)]
        for layer in model.stack:
            line = encode(layer, line)
        found.append(mlp(model.tower, layer_norm(model.norm, line[0]))[0])
    return tf.stack(found)
