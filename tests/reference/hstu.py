"""HSTU token by token and pair by pair, in float64, from the weights of a model."""

import math

import tensorflow as tf

from tests.reference.dlrm import mlp, wide


def layer_norm(layer, x: tf.Tensor) -> tf.Tensor:
    """One token [d]."""
    centred = x - tf.reduce_mean(x)
    scaled = centred / tf.sqrt(tf.reduce_mean(tf.square(centred)) + 1e-6)
    return scaled * wide(layer.gamma) + wide(layer.beta)


def silu(x: tf.Tensor) -> tf.Tensor:
    return x / (1 + tf.exp(-x))


def relative_bias(layer, query, key) -> tf.Tensor:
    """rab of a pair, each (position, age)."""
    bias = wide(layer.position_bias)[min(max(key[0] - query[0], 0), layer.tokens)]
    if layer.time_buckets:
        bucket = 0
        if query[1] >= 0 and key[1] >= 0:
            gap = abs(query[1] - key[1])
            bucket = min(1 + int(math.log2(1 + gap)), layer.time_buckets)
        bias += wide(layer.time_bias)[bucket]
    return bias


def encode(layer, tokens: list, places: list) -> list:
    """One layer on a line of tokens; a token sees those that are not more recent than itself."""
    parts = []
    for x in tokens:
        projected = silu(tf.tensordot(layer_norm(layer.input_norm, x), wide(layer.uvqk), 1))
        parts.append(tf.split(projected, 4))
    encoded = []
    for i, x in enumerate(tokens):
        u, _, query, _ = parts[i]
        read = 0
        for j in range(len(tokens)):
            if places[j][0] < places[i][0]:
                continue
            _, value, _, key = parts[j]
            bias = relative_bias(layer, places[i], places[j])
            by_head = []
            for q, k, v in zip(
                *(tf.split(part, layer.heads) for part in (query, key, value)), strict=True
            ):
                by_head.append(silu(tf.reduce_sum(q * k) + bias) / layer.tokens * v)
            read += tf.concat(by_head, 0)
        gated = layer_norm(layer.output_norm, read) * u
        output = tf.tensordot(gated, wide(layer.output_kernel), 1) + wide(layer.output_bias)
        encoded.append(x + output)
    return encoded


def logits(model, tokens) -> tf.Tensor:
    """[B] of token groups as ``model.encoder`` returns them: real events only, no padding."""
    projection, found = model.projection, []

    def projected(token, group):
        kernel, bias = projection.kernels[group], projection.biases[group]
        return tf.tensordot(wide(token), wide(kernel), 1) + wide(bias)

    most = sum(sequence.max_length for sequence in model.schema.sequences)
    first = len(tokens.request) + len(tokens.candidate)
    for row in range(tokens.sequences[0].lengths.shape[0]):
        line = [projected(token[row], i) for i, token in enumerate(tokens.request)]
        places = [(most, -1.0)] * len(line)
        offset = 0
        for i, (spec, sequence) in enumerate(
            zip(model.schema.sequences, tokens.sequences, strict=True)
        ):
            length = int(sequence.lengths[row])
            for t in range(length):
                line.append(projected(sequence.tokens[row, t], first + i))
                age = -1.0
                if model.config.time_fields:
                    (field,) = set(model.config.time_fields) & set(sequence.numbers)
                    age = max(float(sequence.numbers[field][row, t]), 0.0)
                places.append((offset + length - 1 - t, age))
            offset += spec.max_length
        candidate = [
            projected(token[row], len(tokens.request) + i)
            for i, token in enumerate(tokens.candidate)
        ]
        line.append(sum(candidate))
        places.append((-1, 0.0))
        for layer in model.stack:
            line = encode(layer, line, places)
        found.append(mlp(model.tower, layer_norm(model.norm, line[-1]))[0])
    return tf.stack(found)
