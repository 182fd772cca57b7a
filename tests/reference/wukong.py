"""Wukong row by row and dot product by dot product, in float64, from the weights of a model."""

import tensorflow as tf

from tests.reference.dlrm import mlp, wide
from tests.reference.hstu import layer_norm
from tests.reference.vectors import combined, feature_vectors


def interact(layer, x: list) -> list:
    """One layer on the vectors of a row."""
    directions = [
        sum(wide(layer.projection)[i, k] * vector for i, vector in enumerate(x))
        for k in range(layer.rank)
    ]
    products = [tf.reduce_sum(vector * y) for vector in x for y in directions]
    machine = mlp(layer.mlp, layer_norm(layer.fm_norm, tf.stack(products)))
    found = [*tf.split(machine, layer.fm_outputs), *combined(layer.compression, x)]
    residual = x if len(x) == len(found) else combined(layer.residual, x)
    return [layer_norm(layer.norm, new + old) for new, old in zip(found, residual, strict=True)]


def logits(model, tokens) -> tf.Tensor:
    """[B] of token groups as ``model.encoder`` returns them."""
    found = []
    for row in range(tokens.sequences[0].lengths.shape[0]):
        x = feature_vectors(model.vectors, tokens, row)
        for layer in model.stack:
            x = interact(layer, x)
        found.append(mlp(model.tower, tf.concat(x, 0))[0])
    return tf.stack(found)
