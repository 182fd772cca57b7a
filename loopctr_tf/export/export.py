"""The SavedModel: a model's signatures on raw features, for TensorFlow Serving, unchanged."""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
import yaml
from tensorflow.core.protobuf import saved_model_pb2

from loopctr_tf.errors import UsageError
from loopctr_tf.export.card import model_card
from loopctr_tf.export.signatures import signature_makers
from loopctr_tf.export.validity import check_mode
from loopctr_tf.export.warmup import write_warmup
from loopctr_tf.features.schema import Schema
from loopctr_tf.files import new_folder
from loopctr_tf.layers.frozen import frozen_weights

WEIGHT_TYPES = ("float32", "float16", "bfloat16")

_METHODS = {
    "classify": "tensorflow/serving/classify",
    "regress": "tensorflow/serving/regress",
}


class ServingModule(tf.Module):
    """What is saved: variables, tables and the schema, and no Keras object."""

    def __init__(self, schema_file: str):
        super().__init__(name="loopctr")
        self.schema = tf.saved_model.Asset(schema_file)

    def hold(self, functions: Iterable[tf.types.experimental.ConcreteFunction], tables) -> None:
        """Tracks the variables that ``functions`` read, by name, and the lookup tables."""
        # Not all that tracing met: weights from which others were made then are not read by the graph.
        read = {id(outside) for function in functions for outside, _ in function.graph.captures}
        used = {
            variable.name.partition(":")[0]: variable
            for function in functions
            for variable in function.variables
            if id(variable.handle) in read
        }
        self.parameters = dict(sorted(used.items()))
        self.tables = tables


def export_saved_model(
    model,
    path: str | Path,
    *,
    loops: int | None = None,
    signatures: Iterable[str] | None = None,
    bad_input: str = "reject",
    state_dtype: str = "float32",
    weights: str = "float32",
    warmup_batch_sizes: Sequence[int] = (1,),
    metrics: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a SavedModel whose signatures take raw features, ids as they are in the logs.

    The signatures are those of :mod:`loopctr_tf.export.signatures`. Only variables that a chosen
    signature reads are saved: with zero-loop signatures alone, nothing of the Loop Block.

    Args:
      model: any registered model.
      path: folder to make, e.g. ``models/loopctr/1``; the last part is the version for a server.
      loops: I, the deepest depth, of models that have loops; those of training by default.
      signatures: names to export; all by default. ``serving_default`` is always there.
      bad_input: "reject" or "repair"; see :mod:`loopctr_tf.export.validity`.
      state_dtype: "float32" or "float16", of the user states that leave and come back.
      weights: "float32", or "float16" or "bfloat16": the type in which tables and kernels are stored,
        half the bytes; the graph computes in the model's precision. Scores move a little.
      warmup_batch_sizes: sizes that a server is warmed up with, one request a signature and size;
        those of a batching server's ``allowed_batch_sizes``. Empty: no warm-up.
      metrics: ``metrics.json`` of the run, for the model card.

    Returns:
      ``path``.

    Raises:
      UsageError: when ``path`` exists, or a setting is wrong. Nothing is left at ``path`` then.
    """
    if weights not in WEIGHT_TYPES:
        raise UsageError(f"weights is {weights!r}; choose {', '.join(map(repr, WEIGHT_TYPES))}")
    heads = model.heads_to(loops)
    makers = signature_makers(model, heads, check_mode(bad_input), state_dtype)
    chosen = list(makers) if signatures is None else list(dict.fromkeys(signatures))
    for name in chosen:
        if name not in makers:
            raise UsageError(f"signature {name!r} cannot be exported; choose {', '.join(makers)}")
    chosen = list(dict.fromkeys(["serving_default", *chosen]))
    with new_folder(path) as folder, tempfile.TemporaryDirectory() as scratch:
        schema_file = Path(scratch) / "schema.yaml"
        schema_file.write_text(
            yaml.safe_dump(model.schema.to_dict(), sort_keys=False, allow_unicode=True),
            encoding="utf-8",
        )
        module = ServingModule(str(schema_file))
        with frozen_weights(weights):
            functions = {name: makers[name]() for name in chosen}
            module.hold(functions.values(), model.encoder.tables)
        tf.saved_model.save(module, str(folder), signatures=functions)
        if warmup_batch_sizes:
            write_warmup(folder, model.schema, functions, warmup_batch_sizes)
        card = folder / "assets.extra" / "model_card.md"
        card.parent.mkdir(exist_ok=True)
        card.write_text(
            model_card(model, functions, metrics=metrics, bad_input=bad_input), encoding="utf-8"
        )
        _describe_signatures(folder, model.schema)
    return Path(path)


def _describe_signatures(folder: Path, schema: Schema) -> None:
    """Adds what ``tf.saved_model.save`` cannot write: method names, and names of the inputs' axes.

    Without their methods a server refuses Classify and Regress. The axis of a sequence's events is named
    after the input that counts them, which a client reads through GetModelMetadata.
    """
    file = folder / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for graph in saved.meta_graphs:
        for name, signature in graph.signature_def.items():
            if name in _METHODS:
                signature.method_name = _METHODS[name]
            for alias, info in signature.inputs.items():
                each, axes = schema.inputs.get(alias), info.tensor_shape.dim
                if each is not None:
                    names = each.axes(ranked=len(axes) > len(each.shape))
                    for axis, axis_name in zip(axes, names, strict=True):
                        axis.name = axis_name
    file.write_bytes(saved.SerializeToString(deterministic=True))
