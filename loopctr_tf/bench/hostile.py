"""`loopctr bench hostile`: malformed requests, each of which a server has to refuse in one way."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.framework.tensor_shape_pb2 import TensorShapeProto
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

from loopctr_tf.bench.report import Log, silent
from loopctr_tf.bench.requests import EXAMPLES, FIRST_S, TOP_K, Answer, Case, Endpoint, Requests
from loopctr_tf.features.schema import Schema
from loopctr_tf.scoring import Signature, names, tensors

Spoil = Callable[[PredictRequest, str], Any]
"""Changes a good request, mostly at the input of that name, or returns bytes to send instead."""
_PREDICT, _METADATA = "PredictionService/Predict", "PredictionService/GetModelMetadata"
_LONG = "y" * (10 << 20)
_HISTORY = 3


class Hostile(NamedTuple):
    """What is wrong, how a request is made so, and the status of the refusal.

    The first input that is ``of`` this role is spoilt, see :func:`_roles`; an export that repairs bad
    input answers ``repaired`` requests.
    """

    what: str
    spoil: Spoil
    status: str = "INVALID_ARGUMENT"
    of: str = "input"
    method: str = _PREDICT
    repaired: bool = False


def _roles(signature: Signature, alias: str) -> Iterator[str]:
    kinds = {"f": ("number", "float"), "i": ("number",), "O": ("string",)}
    yield from ("input", alias, *kinds.get(signature.inputs[alias].dtype.kind, ()))
    if len(signature.inputs) > 1:
        yield "one of several"
    if alias in signature.candidates and len(signature.candidates) > 1:
        yield "candidate"
    if alias in signature.fields_by_length():
        yield "length"


def _spec(**fields) -> Spoil:
    return lambda request, _: request.model_spec.MergeFrom(ModelSpec(**fields))


def _tensor(spoil: Callable[[TensorProto], Any]) -> Spoil:
    return lambda request, alias: spoil(request.inputs[alias])


def _array(spoil: Callable[[np.ndarray], np.ndarray]) -> Spoil:
    return _tensor(lambda proto: proto.CopyFrom(tensors.to_proto(spoil(tensors.to_array(proto)))))


def _first(value: float | bytes) -> Spoil:
    return _array(lambda array: np.concatenate([np.full_like(array[:1], value), array[1:]]))


def _sizes(*sizes: int) -> Spoil:
    shape = TensorShapeProto(dim=[{"size": size} for size in sizes])
    return _tensor(lambda proto: proto.tensor_shape.CopyFrom(shape))


def _content(spoil: Callable[[bytes], bytes]) -> Spoil:
    return _tensor(lambda proto: setattr(proto, "tensor_content", spoil(proto.tensor_content)))


HOSTILE = [
    Hostile("unknown model", _spec(name="nobody"), "NOT_FOUND"),
    Hostile("unknown version", _spec(version={"value": 2**40}), "NOT_FOUND"),
    Hostile("unknown label", _spec(version_label="no such label")),
    Hostile("unknown signature", _spec(signature_name="nope"), "FAILED_PRECONDITION"),
    Hostile("signature name of 10 MB", _spec(signature_name=_LONG), "FAILED_PRECONDITION"),
    Hostile("no model", lambda r, _: r.ClearField("model_spec")),
    Hostile("unknown output", lambda r, _: r.output_filter.append("nope")),
    Hostile("output asked for twice", lambda r, _: r.output_filter.extend([names.PROBABILITY] * 2)),
    Hostile("not a message", lambda r, _: b"\xff" * 40),
    Hostile("unknown method", lambda r, _: None, "UNIMPLEMENTED", method="PredictionService/Nope"),
    Hostile("metadata of no field", lambda r, _: r.ClearField("inputs"), method=_METADATA),
    Hostile("no inputs", lambda r, _: r.ClearField("inputs")),
    Hostile("missing input", lambda r, name: r.inputs.pop(name)),
    Hostile("misnamed input", lambda r, name: r.inputs["~"].CopyFrom(r.inputs.pop(name))),
    Hostile("extra input", lambda r, name: r.inputs["~"].CopyFrom(r.inputs[name])),
    Hostile("extra input, name of 10 MB", lambda r, name: r.inputs[_LONG].CopyFrom(r.inputs[name])),
    Hostile("wrong type", _array(lambda a: np.zeros(a.shape, np.float64))),
    Hostile("one axis too many", _array(lambda a: a[..., None])),
    Hostile("no axis", _array(lambda a: a.ravel()[:1].reshape(()))),
    Hostile("no rows in one input", _array(lambda a: a[:0]), of="one of several"),
    Hostile("more rows in one input", _array(lambda a: a.repeat(2, 0)), of="one of several"),
    Hostile("fewer candidates in one input", _array(lambda a: a[:, :1]), of="candidate"),
    Hostile("numbers cut short", _content(lambda content: content[:-1]), of="number"),
    Hostile("one byte too many", _content(lambda content: content + b"\0"), of="number"),
    Hostile("strings that are not strings", _content(lambda _: b"\xff" * 40), of="string"),
    Hostile("negative size", _sizes(-1)),
    Hostile("sizes whose product overflows", _sizes(2**40, 2**40)),
    Hostile("one value for terabytes", _sizes(2**45)),
    Hostile("300 axes", _sizes(*[1] * 300)),
    Hostile("unknown rank", _tensor(lambda p: setattr(p.tensor_shape, "unknown_rank", True))),
    Hostile("no type", _tensor(lambda p: p.ClearField("dtype"))),
    Hostile("NaN", _first(np.nan), of="float", repaired=True),
    Hostile("negative length", _first(-1), of="length", repaired=True),
    Hostile("length beyond the data", _first(2**31 - 1), of="length", repaired=True),
    Hostile("negative refine_top_k", _first(-1), of=TOP_K, repaired=True),
    Hostile("not a tf.Example", _first(b"\xff" * 50), of=EXAMPLES),
]


def good_cases(requests: Requests) -> list[Case]:
    """A small request to each signature that needs no user's state; tf.Examples need a schema."""
    return [
        requests.predict(name, 5, _HISTORY, rows=2)
        for name, signature in sorted(requests.signatures.items())
        if names.STATE_VERSION not in signature.inputs
        and (EXAMPLES not in signature.inputs or requests.schema is not None)
    ]


def hostile_cases(requests: Requests, good: Case, repairs: bool = False) -> Iterator[Case]:
    """Every way in which a good request can be spoilt."""
    signature = requests.signatures[good.name]
    for way in HOSTILE:
        alias = next((a for a in sorted(signature.inputs) if way.of in _roles(signature, a)), None)
        if alias is not None:
            request = PredictRequest.FromString(good.message)
            made = way.spoil(request, alias)
            message = made if isinstance(made, bytes) else request.SerializeToString()
            status = "OK" if repairs and way.repaired else way.status
            yield Case(f"{good.name}: {way.what}", message, status, way.method)


def bench_hostile(
    endpoint: Endpoint, schema: Schema | None = None, repairs: bool = False, log: Log = silent
) -> dict[str, Any]:
    """Sends every hostile request once to each signature for Predict that needs no user's state.

    The export's ``schema`` is needed to spoil tf.Examples; with ``repairs`` it repairs bad input.

    Returns:
      ``target``, ``requests``, ``signatures`` and ``problems``: a line for each request that was
      answered wrongly, and for each signature that no longer answers good requests as before.
    """
    requests, problems, sent = Requests(endpoint, schema), [], 0
    signatures = good_cases(requests)
    with endpoint.connect() as send:
        for good in signatures:
            log(good.name)
            _, before = send(good, FIRST_S)
            for case in hostile_cases(requests, good, repairs):
                problems += problems_of(case, send(case))
                sent += 1
            problems += problems_of(good, send(good), before)
    tried = [good.name for good in signatures]
    return {"target": endpoint.target, "requests": sent, "signatures": tried, "problems": problems}


def problems_of(case: Case, answer: Answer, before: bytes | str | None = None) -> Iterator[str]:
    """What is wrong with an answer; ``before`` is an earlier reply to the same good request."""
    status, reply = answer
    if status != case.status:
        yield f"{case.name}: {status} instead of {case.status}: {reply}"
    elif before is not None and not alike(before, reply):
        yield f"{case.name}: a good request is answered otherwise than before"


def alike(one: bytes | str, other: bytes | str) -> bool:
    """Whether both are answers to Predict, with the same outputs up to rounding; str are errors."""
    if isinstance(one, str) or isinstance(other, str):
        return False
    one, other = (PredictResponse.FromString(answer).outputs for answer in (one, other))
    if one.keys() != other.keys():
        return False
    pairs = [(tensors.to_array(one[name]), tensors.to_array(other[name])) for name in one]
    return all(
        a.shape == b.shape
        and np.all(np.isclose(a, b, 1e-5, 1e-5) if a.dtype.kind == "f" else a == b)
        for a, b in pairs
    )
