"""`loopctr bench hostile`: malformed requests, each of which a server has to refuse in one way."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import grpc
import numpy as np
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

from loopctr_tf.bench.requests import FIRST_S, Endpoint, Requests, is_length, status_of
from loopctr_tf.features.schema import Schema
from loopctr_tf.scoring import Signature, tensors

_Code = grpc.StatusCode
_LONG = "y" * (10 << 20)
_OTHER_TYPE = {"f": np.float64, "i": np.float32, "O": np.int64}
_HISTORY = 3


class Hostile(NamedTuple):
    """One way to spoil a request.

    Attributes:
      change: changes a good request, given its signature, or returns bytes to send instead; returns
        False where the request has nothing to spoil in this way.
      code: the status that is expected.
      method: of PredictionService.
      in_graph: the graph refuses it, unless the export repairs bad input.
    """

    change: Callable[[PredictRequest, Signature], Any]
    code: grpc.StatusCode = _Code.INVALID_ARGUMENT
    method: str = "Predict"
    in_graph: bool = False


def _spec(**fields):
    return lambda request, _: [setattr(request.model_spec, *pair) for pair in fields.items()]


def _clear(field: str):
    return lambda request, _: request.ClearField(field)


def _tensor(spoil: Callable, kinds: str = "fiO", fits=lambda alias, info: True):
    """Spoils the tensor of the first input of some kinds (float, integer, object) that ``fits``."""

    def change(request, signature):
        for alias, info in sorted(signature.inputs.items()):
            if info.dtype.kind in kinds and alias in request.inputs and fits(alias, info):
                return spoil(request.inputs[alias])
        return False

    return change


def _array(spoil: Callable[[np.ndarray], np.ndarray], *which):
    """Like :func:`_tensor`, with the input as an array."""

    def of_array(proto):
        proto.CopyFrom(tensors.to_proto(spoil(tensors.to_array(proto))))

    return _tensor(of_array, *which)


def _first(value: float, *which):
    return _array(lambda a: np.concatenate([np.full_like(a[:1], value), a[1:]]), *which)


def _sizes(*sizes: int):
    def spoil(proto):
        proto.tensor_shape.ClearField("dim")
        for size in sizes:
            proto.tensor_shape.dim.add(size=size)

    return _tensor(spoil)


def _if_several(change):
    return lambda request, s: len(request.inputs) > 1 and change(request, s)


def _content(spoil: Callable[[bytes], bytes], kinds: str):
    def change(proto):
        proto.ClearField("string_val")
        proto.tensor_content = spoil(proto.tensor_content)

    return _tensor(change, kinds)


def _copied(name: str):
    return lambda request, _: request.inputs[name].CopyFrom(request.inputs[min(request.inputs)])


def _removed(request, _):
    del request.inputs[min(request.inputs)]


def _renamed(request, signature):
    _copied("~misnamed")(request, signature)
    _removed(request, signature)


def _one_candidate(request, signature):
    if len(signature.candidates) < 2:
        return False
    return _array(lambda a: a[:, :1], "fiO", lambda a, _: a in signature.candidates)(
        request, signature
    )


HOSTILE: dict[str, Hostile] = {
    "unknown model": Hostile(_spec(name="nobody"), _Code.NOT_FOUND),
    "unknown version": Hostile(
        lambda r, _: setattr(r.model_spec.version, "value", 2**40), _Code.NOT_FOUND
    ),
    "unknown label": Hostile(_spec(version_label="no such label")),
    "unknown signature": Hostile(_spec(signature_name="nope"), _Code.FAILED_PRECONDITION),
    "signature name of 10 MB": Hostile(_spec(signature_name=_LONG), _Code.FAILED_PRECONDITION),
    "no model": Hostile(_clear("model_spec")),
    "unknown output": Hostile(lambda r, _: r.output_filter.append("nope")),
    "output asked for twice": Hostile(lambda r, s: r.output_filter.extend([min(s.outputs)] * 2)),
    "not a message": Hostile(lambda r, _: b"\xff" * 40),
    "unknown method": Hostile(lambda r, _: None, _Code.UNIMPLEMENTED, "NoSuchMethod"),
    "metadata without a field": Hostile(_clear("inputs"), method="GetModelMetadata"),
    "no inputs": Hostile(_clear("inputs")),
    "missing input": Hostile(_removed),
    "misnamed input": Hostile(_renamed),
    "extra input": Hostile(_copied("surplus")),
    "extra input with a name of 10 MB": Hostile(_copied(_LONG)),
    "wrong type": Hostile(_array(lambda a: np.zeros(a.shape, _OTHER_TYPE[a.dtype.kind]))),
    "one axis too many": Hostile(_array(lambda a: a[..., None])),
    "no axis": Hostile(_array(lambda a: a.ravel()[:1].reshape(()))),
    "no rows in one input": Hostile(_if_several(_array(lambda a: a[:0]))),
    "more rows in one input": Hostile(_if_several(_array(lambda a: np.concatenate([a, a[:1]])))),
    "fewer candidates in one input": Hostile(_one_candidate),
    "numbers cut short": Hostile(_content(lambda content: content[:-1], "fi")),
    "one byte too many": Hostile(_content(lambda content: content + b"\0", "fi")),
    "strings that are not strings": Hostile(_content(lambda content: b"\xff" * 40, "O")),
    "negative size": Hostile(_sizes(-1)),
    "sizes whose product overflows": Hostile(_sizes(2**40, 2**40)),
    "one value for terabytes": Hostile(_sizes(2**45)),
    "300 axes": Hostile(_sizes(*[1] * 300)),
    "unknown rank": Hostile(_tensor(lambda p: setattr(p.tensor_shape, "unknown_rank", True))),
    "no type": Hostile(_tensor(lambda p: setattr(p, "dtype", types_pb2.DT_INVALID))),
    "NaN": Hostile(_first(np.nan, "f"), in_graph=True),
    "negative length": Hostile(_first(-1, "i", is_length), in_graph=True),
    "length beyond the data": Hostile(_first(2**31 - 1, "i", is_length), in_graph=True),
    "negative refine_top_k": Hostile(
        _first(-1, "i", lambda alias, _: alias == "refine_top_k"), in_graph=True
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
        if made is not False:
            payload = made if isinstance(made, bytes) else copied.SerializeToString()
            yield name, method, payload, _Code.OK if repairs and in_graph else code


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
            signature = requests.signatures[name]
            for what, method, message, wanted in spoilt(request, signature, repairs):
                code, details = status_of(endpoint.call(channel, method), message)
                sent += 1
                if code is not wanted:
                    found = f"{code.name} instead of {wanted.name}: {details}"
                    problems.append(f"{name}: {what}: {found}")
            after = status_of(endpoint.call(channel), payload)
            if before[0] is not _Code.OK or not alike(before[1], after[1]):
                problems.append(f"{name}: a good request is answered otherwise: {after[0].name}")
    report = {"target": endpoint.target, "requests": sent, "signatures": sorted(good)}
    return {**report, "problems": problems}


def good_requests(requests: Requests) -> dict[str, PredictRequest]:
    """A small Predict request by signature, for all that need no user's state.

    Those that take tf.Examples are left out without a schema.
    """
    found = {}
    for name, signature in sorted(requests.signatures.items()):
        if "inputs" in signature.inputs and requests.schema is not None:
            arrays = {"inputs": np.array(requests.examples(2, _HISTORY), object)}
        elif "inputs" in signature.inputs or "state_version" in signature.inputs:
            continue
        else:
            arrays = requests.features(name, 2, 5, _HISTORY)
        found[name] = requests.predict(name, arrays)
    return found


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
