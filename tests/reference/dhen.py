"""DHEN row by row and vector by vector, in float64, from the weights of a model."""

import math

import tensorflow as tf

from tests.reference.dlrm import mlp, wide
from tests.reference.hstu import layer_norm
from tests.reference.vectors import combined, feature_vectors


def dot(module, x: list) -> list:
    pairs = [tf.reduce_sum(x[i] * x[j]) for i in range(len(x)) for j in range(i + 1, len(x))]
    return tf.split(mlp(module.mlp, tf.stack(pairs) / math.sqrt(module.width)), module.outputs)


def attention(module, x: list) -> list:
    parts = [tf.split(tf.tensordot(vector, wide(module.qkv), 1), 3) for vector in x]
    encoded = []
    for vector, (query, _, _) in zip(x, parts, strict=True):
        read = []
        for head, q in enumerate(tf.split(query, module.heads)):
            weights, values = [], []
            for _, key, value in parts:
                k = tf.split(key, module.heads)[head]
                weights.append(tf.exp(tf.reduce_sum(q * k) / math.sqrt(k.shape[0])))
                values.append(tf.split(value, module.heads)[head])
            total = sum(weights)
            read.append(sum(w / total * v for w, v in zip(weights, values, strict=True)))
        read = tf.tensordot(tf.concat(read, 0), wide(module.output_kernel), 1)
        h = layer_norm(module.attention_norm, vector + read)
        encoded.append(layer_norm(module.ffn_norm, h + mlp(module.ffn, h)))
    return combined(module.compression, encoded)


def cross(module, x: list) -> list:
    line = tf.concat(x, 0)
    factors = tf.tensordot(tf.tensordot(line, wide(module.down), 1), wide(module.up), 1)
    crossed = line * (factors + wide(module.bias))
    return combined(module.compression, tf.split(crossed, len(x)))


def flat_mlp(module, x: list) -> list:
    return tf.split(mlp(module.mlp, tf.concat(x, 0)), module.outputs)


MODULES = {
    "dot": dot,
    "attention": attention,
    "cross": cross,
    "linear": combined,
    "mlp": flat_mlp,
}


def interact(layer, kinds, concat: bool, x: list) -> list:
    """One layer on the vectors of a row."""
    outputs = [MODULES[kind](m, x) for kind, m in zip(kinds, layer.modules, strict=True)]
    if concat:
        found = [vector for output in outputs for vector in output]
    else:
        found = [sum(vectors) for vectors in zip(*outputs, strict=True)]
    shortcut = x if len(x) == len(found) else combined(layer.shortcut, x)
    return [layer_norm(layer.norm, new + old) for new, old in zip(found, shortcut, strict=True)]


def logits(model, tokens) -> tf.Tensor:
    """[B] of token groups as ``model.encoder`` returns them."""
    found, config = [], model.config
    for row in range(tokens.sequences[0].lengths.shape[0]):
        x = feature_vectors(model.vectors, tokens, row)
        for layer in model.stack:
            x = interact(layer, config.modules, config.ensemble == "concat", x)
        found.append(mlp(model.tower, tf.concat(x, 0))[0])
    return tf.stack(found)
