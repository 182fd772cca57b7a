"""A small model with every kind of signature, and its answers worked out in NumPy."""

import shutil
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from loopctr_tf.features.inputs import BATCH

VALUES = {"a": 1.0, "b": 2.0, "c": 3.0}
ECHO_TYPES = [
    tf.float16,
    tf.bfloat16,
    tf.float32,
    tf.float64,
    tf.int8,
    tf.int16,
    tf.int32,
    tf.int64,
    tf.uint8,
    tf.uint16,
    tf.uint32,
    tf.uint64,
    tf.bool,
    tf.complex64,
    tf.complex128,
    tf.string,
]


class Model(tf.Module):
    """logit = bias + user + item + 0.01 * sum of the history + 0.1 * price."""

    def __init__(self, bias: float):
        super().__init__()
        self.bias = tf.Variable(bias)
        self.table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(list(VALUES), list(VALUES.values())), 0.0
        )

    def _user(self, user_id, history, history_length):
        good = (history_length >= 0) & (history_length <= tf.shape(history)[1])
        check = tf.debugging.Assert(
            tf.reduce_all(good), ["history_length is beyond the data:", history_length]
        )
        with tf.control_dependencies([check]):
            mask = tf.sequence_mask(history_length, tf.shape(history)[1], tf.float32)
        events = tf.reduce_sum(self.table.lookup(history) * mask, axis=1)
        return self.bias + self.table.lookup(user_id) + 0.01 * events

    def pointwise(self, user_id, item_id, history, history_length, price):
        logit = self._user(user_id, history, history_length) + self.table.lookup(item_id)
        return {"probability": tf.sigmoid(logit + 0.1 * price)}

    def rank(self, user_id, item_id, history, history_length, price):
        user = self._user(user_id, history, history_length)
        logit = user[:, None] + self.table.lookup(item_id) + 0.1 * price
        return {"probability": tf.sigmoid(logit)}

    def cascade(self, user_id, item_id, history, history_length, price, refine_top_k):
        first = self.rank(user_id, item_id, history, history_length, price)["probability"]
        order = tf.argsort(tf.argsort(-first, axis=1), axis=1)
        depth = tf.cast(order < refine_top_k[:, None], tf.int32)
        return {"probability": first + tf.cast(depth, tf.float32), "depth": depth}

    def _parsed(self, inputs):
        spec = {
            "user_id": tf.io.FixedLenFeature([], tf.string, ""),
            "price": tf.io.FixedLenFeature([], tf.float32),
        }
        row = tf.io.parse_example(inputs, spec)
        return tf.sigmoid(self.bias + self.table.lookup(row["user_id"]) + 0.1 * row["price"])

    def classify(self, inputs):
        positive = self._parsed(inputs)
        labels = tf.tile([["0", "1"]], [tf.size(positive), 1])
        return {"classes": labels, "scores": tf.stack([1 - positive, positive], axis=1)}

    def regress(self, inputs):
        return {"outputs": self._parsed(inputs)}

    def echo(self, **values):
        return {name: tf.identity(value) for name, value in values.items()}

    def numbered(self, item_id, hist, hist_length):
        """Answers with the ids' last digits, which doubles beyond 2^53 lose."""
        real = tf.sequence_mask(hist_length, tf.shape(hist)[1], tf.int64)
        digits = item_id % 1000 + tf.reduce_sum(hist % 1000 * real, axis=1)
        return {"probability": tf.cast(digits, tf.float32)}

    def dense(self, x, anything):
        return {"total": tf.reduce_sum(x, axis=1), "anything": tf.identity(anything)}


def _spec(name, shape, dtype):
    return tf.TensorSpec(shape, dtype, name=name)


def save(folder: Path, bias: float = 0.0) -> Path:
    """Writes a version; Classify and Regress can be called on it."""
    model = Model(bias)
    user = {
        "user_id": _spec("user_id", [None], tf.string),
        "history": _spec("history", [None, None], tf.string),
        "history_length": _spec("history_length", [None], tf.int32),
    }
    row = {
        "item_id": _spec("item_id", [None], tf.string),
        "price": _spec("price", [None], tf.float32),
    }
    candidates = {
        "item_id": _spec("item_id", [None, None], tf.string),
        "price": _spec("price", [None, None], tf.float32),
    }
    top_k = {"refine_top_k": _spec("refine_top_k", [None], tf.int32)}
    inputs = {"inputs": _spec("inputs", [None], tf.string)}
    echoed = {f"x_{t.name}": _spec(f"x_{t.name}", [None, None], t) for t in ECHO_TYPES}
    numbered = {
        "item_id": _spec("item_id", [None], tf.int64),
        "hist": _spec("hist", [None, None], tf.int64),
        "hist_length": _spec("hist_length", [None], tf.int32),
    }
    dense = {
        "x": _spec("x", [None, 3], tf.float32),
        "anything": _spec("anything", None, tf.int64),
    }
    made = {
        "serving_default": (model.pointwise, {**user, **row}),
        "rank_loop_0": (model.rank, {**user, **candidates}),
        "cascade": (model.cascade, {**user, **candidates, **top_k}),
        "classify": (model.classify, inputs),
        "regress": (model.regress, inputs),
        "echo": (model.echo, echoed),
        "numbered": (model.numbered, numbered),
        "dense": (model.dense, dense),
    }
    model.functions = {
        name: tf.function(method).get_concrete_function(**specs)
        for name, (method, specs) in made.items()
    }
    draft = folder.parent / f"{folder.name}.draft"
    tf.saved_model.save(model, str(draft), signatures=model.functions)
    updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(str(draft))
    for name in ("classify", "regress"):
        updater.replace_method_name(name, f"tensorflow/serving/{name}")
    updater.save()
    _name_axes(draft / "saved_model.pb")
    draft.rename(folder)
    return folder


def _name_axes(path: Path) -> None:
    """Writes the names of the history's axes into the signatures, as an export does."""
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for signature in saved.meta_graphs[0].signature_def.values():
        for name in {"history", "hist"} & set(signature.inputs):
            batch, events = signature.inputs[name].tensor_shape.dim
            batch.name, events.name = BATCH, f"{name}_length"
    path.write_bytes(saved.SerializeToString())


def copy(version: Path, to: Path) -> Path:
    """Puts a saved version into a folder of versions, whole at once."""
    draft = to.parent / f"{to.name}.draft"
    shutil.copytree(version, draft)
    return draft.rename(to)


def probability(rows: dict, bias: float = 0.0) -> np.ndarray:
    """serving_default, row by row; histories are lists without padding."""
    found = []
    for user, item, history, price in zip(
        rows["user_id"], rows["item_id"], rows["history"], rows["price"], strict=True
    ):
        events = sum(VALUES.get(event, 0.0) for event in history)
        logit = bias + VALUES.get(user, 0.0) + VALUES.get(item, 0.0) + 0.01 * events + 0.1 * price
        found.append(1 / (1 + np.exp(-logit)))
    return np.array(found)
