"""What is inside an exported SavedModel: signatures, sizes, and a ready request for each signature."""

from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from loopctr_tf.errors import UsageError
from loopctr_tf.features.inputs import Input
from loopctr_tf.features.schema import Schema
from loopctr_tf.scoring.server.model_folder import read_versions

_SAMPLE_LENGTH = 2
"""Size, in a sample request, of dimensions that may be any: rows, candidates, events."""


def inspect_saved_model(path: str | Path) -> dict[str, Any]:
    """Signatures, sizes and sample requests of an export, read without loading the model.

    Args:
      path: the export (``models/loopctr/1``), or a folder of versions, of which the newest is taken.

    Returns:
      ``path``; ``bytes`` (whole export), ``variable_bytes``, ``loop_block_bytes``; ``signatures``: name
      -> ``method``, ``inputs`` and ``outputs`` (name -> ``dtype``, ``shape`` with -1 for any size) and
      ``request`` (a REST body for TensorFlow Serving; None for signatures that take a user's state).

    Raises:
      UsageError: when there is no SavedModel, or it cannot be read.
    """
    folder = _version_folder(Path(path))
    saved = SavedModel()
    try:
        saved.ParseFromString((folder / "saved_model.pb").read_bytes())
        sizes = {
            name: tf.dtypes.as_dtype(dtype).size * int(tf.TensorShape(shape).num_elements())
            for name, shape, dtype in _variables(folder)
        }
        schema = Schema.load(folder / "assets" / "schema.yaml")
    except (DecodeError, OSError, ValueError, tf.errors.OpError) as error:
        problem = " ".join(str(error).split())[:200]
        raise UsageError(f"{str(folder)!r} is not an export of this library: {problem}") from error
    signatures = {
        name: _signature(name, definition, schema)
        for name, definition in sorted(saved.meta_graphs[0].signature_def.items())
        if not name.startswith("__")
    }
    return {
        "path": str(folder),
        "bytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        "variable_bytes": sum(sizes.values()),
        "loop_block_bytes": sum(size for name, size in sizes.items() if "loop_block" in name),
        "signatures": signatures,
    }


def _version_folder(path: Path) -> Path:
    if (path / "saved_model.pb").is_file():
        return path
    versions = read_versions(path) if path.is_dir() else {}
    exported = [number for number in versions if (versions[number] / "saved_model.pb").is_file()]
    if not exported:
        raise UsageError(
            f"{str(path)!r} holds no SavedModel and no version of one; make it with `loopctr export`"
        )
    return versions[max(exported)]


def _variables(folder: Path):
    reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
    dtypes = reader.get_variable_to_dtype_map()
    for name, shape in reader.get_variable_to_shape_map().items():
        if name.startswith("parameters/"):
            yield name, shape, dtypes[name]


def _signature(name: str, definition, schema: Schema) -> dict[str, Any]:
    inputs, outputs = (
        {
            key: {
                "dtype": tf.dtypes.as_dtype(info.dtype).name,
                "shape": [dimension.size for dimension in info.tensor_shape.dim],
            }
            for key, info in sorted(infos.items())
        }
        for infos in (definition.inputs, definition.outputs)
    )
    return {
        "method": definition.method_name,
        "inputs": inputs,
        "outputs": outputs,
        "request": _request(name, inputs, schema),
    }


def _request(name: str, inputs: dict[str, dict], schema: Schema) -> dict[str, Any] | None:
    """A body for POST /v1/models/NAME:predict (:classify and :regress for tf.Example)."""
    samples = {name: each.sample for name, each in schema.inputs.items()} | {"refine_top_k": 1}
    samples |= {name: _SAMPLE_LENGTH for name, each in schema.inputs.items() if each.is_length}
    if set(inputs) == {"inputs"}:
        # A row of tf.Example: one value a global feature, lists without their length.
        example = {
            key: [samples[key]] * _list_size(each) if each.is_list else samples[key]
            for key, each in schema.inputs.items()
            if not each.is_length
        }
        for each in schema.inputs.values():
            if each.counts_name:
                example[each.counts_name] = [1] * _SAMPLE_LENGTH
        return {"signature_name": name, "examples": [example]}
    if any(key not in samples for key in inputs):
        return None
    return {
        "signature_name": name,
        "inputs": {key: _filled(samples[key], info["shape"]) for key, info in inputs.items()},
    }


def _list_size(each: Input) -> int:
    """Values of a list in a sample tf.Example: one an event."""
    return _SAMPLE_LENGTH if each.length_name else 1


def _filled(value: Any, shape: list[int]) -> Any:
    for size in reversed(shape):
        value = [value] * (_SAMPLE_LENGTH if size < 0 else size)
    return value
