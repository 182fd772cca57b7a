"""OneTrans token by token and pair by pair, in float64, from the weights of a model."""

import math

import tensorflow as tf

from tests.reference.dlrm import mlp, wide


def rms_norm(layer, x: tf.Tensor) -> tf.Tensor:
    """One token [d]."""
    return x / tf.sqrt(tf.reduce_mean(tf.square(x)) + 1e-6) * wide(layer.gain)


def gelu(x: tf.Tensor) -> tf.Tensor:
    return x * (1 + tf.math.erf(x / math.sqrt(2))) / 2


def times(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    return tf.tensordot(x, kernel, 1)


def block(layer, line: list, feature: list, queries: int) -> tuple[list, list]:
    """One layer on a line of tokens, oldest first, features last.

    ``feature`` holds the index of each token's own weights, None for an event. Returns what is left of
    both when only the last ``queries`` events come out.
    """

    def weights(i: int, name: str) -> tf.Tensor:
        if feature[i] is None:
            return wide(layer.shared[name])
        return wide(layer.own[name])[feature[i]]

    normed = [rms_norm(layer.attention_norm, x) for x in line]
    keys, values = [], []
    for i, x in enumerate(normed):
        key, value = tf.split(times(x, weights(i, "key_value")), 2)
        keys.append(key)
        values.append(value)
    events = feature.count(None)
    out = []
    for i in range(max(events - queries, 0), len(line)):
        by_head = []
        query = tf.split(times(normed[i], weights(i, "query")), layer.heads)
        for h in range(layer.heads):
            scores, seen = [], []
            for j in range(i + 1):
                key = tf.split(keys[j], layer.heads)[h]
                scores.append(tf.reduce_sum(query[h] * key) / math.sqrt(key.shape[0]))
                seen.append(tf.split(values[j], layer.heads)[h])
            shares = tf.exp(tf.stack(scores) - max(scores))
            shares /= tf.reduce_sum(shares)
            by_head.append(sum(shares[j] * value for j, value in enumerate(seen)))
        x = line[i] + times(tf.concat(by_head, 0), weights(i, "output"))
        inner = gelu(times(rms_norm(layer.ffn_norm, x), weights(i, "inner")))
        out.append(x + times(inner, weights(i, "outer")))
    return out, feature[len(line) - len(out) :]


def logits(model, tokens) -> tf.Tensor:
    """[B] of token groups as ``model.encoder`` returns them: real events only, no padding."""
    config, projection, found = model.config, model.projection, []

    def projected(token, group):
        return times(wide(token), wide(projection.kernels[group])) + wide(projection.biases[group])

    features = [*tokens.request, *tokens.candidate]
    most = sum(s.max_length for s in model.schema.sequences) + len(tokens.sequences) - 1
    final = (config.final_queries or min(len(features), most)) if config.pyramid else most
    for row in range(tokens.sequences[0].lengths.shape[0]):
        line = []
        for i, sequence in enumerate(tokens.sequences):
            if i:
                line.append(wide(model.join.separator))
            length = int(sequence.lengths[row])
            for t in range(length):
                event = projected(sequence.tokens[row, t], len(features) + i)
                line.append(event + wide(model.recency[i].vectors)[length - 1 - t])
        feature = [None] * len(line) + list(range(len(features)))
        line += [projected(token[row], i) for i, token in enumerate(features)]
        for i, layer in enumerate(model.stack[:-1]):
            queries = most - i * (most - final) // (config.layers - 1)
            line, feature = block(layer, line, feature, queries)
        line, _ = block(model.stack[-1], line, feature, 0)
        line = [rms_norm(model.norm, x) for x in line]
        found.append(mlp(model.tower, tf.concat(line, 0))[0])
    return tf.stack(found)
