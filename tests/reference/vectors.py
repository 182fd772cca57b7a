"""One vector for each token group of a row, in float64, and what models of vectors share."""

import tensorflow as tf

from tests.reference.dlrm import wide


def projected(layer, token, group: int) -> tf.Tensor:
    """t W_g + b_g of one token [d_g] by a GroupProjection."""
    return tf.tensordot(wide(token), wide(layer.kernels[group]), 1) + wide(layer.biases[group])


def events(sequence, row: int) -> list[tf.Tensor]:
    """The real events of one row."""
    return [wide(sequence.tokens[row, t]) for t in range(int(sequence.lengths[row]))]


def feature_vectors(layer, tokens, row: int) -> list[tf.Tensor]:
    """v_g [d] of one row: request features, candidate features, means of sequences."""
    groups = [wide(token[row]) for token in (*tokens.request, *tokens.candidate)]
    for sequence in tokens.sequences:
        real = events(sequence, row)
        nothing = tf.zeros(sequence.tokens.shape[-1], tf.float64)
        groups.append(sum(real) / len(real) if real else nothing)
    return [projected(layer.projection, group, i) for i, group in enumerate(groups)]


def combined(layer, vectors: list) -> list[tf.Tensor]:
    """Learned combinations of the vectors, one weight at a time."""
    kernel = wide(layer.kernel)
    return [
        sum(kernel[i, j] * vector for i, vector in enumerate(vectors))
        for j in range(kernel.shape[1])
    ]
