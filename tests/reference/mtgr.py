"""MTGR token by token and pair by pair, in float64: HSTU's line, another mask, a norm for each group."""

import tensorflow as tf

from tests.reference import hstu
from tests.reference.dlrm import wide
from tests.reference.hstu import Place


def logits(model, tokens) -> tf.Tensor:
    """[B] of token groups as ``model.encoder`` returns them."""
    sequences = model.schema.sequences
    causal = model.config.causal_sequences
    if causal is None:
        causal = [sequence.name for sequence in sequences if not sequence.compress]
    groups = ["request"] * bool(tokens.request) + [s.name for s in sequences] + ["candidate"]

    def sees(query: Place, key: Place) -> bool:
        if query.group == "candidate":
            return True  # itself too; there is one in each row
        if key.group == "candidate":
            return False
        if key.group in causal:
            return query.group in causal and key.position >= query.position
        return True

    def norm(layer, x: tf.Tensor, place: Place) -> tf.Tensor:
        group = groups.index(place.group)
        centred = x - tf.reduce_mean(x)
        scaled = centred / tf.sqrt(tf.reduce_mean(tf.square(centred)) + 1e-6)
        return scaled * wide(layer.gain)[group] + wide(layer.bias)[group]

    return hstu.logits(model, tokens, sees, norm)
