"""DCN-V2 row by row and element by element, in float64, from the weights of a model."""

import tensorflow as tf

from tests.reference.dlrm import mlp, wide
from tests.reference.vectors import feature_vectors


def crossed(layer, start: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """One cross layer on one row [D]; its weights are U, V, b or W, b."""
    *kernels, bias = (wide(weight) for weight in layer.weights)
    inner = x
    for kernel in kernels:
        inner = tf.stack([tf.reduce_sum(inner * kernel[:, j]) for j in range(kernel.shape[1])])
    return tf.stack([start[j] * (inner[j] + bias[j]) + x[j] for j in range(x.shape[0])])


def logits(model, tokens) -> tf.Tensor:
    """[B] of token groups as ``model.encoder`` returns them."""
    found = []
    for row in range(tokens.candidate[0].shape[0]):
        start = x = tf.concat(feature_vectors(model.vectors, tokens, row), 0)
        for layer in model.crosses:
            x = crossed(layer, start, x)
        if model.config.structure == "parallel":
            x = tf.concat([x, mlp(model.deep, start, last=True)], 0)
        else:
            x = mlp(model.deep, x, last=True)
        found.append(mlp(model.logit, x)[0])
    return tf.stack(found)
