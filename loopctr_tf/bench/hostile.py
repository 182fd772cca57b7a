"""`loopctr bench hostile`: malformed requests, each of which a server has to refuse in one way.

Each is a good request with one thing wrong. A server must answer all of them with the right status,
and good requests as before.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import grpc
import numpy as np
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

from loopctr_tf.bench.requests import FIRST_S, Endpoint, Requests, is_length
from loopctr_tf.features.schema import Schema
from loopctr_tf.scoring import Signature, tensors

INVALID, MISSING = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
HISTORY = 3
_LONG = "y" * (10 << 20)
_OTHER_TYPE = {"f": np.float64, "i": np.float32, "O": np.int64}


class Hostile(NamedTuple):
    """One way to spoil a request.

    Attributes:
      change: takes a good request, which it may change, and its signature; returns what is sent, or
        None where the signature has nothing to spoil in this way.
      code: the status that is expected.
      method: of PredictionService.
      in_graph: the graph refuses it, unless the export repairs bad input.
    """

    change: Callable[[PredictRequest, Signature], PredictRequest | bytes | None]
    code: grpc.StatusCode = INVALID
    method: str = "Predict"
    in_graph: bool = False


def _spec(clear: tuple[str, ...] = (), **fields):
    def change(request, signature):
        for name in clear:
            request.ClearField(name)
        for name, value in fields.items():
            setattr(request.model_spec, name, value)
        return request

    return change


def _version(request, signature):
    request.model_spec.version.value = 2**40
    return request


def _outputs(*names: str):
    def change(request, signature):
        request.output_filter.extend(names or list(signature.outputs)[:1] * 2)
        return request

    return change


def _tensor(spoil: Callable, kinds: str = "fiO", alias: Callable[..., bool] = lambda *_: True):
    """Spoils the first input of some kinds (float, integer, object) for which ``alias`` holds."""

    def change(request, signature):
        for name, info in sorted(signature.inputs.items()):
            if info.dtype.kind in kinds and name in request.inputs and alias(name, info):
                proto = request.inputs[name]
                made = spoil(proto)
                if isinstance(made, np.ndarray):
                    proto.CopyFrom(tensors.to_proto(made))
                return request
        return None

    return change


def _array(spoil: Callable[[np.ndarray], np.ndarray], *arguments):
    return _tensor(lambda proto: spoil(tensors.to_array(proto).copy()), *arguments)


def _filled(value: float, *arguments):
    def spoil(array):
        array[:1] = value
        return array

    return _array(spoil, *arguments)


def _sizes(*sizes: int):
    def spoil(proto):
        proto.tensor_shape.ClearField("dim")
        for size in sizes:
            proto.tensor_shape.dim.add(size=size)

    return _tensor(spoil)


def _garbled(proto):
    proto.ClearField("string_val")
    proto.tensor_content = b"\xff" * 40


def _missing(request, signature):
    del request.inputs[min(request.inputs)]
    return request


def _surplus(name: str, rename: bool = False):
    def change(request, signature):
        first = min(request.inputs)
        request.inputs[name].CopyFrom(request.inputs[first])
        if rename:
            del request.inputs[first]
        return request

    return change


def _uneven(spoil: Callable[[np.ndarray], np.ndarray]):
    change = _array(spoil)
    return lambda request, s: change(request, s) if len(request.inputs) > 1 else None


def _uneven_candidates(request, signature):
    if len(signature.candidates) < 2:
        return None
    alias = min(signature.candidates)
    array = tensors.to_array(request.inputs[alias])
    request.inputs[alias].CopyFrom(tensors.to_proto(array[:, :1]))
    return request


HOSTILE: dict[str, Hostile] = {
    "unknown model": Hostile(_spec(name="nobody"), MISSING),
    "unknown version": Hostile(_version, MISSING),
    "unknown label": Hostile(_spec(version_label="no such label")),
    "unknown signature": Hostile(_spec(signature_name="nope"), grpc.StatusCode.FAILED_PRECONDITION),
    "no model": Hostile(_spec(clear=("model_spec",))),
    "unknown output": Hostile(_outputs("nope")),
    "output asked for twice": Hostile(_outputs()),
    "not a message": Hostile(lambda request, signature: b"\xff" * 40),
    "unknown method": Hostile(
        lambda request, signature: request, grpc.StatusCode.UNIMPLEMENTED, "NoSuchMethod"
    ),
    "metadata without a field": Hostile(_spec(clear=("inputs",)), method="GetModelMetadata"),
    "no inputs": Hostile(_spec(clear=("inputs",))),
    "missing input": Hostile(_missing),
    "misnamed input": Hostile(_surplus("surplus", rename=True)),
    "extra input": Hostile(_surplus("surplus")),
    "extra input with a name of 10 MB": Hostile(_surplus(_LONG)),
    "wrong type": Hostile(_array(lambda a: np.zeros(a.shape, _OTHER_TYPE[a.dtype.kind]))),
    "one axis too many": Hostile(_array(lambda a: a[..., None])),
    "no axis": Hostile(_array(lambda a: a.ravel()[:1].reshape(()))),
    "fewer rows in one input": Hostile(_uneven(lambda a: a[:0])),
    "more rows in one input": Hostile(_uneven(lambda a: np.concatenate([a, a[:1]]))),
    "fewer candidates in one input": Hostile(_uneven_candidates),
    "numbers cut short": Hostile(
        _tensor(lambda p: setattr(p, "tensor_content", p.tensor_content[:-1]), "fi")
    ),
    "one byte too many": Hostile(
        _tensor(lambda p: setattr(p, "tensor_content", p.tensor_content + b"\0"), "fi")
    ),
    "strings that are not strings": Hostile(_tensor(_garbled, "O")),
    "negative size": Hostile(_sizes(-1)),
    "sizes whose product overflows": Hostile(_sizes(2**40, 2**40)),
    "one value for terabytes": Hostile(_sizes(2**45)),
    "300 axes": Hostile(_sizes(*[1] * 300)),
    "unknown rank": Hostile(_tensor(lambda p: setattr(p.tensor_shape, "unknown_rank", True))),
    "no type": Hostile(_tensor(lambda p: setattr(p, "dtype", types_pb2.DT_INVALID))),
    "NaN": Hostile(_filled(np.nan, "f"), in_graph=True),
    "negative length": Hostile(_filled(-1, "i", is_length), in_graph=True),
    "length beyond the data": Hostile(_filled(2**31 - 1, "i", is_length), in_graph=True),
    "negative refine_top_k": Hostile(
        _filled(-1, "i", lambda alias, info: alias == "refine_top_k"), in_graph=True
    ),
    "not a tf.Example": Hostile(
        _array(lambda a: np.full(a.shape, b"\xff" * 50, object), "O", lambda a, _: a == "inputs")
    ),
}
"""What is wrong -> how a good request is spoilt, and the status of the refusal."""


def spoilt(
    request: PredictRequest, signature: Signature, repairs: bool = False
) -> Iterator[tuple[str, str, bytes, grpc.StatusCode]]:
    """Every way in which a request can be spoilt: (what is wrong, method, message, status)."""
    for name, (change, code, method, in_graph) in HOSTILE.items():
        copied = PredictRequest()
        copied.CopyFrom(request)
        made = change(copied, signature)
        if made is not None:
            payload = made if isinstance(made, bytes) else made.SerializeToString()
            wanted = grpc.StatusCode.OK if repairs and in_graph else code
            yield name, method, payload, wanted


def bench_hostile(
    endpoint: Endpoint,
    schema: Schema | None = None,
    repairs: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Sends every hostile request once to each signature for Predict that needs no user's state.

    Args:
      endpoint: the model.
      schema: of the export, to spoil tf.Examples as well.
      repairs: the export repairs bad input, so that impossible values are answered.
      say: takes lines about progress.

    Returns:
      ``target``, ``requests``, ``signatures`` and ``problems``: a line for each request that was
      answered wrongly, and for each signature that no longer answers good requests as before.
    """
    requests, problems, sent = Requests(endpoint, schema), [], 0
    good = good_requests(requests)
    with endpoint.channel() as channel:
        for name, request in good.items():
            say(name)
            payload = request.SerializeToString()
            before = status_of(endpoint.call(channel), payload, FIRST_S)
            for what, method, message, wanted in spoilt(
                request, requests.signatures[name], repairs
            ):
                code, details = status_of(endpoint.call(channel, method), message)
                sent += 1
                if code is not wanted:
                    problems.append(
                        f"{name}: {what}: {code.name} instead of {wanted.name}: {details}"
                    )
            after = status_of(endpoint.call(channel), payload)
            if before[0] is not grpc.StatusCode.OK or not alike(before[1], after[1]):
                problems.append(
                    f"{name}: a good request is not answered as before: {after[0].name}"
                )
    return {
        "target": endpoint.target,
        "requests": sent,
        "signatures": sorted(good),
        "problems": problems,
    }


def good_requests(requests: Requests) -> dict[str, PredictRequest]:
    """A small Predict request by signature, for all that need no user's state.

    Those that take tf.Examples are left out without a schema.
    """
    found = {}
    for name, signature in sorted(requests.signatures.items()):
        if "inputs" in signature.inputs and requests.schema is not None:
            arrays = {"inputs": np.array(requests.examples(2, HISTORY), object)}
        elif "inputs" in signature.inputs or "state_version" in signature.inputs:
            continue
        else:
            arrays = requests.features(name, 2, 5, HISTORY)
        found[name] = requests.predict(name, arrays)
    return found


def status_of(call: Callable[..., bytes], payload: bytes, *timeout: float):
    """The status of a call, with the response's bytes or the first words of the details."""
    try:
        return grpc.StatusCode.OK, call(payload, *timeout)
    except grpc.RpcError as error:
        return error.code(), " ".join((error.details() or "").split())[:200]


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
