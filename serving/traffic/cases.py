"""A request with what has to come back, and the judgement of what came back."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import grpc
import numpy as np
from google.protobuf.message import Message
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    predict_pb2,
    regression_pb2,
)

from loopctr_tf.scoring import tensors

EXACT, ROUGH = 1e-5, 1e-2
"""Largest difference of two numbers, absolute or relative, that count as equal: by one and the same
server, and by a server and TensorFlow's other way of running a graph. The latter rounds differently,
and where two experts are nearly tied that changes which of them a token takes."""
Code = grpc.StatusCode

_SERVICE = "/tensorflow.serving.PredictionService/"
METHODS = {
    "Predict": (_SERVICE + "Predict", predict_pb2.PredictResponse),
    "Classify": (_SERVICE + "Classify", classification_pb2.ClassificationResponse),
    "Regress": (_SERVICE + "Regress", regression_pb2.RegressionResponse),
    "MultiInference": (_SERVICE + "MultiInference", inference_pb2.MultiInferenceResponse),
    "GetModelMetadata": (
        _SERVICE + "GetModelMetadata",
        get_model_metadata_pb2.GetModelMetadataResponse,
    ),
    "GetModelStatus": (
        "/tensorflow.serving.ModelService/GetModelStatus",
        get_model_status_pb2.GetModelStatusResponse,
    ),
    "NoSuchMethod": (_SERVICE + "NoSuchMethod", predict_pb2.PredictResponse),
}
"""Method -> its path and the message that it answers with."""


@dataclass(frozen=True)
class Answer:
    """What one export has to say to a request.

    Attributes:
      code: the status.
      words: must be part of the details of an error.
      outputs: of an OK answer; None where any will do.
    """

    code: Code = Code.OK
    words: str = ""
    outputs: Mapping[str, np.ndarray] | None = None


@dataclass(frozen=True)
class Case:
    """A request.

    Attributes:
      kind: what it is, for the report.
      method: a key of :data:`METHODS`.
      payload: the serialized request.
      answers: export -> what it has to say.
      good: the request is one that callers send and wait for; its time is reported.
      also: statuses that are right as well, for calls that are given up.
      timeout_s: the call's deadline.
      cancel_after_s: when the caller gives up; None for never.
      weight: how often it is sent, beside others.
    """

    kind: str
    method: str
    payload: bytes = field(repr=False)
    answers: Mapping[str, Answer] = field(repr=False)
    good: bool = False
    also: frozenset[Code] = frozenset()
    timeout_s: float = 60.0
    cancel_after_s: float | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class Reply:
    """What came back: a status, and the message's bytes or the error's details."""

    code: Code
    data: bytes = b""
    details: str = ""


def fault(
    case: Case, reply: Reply, possible: Mapping[int, str], tolerance: float = EXACT
) -> str | None:
    """What is wrong with a reply; None where nothing is.

    Args:
      case: what was sent.
      reply: what came back.
      possible: the versions that could be in service meanwhile, and the export of each.
      tolerance: of numbers.
    """
    if reply.code in case.also:
        return None
    wanted = {label: case.answers[label] for label in possible.values()}
    if reply.code is not Code.OK:
        codes = {answer.code for answer in wanted.values()}
        if reply.code not in codes:
            names = " or ".join(sorted(code.name for code in codes))
            return f"{reply.code.name} instead of {names}: {reply.details[:200]}"
        if not any(a.code is reply.code and a.words in reply.details for a in wanted.values()):
            return f"{reply.code.name} for another reason: {reply.details[:200]}"
        return None
    if all(answer.code is Code.OK and answer.outputs is None for answer in wanted.values()):
        return None
    if all(answer.code is not Code.OK for answer in wanted.values()):
        return f"OK instead of {' or '.join(sorted({a.code.name for a in wanted.values()}))}"
    response = response_of(case, reply)
    version = response.model_spec.version.value
    if version not in possible:
        return f"answered by version {version}, which was not in service"
    answer = wanted[possible[version]]
    if answer.code is not Code.OK:
        return f"version {version} said OK instead of {answer.code.name}"
    if answer.outputs is None:
        return None
    difference = _difference(answer.outputs, read_outputs(response), tolerance)
    return difference and f"version {version}: {difference}"


def response_of(case: Case, reply: Reply) -> Message:
    """The message of an OK reply."""
    return METHODS[case.method][1].FromString(reply.data)


def read_outputs(response: Message) -> dict[str, np.ndarray]:
    """Outputs by name of a response of Predict, Classify or Regress."""
    if isinstance(response, predict_pb2.PredictResponse):
        return {name: tensors.to_array(proto) for name, proto in response.outputs.items()}
    if isinstance(response, regression_pb2.RegressionResponse):
        values = [one.value for one in response.result.regressions]
        return {"outputs": np.array(values, np.float32)}
    rows = [row.classes for row in response.result.classifications]
    labels = [[one.label.encode() for one in row] for row in rows]
    scores = [[one.score for one in row] for row in rows]
    return {"classes": np.array(labels, object), "scores": np.array(scores, np.float32)}


def _difference(
    wanted: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray], tolerance: float
) -> str | None:
    if set(wanted) != set(found):
        return f"outputs {sorted(found)} instead of {sorted(wanted)}"
    for name, array in wanted.items():
        if array.dtype != found[name].dtype or array.shape != found[name].shape:
            return (
                f"{name} is {found[name].dtype} {found[name].shape} instead of "
                f"{array.dtype} {array.shape}"
            )
        if array.dtype.kind == "f":
            if not np.allclose(found[name], array, rtol=tolerance, atol=tolerance):
                return f"{name} is off by {np.abs(found[name] - array).max():.3g}"
        elif (found[name] != array).any():
            return f"{name} differs"
    return None
