"""DLRM row by row and pair by pair, in float64, from the weights of a model."""

import tensorflow as tf


def wide(value) -> tf.Tensor:
    """``value`` in float64; gradients reach the variable."""
    return tf.cast(tf.convert_to_tensor(value), tf.float64)


def mlp(layer, x: tf.Tensor, last: bool = False) -> tf.Tensor:
    """An MLP on one vector [d]; the activation follows the last layer only where ``last``."""
    for i, dense in enumerate(layer.layers):
        x = tf.tensordot(x, wide(dense.kernel), 1) + wide(dense.bias)
        if last or i < len(layer.layers) - 1:
            x = tf.maximum(x, 0)
    return x


def logits(model, tokens) -> tf.Tensor:
    """[B] of token groups as ``model.encoder`` returns them."""
    numeric = model.encoder.token_widths.numeric
    dim, found = model.config.dim, []
    for row in range(tokens.sequences[0].lengths.shape[0]):
        numbers, vectors = [], []
        for token, number in zip((*tokens.request, *tokens.candidate), numeric, strict=True):
            (numbers if number else vectors).append(wide(token[row]))
        for sequence in tokens.sequences:
            events = [wide(sequence.tokens[row, t]) for t in range(int(sequence.lengths[row]))]
            nothing = tf.zeros(sequence.tokens.shape[-1], tf.float64)
            vectors.append(sum(events) / len(events) if events else nothing)
        place = 0
        for i, vector in enumerate(vectors):
            if vector.shape[0] != dim:
                kernel, bias = model.projection.kernels[place], model.projection.biases[place]
                vectors[i] = tf.tensordot(vector, wide(kernel), 1) + wide(bias)
                place += 1
        first = []
        if numbers:
            first = [mlp(model.bottom, tf.concat(numbers, 0), last=True)]
        vectors = [*first, *vectors]
        dots = []
        for i in range(len(vectors)):
            dots += [tf.reduce_sum(vectors[i] * vectors[j]) for j in range(i)]
        found.append(mlp(model.tower, tf.concat([*first, tf.stack(dots)], 0))[0])
    return tf.stack(found)
