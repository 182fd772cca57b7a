"""Request messages out of arrays and tf.Examples."""

from collections.abc import Iterable, Mapping

import numpy as np
from google.protobuf.message import Message
from tensorflow_serving.apis import classification_pb2, predict_pb2, regression_pb2

from loopctr_tf.scoring import tensors

MODEL = "loopctr"
"""The model's name where none is given."""
Arrays = Mapping[str, np.ndarray]
_EXAMPLE_REQUESTS = {
    "Classify": classification_pb2.ClassificationRequest,
    "Regress": regression_pb2.RegressionRequest,
}


def predict_payload(signature: str, arrays: Arrays, model: str = MODEL) -> bytes:
    """A serialized PredictRequest."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    for alias, array in arrays.items():
        request.inputs[alias].CopyFrom(tensors.to_proto(array))
    return request.SerializeToString()


def examples_request(
    method: str, signature: str, examples: Iterable[bytes], model: str = MODEL
) -> Message:
    """The request of "Classify" or "Regress" with serialized tf.Examples."""
    request = _EXAMPLE_REQUESTS[method]()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    for example in examples:
        request.input.example_list.examples.add().MergeFromString(example)
    return request


def versioned(payload: bytes, version: int) -> bytes:
    """The same PredictRequest, for one version."""
    more = predict_pb2.PredictRequest()
    more.model_spec.version.value = version
    # Messages written one behind the other read as their merger.
    return payload + more.SerializeToString()
