"""What tests ask of the session's exports, and the answers that Keras gives."""

import shutil
from pathlib import Path

import numpy as np
import tensorflow as tf

DEPTHS = range(3)
"""Depths of the session's export: one more than its model is trained with."""

ROW_SIGNATURES = ["serving_default", f"loop_{DEPTHS[-1]}", "all_depths"]
"""The served depth, one by its name, and all in one: each further signature takes seconds to trace."""


def tensors(rows) -> dict[str, tf.Tensor]:
    return {name: tf.constant(value) for name, value in rows.items()}


def with_moved_weights(export: Path, folder: Path, by: float = 0.1) -> Path:
    """A copy of an export, ``by`` added to every weight: other scores without another trace."""
    shutil.copytree(export, folder)
    stored = tf.train.load_checkpoint(str(export / "variables" / "variables"))
    moved = {name: stored.get_tensor(name) for name in stored.get_variable_to_shape_map()}
    for name, value in moved.items():
        if getattr(value, "dtype", None) == np.float32:
            moved[name] = value + np.float32(by)
    tf.raw_ops.SaveV2(
        prefix=str(folder / "variables" / "variables"),
        tensor_names=list(moved),
        shape_and_slices=[""] * len(moved),
        tensors=list(moved.values()),
    )
    return folder


def expected(tested, signature) -> np.ndarray:
    probabilities = tested[1].probabilities
    if signature == "all_depths":
        return probabilities
    return probabilities[:, 0 if signature == "serving_default" else int(signature[-1])]
