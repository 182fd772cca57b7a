"""One vector for each token group of a row, in float64, and what models of vectors share."""

import tensorflow as tf

from tests.reference.dlrm import wide


def row_vectors(layer, tokens, row: int) -> list[tf.Tensor]:
    """Vectors [d] of a row: projections of every feature and of the mean of a sequence's real events."""
    groups = [wide(token[row]) for token in (*tokens.request, *tokens.candidate)]
    for sequence in tokens.sequences:
        events = [wide(sequence.tokens[row, t]) for t in range(int(sequence.lengths[row]))]
        nothing = tf.zeros(sequence.tokens.shape[-1], tf.float64)
        groups.append(sum(events) / len(events) if events else nothing)
    kernels, biases = layer.projection.kernels, layer.projection.biases
    return [
        tf.tensordot(group, wide(kernel), 1) + wide(bias)
        for group, kernel, bias in zip(groups, kernels, biases, strict=True)
    ]


def combined(layer, vectors: list) -> list[tf.Tensor]:
    """Learned combinations of the vectors, one weight at a time."""
    kernel = wide(layer.kernel)
    return [
        sum(kernel[i, j] * vector for i, vector in enumerate(vectors))
        for j in range(kernel.shape[1])
    ]
