"""Classify and Regress on one model: tf.Examples in, classes or numbers out.

The rules, their order and the messages follow tensorflow/serving's classifier.cc and regressor.cc.
"""

import numpy as np
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import classification_pb2, input_pb2, regression_pb2

from loopctr_tf.scoring import tensors
from loopctr_tf.scoring.names import SERVING_DEFAULT
from loopctr_tf.scoring.server.predict import make_feeds, model_spec
from loopctr_tf.scoring.server.saved_model import SavedModel
from loopctr_tf.scoring.server.status import invalid_argument


def classify(
    model: SavedModel,
    request: classification_pb2.ClassificationRequest,
    check_method_names: bool = True,
) -> classification_pb2.ClassificationResponse:
    """Answers a ClassificationRequest: ``inputs`` string [B] to ``classes`` and ``scores`` [B, C].

    Args:
      model: the version that the request's model_spec asks for.
      request: B >= 1 examples.
      check_method_names: refuse a signature whose method_name is not that of Classify.

    Raises:
      StatusError: INVALID_ARGUMENT for a signature or examples of the wrong kind.
      tf.errors.OpError: from the graph.
    """
    signature = _example_signature(model, request, "classification", check_method_names)
    if len(signature.outputs) not in (1, 2):
        raise invalid_argument(
            f"Expected one or two output Tensors, found {len(signature.outputs)}"
        )
    wanted = [alias for alias in ("classes", "scores") if alias in signature.outputs]
    if not wanted:
        raise invalid_argument(
            "Expected classification signature outputs to contain at least one of "
            f'"classes" or "scores". Signature was: {signature}'
        )
    count, results = _run_examples(model, request, signature, wanted)
    columns = dict(zip(wanted, results, strict=True))
    for alias, column in columns.items():
        _check_class_output(alias, column, count)
    if len({column.shape[1] for column in results}) > 1:
        raise invalid_argument(
            "Tensors class and score should match in dim_size(1). Got "
            f"{columns['classes'].shape[1]} vs. {columns['scores'].shape[1]}"
        )
    response = classification_pb2.ClassificationResponse(model_spec=model_spec(model, request))
    values = {alias: column.tolist() for alias, column in columns.items()}
    for row in range(count):
        classes = response.result.classifications.add().classes
        for column in range(results[0].shape[1]):
            one = classes.add()
            if "classes" in values:
                one.label = values["classes"][row][column].decode("utf-8", "replace")
            if "scores" in values:
                one.score = values["scores"][row][column]
    return response


def regress(
    model: SavedModel, request: regression_pb2.RegressionRequest, check_method_names: bool = True
) -> regression_pb2.RegressionResponse:
    """Answers a RegressionRequest: ``inputs`` string [B] to ``outputs`` float [B] or [B, 1].

    Args and errors are those of :func:`classify`.
    """
    signature = _example_signature(model, request, "regression", check_method_names)
    if len(signature.outputs) != 1:
        raise invalid_argument("Expected one output Tensor.")
    if "outputs" not in signature.outputs:
        raise invalid_argument(f"No regression outputs found in SignatureDef: {signature}")
    count, (values,) = _run_examples(model, request, signature, ["outputs"])
    if not (values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1)):
        raise invalid_argument(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            f"{tensors.shape_text(values.shape)}"
        )
    if len(values) != count:
        raise invalid_argument(
            f"Input batch size did not match output batch size: {count} vs. {len(values)}"
        )
    if values.dtype != np.float32:
        raise invalid_argument(
            f"Expected output Tensor of DT_FLOAT.  Got: {_enum_name(values.dtype)}"
        )
    response = regression_pb2.RegressionResponse(model_spec=model_spec(model, request))
    for value in values.ravel().tolist():
        response.result.regressions.add(value=value)
    return response


def _example_signature(
    model: SavedModel, request, kind: str, check_method_names: bool
) -> meta_graph_pb2.SignatureDef:
    method = f"tensorflow/serving/{'classify' if kind == 'classification' else 'regress'}"
    name = request.model_spec.signature_name or SERVING_DEFAULT
    signature = model.signature_defs.get(name)
    if signature is None:
        raise invalid_argument(f"No signature was found with the name: {name}")
    if check_method_names and signature.method_name != method:
        raise invalid_argument(
            f"Expected {kind} signature method_name to be {method}. Was: {signature.method_name}"
        )
    if len(signature.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")
    if "inputs" not in signature.inputs:
        raise invalid_argument(f"No {kind} inputs found in SignatureDef: {signature}")
    return signature


def _run_examples(
    model: SavedModel, request, signature: meta_graph_pb2.SignatureDef, aliases: list[str]
) -> tuple[int, list[np.ndarray]]:
    examples = serialized_examples(request.input)
    if not examples:
        raise invalid_argument("Input is empty.")
    name = request.model_spec.signature_name or SERVING_DEFAULT
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=examples)
    proto.tensor_shape.dim.add(size=len(examples))
    feeds = make_feeds(name, signature, {"inputs": proto}, 1 << 30)
    fetches = tuple(signature.outputs[alias].name for alias in aliases)
    return len(examples), model.run(feeds, fetches)


def serialized_examples(given: input_pb2.Input) -> list[bytes]:
    """The tf.Examples of an Input, serialized; a context's features are part of each of them."""
    if given.HasField("example_list_with_context"):
        both = given.example_list_with_context
        # concatenated messages parse as their merger
        context = both.context.SerializeToString()
        return [context + example.SerializeToString() for example in both.examples]
    return [example.SerializeToString() for example in given.example_list.examples]


def _check_class_output(alias: str, column: np.ndarray, count: int) -> None:
    kind = types_pb2.DT_STRING if alias == "classes" else types_pb2.DT_FLOAT
    if column.ndim != 2:
        raise invalid_argument(
            "Expected Tensor shape: [batch_size num_classes] but got "
            f"{tensors.shape_text(column.shape)}"
        )
    if column.dtype != tensors.numpy_dtype(kind):
        raise invalid_argument(
            f"Expected {alias} Tensor of {types_pb2.DataType.Name(kind)}. "
            f"Got: {_enum_name(column.dtype)}"
        )
    if len(column) != count:
        raise invalid_argument(f"Expected {alias} output batch size of {count}. Got: {len(column)}")


def _enum_name(dtype: np.dtype) -> str:
    return types_pb2.DataType.Name(tensors.to_proto(np.empty(0, dtype)).dtype)
