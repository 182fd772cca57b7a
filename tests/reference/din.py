"""DIN event by event, in float64, from the weights of a model."""

import tensorflow as tf

from tests.reference.dlrm import mlp, wide
from tests.reference.vectors import events, projected


def activation(unit, candidate: tf.Tensor, event: tf.Tensor) -> tf.Tensor:
    """a(h, t) by the network as the paper has it, on all four parts."""
    x = tf.concat([candidate, event, candidate - event, candidate * event], 0)
    x = tf.tensordot(x, wide(unit.kernel), 1) + wide(unit.bias)
    for dense in unit.rest.layers:
        x = 1 / (1 + tf.exp(-x))
        x = tf.tensordot(x, wide(dense.kernel), 1) + wide(dense.bias)
    return x[0]


def logits(model, tokens) -> tf.Tensor:
    """[B] of token groups as ``model.encoder`` returns them."""
    found = []
    for row in range(tokens.sequences[0].lengths.shape[0]):
        request = [wide(token[row]) for token in tokens.request]
        features = [wide(token[row]) for token in tokens.candidate]
        candidate = projected(model.projection, tf.concat(features, 0), 0)
        interests = []
        for i, (unit, sequence) in enumerate(zip(model.units, tokens.sequences, strict=True)):
            interest = tf.zeros(model.config.dim, tf.float64)
            for event in events(sequence, row):
                event = projected(model.projection, event, 1 + i)
                interest += activation(unit, candidate, event) * event
            interests.append(interest)
        found.append(mlp(model.tower, tf.concat([*request, *features, *interests], 0))[0])
    return tf.stack(found)
