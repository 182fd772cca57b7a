"""Predict on one model, with TensorFlow Serving's messages.

The rules, their order and the messages follow tensorflow/serving's predict_util.cc and TensorFlow's
cc/saved_model/util.cc; beyond them, a tensor whose rank or known sizes differ from the
signature's is refused before the graph runs.
"""

from collections.abc import Iterable, Mapping

import grpc
import numpy as np
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import model_pb2, predict_pb2

from loopctr_tf.scoring import tensors
from loopctr_tf.scoring.names import SERVING_DEFAULT
from loopctr_tf.scoring.server.saved_model import SavedModel
from loopctr_tf.scoring.server.status import StatusError, invalid_argument


def predict(
    model: SavedModel, request: predict_pb2.PredictRequest, max_bytes: int = 1 << 30
) -> predict_pb2.PredictResponse:
    """Answers a PredictRequest.

    Args:
      model: the version that the request's model_spec asks for.
      request: its inputs must be those of the signature, in type, rank and known sizes.
      max_bytes: most memory that one unpacked input may take.

    Raises:
      StatusError: FAILED_PRECONDITION for an unknown signature, INVALID_ARGUMENT for bad inputs.
      tf.errors.OpError: from the graph.
    """
    name = request.model_spec.signature_name or SERVING_DEFAULT
    signature = model.signature_defs.get(name)
    if signature is None:
        raise StatusError(
            grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.'
        )
    protos = _input_protos(signature, request.inputs)
    aliases = _output_aliases(signature, request.output_filter)
    feeds = make_feeds(name, signature, protos, max_bytes)
    results = model.run(feeds, tuple(signature.outputs[alias].name for alias in aliases))
    response = predict_pb2.PredictResponse(model_spec=model_spec(model, request))
    for alias, result in zip(aliases, results, strict=True):
        response.outputs[alias].CopyFrom(tensors.to_proto(result))
    return response


def model_spec(model: SavedModel, request) -> model_pb2.ModelSpec:
    """The model_spec of a response: name, version and signature of the model that answers."""
    spec = model_pb2.ModelSpec(
        name=request.model_spec.name,
        signature_name=request.model_spec.signature_name or SERVING_DEFAULT,
    )
    spec.version.value = model.version
    return spec


def _names(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"


def _input_protos(
    signature: meta_graph_pb2.SignatureDef, inputs: Mapping[str, tensor_pb2.TensorProto]
) -> dict[str, tensor_pb2.TensorProto]:
    """One tensor for every input of the signature: the caller's, or the signature's default."""
    expected = signature.inputs
    if len(inputs) > len(expected) or (len(inputs) < len(expected) and not signature.defaults):
        raise invalid_argument(
            f"input size does not match signature: {len(inputs)}!={len(expected)} "
            f"len({_names(inputs)}) != len({_names(expected)}). "
            f"Sent extra: {_names(set(inputs) - set(expected))}. "
            f"Missing but required: {_names(set(expected) - set(inputs))}."
        )
    protos = {}
    for alias in sorted(expected):
        if alias in inputs:
            protos[alias] = inputs[alias]
        elif alias in signature.defaults:
            protos[alias] = signature.defaults[alias]
        else:
            raise invalid_argument(
                f"Signature input alias: {alias}(feed name: {expected[alias].name}) not found in "
                "request and no default value provided. Inputs expected to be in the request "
                f"{_names(inputs)}, or default input alias set: {','.join(signature.defaults)}"
            )
    if not set(inputs) <= set(expected):
        raise invalid_argument(
            "Inputs contains invalid name. Used request inputs: "
            f"{','.join(sorted(set(inputs) & set(expected)))}, "
            f"request input: {','.join(sorted(inputs))}"
        )
    return protos


def _output_aliases(
    signature: meta_graph_pb2.SignatureDef, output_filter: Iterable[str]
) -> list[str]:
    aliases: list[str] = []
    for alias in output_filter:
        if alias not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {alias} "
                f"Outputs expected to be in the set {_names(signature.outputs)}."
            )
        if alias in aliases:
            raise invalid_argument(f"duplicate output tensor alias: {alias}")
        aliases.append(alias)
    return sorted(aliases or signature.outputs)


def make_feeds(
    name: str,
    signature: meta_graph_pb2.SignatureDef,
    protos: Mapping[str, tensor_pb2.TensorProto],
    max_bytes: int,
) -> dict[str, np.ndarray]:
    """Arrays by tensor name, of the types and shapes that the signature states.

    Raises:
      StatusError: INVALID_ARGUMENT, naming the input.
    """
    arrays = {}
    for alias, proto in protos.items():
        try:
            arrays[alias] = tensors.to_array(proto, max_bytes)
        except ValueError as error:
            raise invalid_argument(f"tensor parsing error: {alias}") from error
    # a session counts its arguments in the order of the tensors' names
    in_order = sorted(protos, key=lambda alias: signature.inputs[alias].name)
    for position, alias in enumerate(in_order):
        wanted, given = signature.inputs[alias].dtype, protos[alias].dtype
        if wanted != given:
            raise invalid_argument(
                f"Expects arg[{position}] to be {tensors.data_type_name(wanted)} "
                f"but {tensors.data_type_name(given)} is provided"
            )
    for alias, array in arrays.items():
        shape = signature.inputs[alias].tensor_shape
        if shape.unknown_rank:
            continue
        sizes = [dim.size for dim in shape.dim]
        if len(sizes) != array.ndim or any(
            size not in (-1, given) for size, given in zip(sizes, array.shape, strict=True)
        ):
            raise invalid_argument(
                f'Input "{alias}" has shape {tensors.shape_text(array.shape)}, and signature '
                f'"{name}" takes {tensors.shape_text(sizes)}'
            )
    return {signature.inputs[alias].name: array for alias, array in arrays.items()}
