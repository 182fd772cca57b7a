"""What tests ask of the session's exports, and the answers that Keras gives."""

import numpy as np
import tensorflow as tf

DEPTHS = range(3)
"""Depths of the session's export: one more than its model is trained with."""

ROW_SIGNATURES = ["serving_default", *(f"loop_{depth}" for depth in DEPTHS), "all_depths"]


def tensors(rows) -> dict[str, tf.Tensor]:
    return {name: tf.constant(value) for name, value in rows.items()}


def expected(tested, signature) -> np.ndarray:
    probabilities = tested[1].probabilities
    if signature == "all_depths":
        return probabilities
    return probabilities[:, 0 if signature == "serving_default" else int(signature[-1])]
