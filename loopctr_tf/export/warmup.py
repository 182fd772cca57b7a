"""The warm-up file of an export: requests that a server runs before a version takes its first caller.

A model server compiles, allocates and lays out on the first run of every signature and every batch
size, so the file holds one record of each. Values are made up and equal over a whole tensor: what
warms is the shape, and TensorProto writes such a tensor as one value, whatever its size. Sequences
are as long, and multi-valued features as wide, as the schema allows.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import prediction_log_pb2

from loopctr_tf.errors import UsageError
from loopctr_tf.features.schema import Schema
from loopctr_tf.scoring.names import CLASSIFY, ENCODE_USER, RANK_CACHED, REGRESS, STATE_VERSION
from loopctr_tf.scoring.server.warmup import FILE, MAX_RECORDS

BATCH_SIZES = (1, 8, 32, 128)
"""Rows, or requests, of the records: ``allowed_batch_sizes`` of ``serving/batching.config``."""
CANDIDATES = 100
"""Candidates of a request in the records of ranking signatures."""

_EXAMPLE_LOGS = {CLASSIFY: "classify_log", REGRESS: "regress_log"}

Functions = Mapping[str, Callable[..., dict[str, tf.Tensor]]]
PredictionLog = prediction_log_pb2.PredictionLog


class _Column(NamedTuple):
    """One input: its value, its type, its sizes behind rows and candidates, and whose it is."""

    value: Any
    dtype: str
    sizes: tuple[int, ...]
    candidate: bool


def signature_specs(function: Callable) -> dict[str, tf.TensorSpec]:
    """Input name -> TensorSpec of a ConcreteFunction, freshly traced or of a loaded SavedModel."""
    positional, keywords = function.structured_input_signature
    return {**{spec.name: spec for spec in positional}, **keywords}


def write_warmup(
    folder: str | Path,
    schema: Schema,
    functions: Functions,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    candidates: int = CANDIDATES,
    model_name: str = "loopctr",
) -> int:
    """Writes :func:`warmup_requests` into a SavedModel as ``assets.extra/tf_serving_warmup_requests``.

    May be called on a folder that is still being made, and on a finished one, to warm other sizes::

        write_warmup(path, schema, tf.saved_model.load(path).signatures, batch_sizes=(1, 64))

    Args:
      folder: the folder that holds ``saved_model.pb``.
      schema, functions, batch_sizes, candidates, model_name: of :func:`warmup_requests`.

    Returns:
      How many records were written.

    Raises:
      UsageError: as :func:`warmup_requests` does; nothing is written then.
    """
    records = warmup_requests(schema, functions, batch_sizes, candidates, model_name)
    path = Path(folder) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record.SerializeToString())
    return len(records)


def warmup_requests(
    schema: Schema,
    functions: Functions,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    candidates: int = CANDIDATES,
    model_name: str = "loopctr",
) -> list[PredictionLog]:
    """One PredictionLog per signature and batch size, signature by signature.

    ``classify`` and ``regress`` become ClassificationRequests and RegressionRequests, all others
    PredictRequests. A state for ``rank_cached_loop_i`` needs the model's own ``state_version`` and
    the sizes of its tensors; ``encode_user_loop_i`` is run on one user for them. Where it is not
    among ``functions``, ``rank_cached_loop_i`` gets no record.

    Args:
      schema: of the model's features.
      functions: signature name -> its ConcreteFunction, as it was traced for the export or as
        ``tf.saved_model.load(folder).signatures`` gives it.
      batch_sizes: rows of pointwise signatures, requests R of ranking ones.
      candidates: N of ranking signatures, [R, N].
      model_name: of the requests; a server runs them on the model that it is loading.

    Raises:
      UsageError: for sizes that are not whole numbers of 1 or more, and for more records than a
        model server reads (1000).
    """
    for size in (*batch_sizes, candidates):
        if type(size) is not int or size < 1:
            raise UsageError(
                f"batch_sizes are {tuple(batch_sizes)!r} and candidates {candidates!r}; "
                "give whole numbers of 1 or more"
            )
    columns = _columns(schema)
    columns["refine_top_k"] = _Column(max(1, candidates // 10), "int32", (), candidate=False)
    records = []
    for name, function in functions.items():
        known = columns
        if name.startswith(RANK_CACHED):
            encode = functions.get(ENCODE_USER + name.removeprefix(RANK_CACHED))
            if encode is None:
                continue
            known = {**columns, **_state(encode, columns)}
        for rows in batch_sizes:
            record = PredictionLog()
            if name in _EXAMPLE_LOGS:
                request = getattr(record, _EXAMPLE_LOGS[name]).request
                request.input.example_list.examples.extend([_example(schema, columns)] * rows)
            else:
                request = record.predict_log.request
                for alias, tensor in _inputs(function, known, rows, candidates).items():
                    request.inputs[alias].CopyFrom(tensor)
            request.model_spec.name = model_name
            request.model_spec.signature_name = name
            records.append(record)
    if len(records) > MAX_RECORDS:
        raise UsageError(
            f"{len(records)} warm-up records are more than the {MAX_RECORDS} that a model server "
            f"reads; give fewer batch_sizes than {len(batch_sizes)}, or export fewer signatures"
        )
    return records


def _columns(schema: Schema) -> dict[str, _Column]:
    """Every input of the schema, at full length and width."""
    return {
        name: _Column(each.sample, each.dtype, each.full_sizes, each.candidate)
        for name, each in schema.inputs.items()
    }


def _state(encode: Callable[..., dict[str, tf.Tensor]], columns) -> dict[str, _Column]:
    """Columns of a user's state: the version and the sizes of a real one, and zeros."""
    user = {
        name: tf.fill((1, *columns[name].sizes), tf.constant(columns[name].value, spec.dtype))
        for name, spec in signature_specs(encode).items()
    }
    state = encode(**user)
    version = _Column(state[STATE_VERSION].numpy()[0], "string", (), candidate=False)
    zeros = {
        name: _Column(value.dtype == tf.bool, value.dtype.name, tuple(value.shape[1:]), False)
        for name, value in state.items()
    }
    return {**zeros, STATE_VERSION: version}


def _inputs(
    function: Callable, columns: Mapping[str, _Column], rows: int, candidates: int
) -> dict[str, tensor_pb2.TensorProto]:
    tensors = {}
    for alias, spec in signature_specs(function).items():
        column = columns[alias]
        # In a ranking signature an item's feature has one axis more than in a pointwise one.
        listed = column.candidate and spec.shape.rank == len(column.sizes) + 2
        shape = (rows, *((candidates,) if listed else ()), *column.sizes)
        tensors[alias] = tf.make_tensor_proto(column.value, tf.as_dtype(column.dtype), shape)
    return tensors


def _example(schema: Schema, columns: Mapping[str, _Column]) -> tf.train.Example:
    """A row of the schema; lengths follow from the lists."""
    example = tf.train.Example()
    for field in schema.all_fields():
        column, each = columns[field.name], schema.inputs[field.name]
        if each.counts_name:
            counts = example.features.feature[each.counts_name].int64_list
            counts.value.extend([each.width] * each.max_length)
        values = [column.value] * math.prod(column.sizes)
        feature = example.features.feature[field.name]
        if column.dtype == "float32":
            feature.float_list.value.extend(values)
        elif column.dtype == "string":
            feature.bytes_list.value.extend(tf.compat.as_bytes(value) for value in values)
        else:
            feature.int64_list.value.extend(values)
    return example
