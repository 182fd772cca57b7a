"""HSTU token by token and pair by pair, in float64, from the weights of a model."""

import math
from typing import NamedTuple

import tensorflow as tf

from tests.reference.dlrm import mlp, wide


def layer_norm(layer, x: tf.Tensor) -> tf.Tensor:
    """One token [d]."""
    centred = x - tf.reduce_mean(x)
    scaled = centred / tf.sqrt(tf.reduce_mean(tf.square(centred)) + 1e-6)
    return scaled * wide(layer.gamma) + wide(layer.beta)


def silu(x: tf.Tensor) -> tf.Tensor:
    return x / (1 + tf.exp(-x))


class Place(NamedTuple):
    """Where a token stands.

    Attributes:
      position: counted back from the row; -1 is the candidate's.
      age: -1 for a token without one.
      group: "request", the name of a sequence, or "candidate".
    """

    position: int
    age: float
    group: str


def relative_bias(layer, query: Place, key: Place) -> tf.Tensor:
    """rab of a pair that see each other."""
    bias = wide(layer.position_bias)[min(abs(key.position - query.position), layer.tokens)]
    if layer.time_buckets:
        bucket = 0
        if query.age >= 0 and key.age >= 0:
            gap = abs(query.age - key.age)
            bucket = min(1 + int(math.log2(1 + gap)), layer.time_buckets)
        bias += wide(layer.time_bias)[bucket]
    return bias


def not_more_recent(query: Place, key: Place) -> bool:
    """HSTU's mask."""
    return key.position >= query.position


def same_norm(layer, x: tf.Tensor, place: Place) -> tf.Tensor:
    """HSTU's norm, whatever the token."""
    return layer_norm(layer, x)


def encode(layer, tokens: list, places: list, sees=not_more_recent, norm=same_norm) -> list:
    """One layer on a line of tokens; ``sees(query, key)`` is its mask."""
    parts = []
    for x, place in zip(tokens, places, strict=True):
        normed = norm(layer.input_norm, x, place)
        parts.append(tf.split(silu(tf.tensordot(normed, wide(layer.uvqk), 1)), 4))
    encoded = []
    for i, x in enumerate(tokens):
        u, _, query, _ = parts[i]
        read = 0
        for j in range(len(tokens)):
            if not sees(places[i], places[j]):
                continue
            _, value, _, key = parts[j]
            bias = relative_bias(layer, places[i], places[j])
            by_head = []
            for q, k, v in zip(
                *(tf.split(part, layer.heads) for part in (query, key, value)), strict=True
            ):
                by_head.append(silu(tf.reduce_sum(q * k) + bias) / layer.tokens * v)
            read += tf.concat(by_head, 0)
        gated = norm(layer.output_norm, read, places[i]) * u
        output = tf.tensordot(gated, wide(layer.output_kernel), 1) + wide(layer.output_bias)
        encoded.append(x + output)
    return encoded


def line_of(model, tokens, row: int) -> tuple[list, list]:
    """One row's tokens [d] and their places, the candidate last: real events only, no padding."""
    projection = model.projection

    def projected(token, group):
        kernel, bias = projection.kernels[group], projection.biases[group]
        return tf.tensordot(wide(token), wide(kernel), 1) + wide(bias)

    most = sum(sequence.max_length for sequence in model.schema.sequences)
    first = len(tokens.request) + len(tokens.candidate)
    line = [projected(token[row], i) for i, token in enumerate(tokens.request)]
    places = [Place(most, -1.0, "request")] * len(line)
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
            places.append(Place(offset + length - 1 - t, age, spec.name))
        offset += spec.max_length
    line.append(
        sum(
            projected(token[row], len(tokens.request) + i)
            for i, token in enumerate(tokens.candidate)
        )
    )
    return line, [*places, Place(-1, 0.0, "candidate")]


def logits(model, tokens, sees=not_more_recent, norm=same_norm) -> tf.Tensor:
    """[B] of token groups as ``model.encoder`` returns them."""
    found = []
    for row in range(tokens.sequences[0].lengths.shape[0]):
        line, places = line_of(model, tokens, row)
        for layer in model.stack:
            line = encode(layer, line, places, sees, norm)
        found.append(mlp(model.tower, layer_norm(model.norm, line[-1]))[0])
    return tf.stack(found)
