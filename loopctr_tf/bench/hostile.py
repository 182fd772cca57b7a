"""`loopctr bench hostile`: malformed requests, each of which a server has to refuse in one way."""

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
from tensorflow.core.framework.tensor_shape_pb2 import TensorShapeProto
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

from loopctr_tf.bench.requests import FIRST_S, Endpoint, Requests, is_length, status_of
from loopctr_tf.features.schema import Schema
from loopctr_tf.scoring import Signature, names, tensors

Change = Callable[[PredictRequest, Signature], Any]
"""Spoils a good request, or returns bytes to send instead; False if there is nothing to spoil."""
_OK, _BAD = grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT
_MISSING, _NO_SIGNATURE = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION
_LONG = "y" * (10 << 20)
_OTHER_TYPE = {"f": np.float64, "i": np.float32, "O": np.int64}
_HISTORY = 3


def _spec(**fields):
    return lambda r, _: [setattr(r.model_spec, *pair) for pair in fields.items()]


def _tensor(spoil: Callable, kinds: str = "fiO", fits=lambda alias, info, s: True) -> Change:
    """Spoils the tensor of the first input of some kinds (float, integer, object) that ``fits``."""

    def change(request, signature):
        for alias, info in sorted(signature.inputs.items()):
            if info.dtype.kind in kinds and fits(alias, info, signature):
                return spoil(request.inputs[alias])
        return False

    return change


def _array(spoil: Callable[[np.ndarray], np.ndarray], *which) -> Change:
    """Like :func:`_tensor`, with the input as an array."""
    return _tensor(lambda p: p.CopyFrom(tensors.to_proto(spoil(tensors.to_array(p)))), *which)


def _first(value: float, *which) -> Change:
    return _array(lambda a: np.concatenate([np.full_like(a[:1], value), a[1:]]), *which)


def _sizes(*sizes: int) -> Change:
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in sizes])
    return _tensor(lambda p: p.tensor_shape.CopyFrom(shape))


def _content(spoil: Callable[[bytes], bytes], kinds: str) -> Change:
    def change(proto):
        del proto.string_val[:]
        proto.tensor_content = spoil(proto.tensor_content)

    return _tensor(change, kinds)


def _copied(name: str) -> Change:
    return lambda r, _: r.inputs[name].CopyFrom(r.inputs[min(r.inputs)])


def _renamed(request, signature):
    _copied("~misnamed")(request, signature)
    request.inputs.pop(min(request.inputs))


_one_of_several = "fiO", lambda alias, info, s: len(s.inputs) > 1
_candidate = "fiO", lambda alias, info, s: len(s.candidates) > 1 and alias in s.candidates
_length = "i", lambda alias, info, s: is_length(alias, info)
_top_k = "i", lambda alias, *_: alias == "refine_top_k"
_example = "O", lambda alias, *_: alias == "inputs"

HOSTILE: list[tuple[str, Change, grpc.StatusCode]] = [
    ("unknown model", _spec(name="nobody"), _MISSING),
    ("unknown version", lambda r, _: setattr(r.model_spec.version, "value", 2**40), _MISSING),
    ("unknown label", _spec(version_label="no such label"), _BAD),
    ("unknown signature", _spec(signature_name="nope"), _NO_SIGNATURE),
    ("signature name of 10 MB", _spec(signature_name=_LONG), _NO_SIGNATURE),
    ("no model", lambda r, _: r.ClearField("model_spec"), _BAD),
    ("unknown output", lambda r, _: r.output_filter.append("nope"), _BAD),
    ("output asked for twice", lambda r, s: r.output_filter.extend([min(s.outputs)] * 2), _BAD),
    ("not a message", lambda r, _: b"\xff" * 40, _BAD),
    ("unknown method", lambda r, _: None, grpc.StatusCode.UNIMPLEMENTED),
    ("metadata without a field", lambda r, _: r.ClearField("inputs"), _BAD),
    ("no inputs", lambda r, _: r.ClearField("inputs"), _BAD),
    ("missing input", lambda r, _: r.inputs.pop(min(r.inputs)), _BAD),
    ("misnamed input", _renamed, _BAD),
    ("extra input", _copied("surplus"), _BAD),
    ("extra input with a name of 10 MB", _copied(_LONG), _BAD),
    ("wrong type", _array(lambda a: np.zeros(a.shape, _OTHER_TYPE[a.dtype.kind])), _BAD),
    ("one axis too many", _array(lambda a: a[..., None]), _BAD),
    ("no axis", _array(lambda a: a.ravel()[:1].reshape(())), _BAD),
    ("no rows in one input", _array(lambda a: a[:0], *_one_of_several), _BAD),
    ("more rows in one input", _array(lambda a: a[[0, *range(len(a))]], *_one_of_several), _BAD),
    ("fewer candidates in one input", _array(lambda a: a[:, :1], *_candidate), _BAD),
    ("numbers cut short", _content(lambda content: content[:-1], "fi"), _BAD),
    ("one byte too many", _content(lambda content: content + b"\0", "fi"), _BAD),
    ("strings that are not strings", _content(lambda content: b"\xff" * 40, "O"), _BAD),
    ("negative size", _sizes(-1), _BAD),
    ("sizes whose product overflows", _sizes(2**40, 2**40), _BAD),
    ("one value for terabytes", _sizes(2**45), _BAD),
    ("300 axes", _sizes(*[1] * 300), _BAD),
    ("unknown rank", _tensor(lambda p: setattr(p.tensor_shape, "unknown_rank", True)), _BAD),
    ("no type", _tensor(lambda p: p.ClearField("dtype")), _BAD),
    ("NaN", _first(np.nan, "f"), _BAD),
    ("negative length", _first(-1, *_length), _BAD),
    ("length beyond the data", _first(2**31 - 1, *_length), _BAD),
    ("negative refine_top_k", _first(-1, *_top_k), _BAD),
    ("not a tf.Example", _array(lambda a: np.full(a.shape, b"\xff" * 50, object), *_example), _BAD),
]
"""What is wrong, how a good request is spoilt, and the status of the refusal."""
_METHODS = {"unknown method": "NoSuchMethod", "metadata without a field": "GetModelMetadata"}
_REPAIRED = {"NaN", "negative length", "length beyond the data", "negative refine_top_k"}
"""What an export that repairs bad input answers."""


def spoilt(
    payload: bytes, signature: Signature, repairs: bool = False
) -> Iterator[tuple[str, str, bytes, grpc.StatusCode]]:
    """Every way in which a request can be spoilt: (what is wrong, method, message, status)."""
    for name, change, code in HOSTILE:
        request = PredictRequest.FromString(payload)
        made = change(request, signature)
        if made is not False:
            message = made if isinstance(made, bytes) else request.SerializeToString()
            code = _OK if repairs and name in _REPAIRED else code
            yield name, _METHODS.get(name, "Predict"), message, code


def bench_hostile(
    endpoint: Endpoint,
    schema: Schema | None = None,
    repairs: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Sends every hostile request once to each signature for Predict that needs no user's state.

    The export's ``schema`` is needed to spoil tf.Examples; with ``repairs`` it repairs bad input.

    Returns:
      ``target``, ``requests``, ``signatures`` and ``problems``: a line for each request that was
      answered wrongly, and for each signature that no longer answers good requests as before.
    """
    requests, problems, sent = Requests(endpoint, schema), [], 0
    good = good_requests(requests)
    with endpoint.channel() as channel:
        for name, payload in good.items():
            say(name)
            before = status_of(endpoint.call(channel), payload, FIRST_S)
            cases = spoilt(payload, requests.signatures[name], repairs)
            for what, method, message, wanted in cases:
                code, details = status_of(endpoint.call(channel, method), message)
                sent += 1
                if code is not wanted:
                    answer = f"{code.name} instead of {wanted.name}: {details}"
                    problems.append(f"{name}: {what}: {answer}")
            after = status_of(endpoint.call(channel), payload)
            if before[0] is not _OK or not alike(before[1], after[1]):
                problems.append(f"{name}: a good request is answered otherwise: {after[0].name}")
    report = {"target": endpoint.target, "requests": sent, "signatures": sorted(good)}
    return {**report, "problems": problems}


def good_requests(requests: Requests) -> dict[str, bytes]:
    """A small Predict request by signature that needs no user's state; tf.Examples need a schema."""
    return {
        name: requests.predict(name, 5, _HISTORY, rows=2)
        for name, signature in sorted(requests.signatures.items())
        if names.STATE_VERSION not in signature.inputs
        and ("inputs" not in signature.inputs or requests.schema is not None)
    }


def alike(one: bytes | str, other: bytes | str) -> bool:
    """Whether two answers to a Predict request hold the same outputs, up to rounding."""
    if isinstance(one, str) or isinstance(other, str):
        return False
    first, second = (PredictResponse.FromString(answer).outputs for answer in (one, other))
    pairs = [(tensors.to_array(first[n]), tensors.to_array(second[n])) for n in first]
    return first.keys() == second.keys() and all(
        a.shape == b.shape
        and (np.allclose(a, b, 1e-5, 1e-5) if a.dtype.kind == "f" else (a == b).all())
        for a, b in pairs
    )
