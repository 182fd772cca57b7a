"""AutoInt feature by feature and head by head, in float64, from the weights of a model."""

import tensorflow as tf

from tests.reference.dlrm import mlp, wide
from tests.reference.vectors import feature_vectors


def interacted(layer, features: list[tf.Tensor]) -> list[tf.Tensor]:
    """One interacting layer on the features [d] of one row."""
    kernels = [wide(part) for part in tf.split(tf.convert_to_tensor(layer.kernel), 4, axis=1)]
    parts = [[tf.tensordot(x, kernel, 1) for kernel in kernels] for x in features]
    by_head = [[tf.split(part, layer.heads) for part in x[:3]] for x in parts]
    outputs = []
    for m in range(len(features)):
        read = []
        for h in range(layer.heads):
            query = by_head[m][0][h]
            scores = [tf.exp(tf.reduce_sum(query * other[1][h])) for other in by_head]
            total = sum(scores)
            pairs = zip(scores, by_head, strict=True)
            read.append(sum(score / total * other[2][h] for score, other in pairs))
        outputs.append(tf.maximum(tf.concat(read, 0) + parts[m][3], 0))
    return outputs


def logits(model, tokens) -> tf.Tensor:
    """[B] of token groups as ``model.encoder`` returns them."""
    found = []
    for row in range(tokens.candidate[0].shape[0]):
        features = feature_vectors(model.vectors, tokens, row)
        for layer in model.stack:
            features = interacted(layer, features)
        found.append(mlp(model.tower, tf.concat(features, 0))[0])
    return tf.stack(found)
