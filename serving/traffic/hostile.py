"""Requests that no server should answer, each with the status that it has to give.

Every one is a good request with one thing wrong; the words that the details must hold tell that it
was refused for that and for nothing else.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import predict_pb2

from loopctr_tf.features.schema import Schema
from loopctr_tf.scoring import Signature, tensors
from traffic.cases import Answer, Case, Code
from traffic.good import HISTORY
from traffic.messages import MODEL, Arrays, predict_payload, versioned
from traffic.samples import RANK_CACHED, Sampler

INVALID = Code.INVALID_ARGUMENT
_MB = 1 << 20
_LONG = "y" * (10 * _MB)
_OTHER_DTYPES = {"f": np.float64, "i": np.float32, "O": np.int64}
_SIZES = "input size does not match signature"
_NO_TYPES = (types_pb2.DT_INVALID, types_pb2.DT_RESOURCE, types_pb2.DT_FLOAT_REF, 999)


class Bad:
    """Makes cases that every export refuses in the same way.

    Args:
      exports: their names.
    """

    def __init__(self, exports: Iterable[str]):
        self._exports = tuple(exports)

    def __call__(
        self, kind: str, payload: bytes, code: Code, words: str = "", method="Predict", weight=1.0
    ) -> Case:
        """A case: what is wrong, the request, its status and words of the details."""
        answers = dict.fromkeys(self._exports, Answer(code, words))
        return Case(kind, method, payload, answers, weight=weight)


def hostile_cases(
    exports: Iterable[str], sampler: Sampler, schema: Schema, names: list[str]
) -> Iterator[Case]:
    """Bad Predict requests to one signature of each kind, and to none.

    Args:
      exports: names of the exports; they reject bad input (``--bad-input reject``).
      sampler: of the features.
      schema: of the features.
      names: signatures that all the exports have.
    """
    bad = Bad(exports)
    yield from _model_specs(bad, sampler)
    ranking = sorted(name for name in names if name.startswith("rank_loop_"))
    for name in ("serving_default", *ranking[-1:], *({"cascade"} & set(names))):
        signature = sampler.signature(name)
        arrays = sampler.features(name, 3, 5, HISTORY)
        yield from _signature_cases(bad, signature, arrays)
        yield from _value_cases(bad, signature, arrays, schema)
    cached = sorted(name for name in names if name.startswith(RANK_CACHED))
    for name in cached[-1:]:
        yield from _state_cases(bad, sampler, name)


def abandoned_cases(good: Iterable[Case]) -> Iterator[Case]:
    """Good requests whose caller gives up at once, soon, or by a deadline that cannot be kept."""
    for case in good:
        settings = (case.method, case.payload, case.answers)
        for wait in (0.0, 0.003, 0.03):
            also = frozenset({Code.CANCELLED})
            yield Case("cancelled", *settings, also=also, cancel_after_s=wait, weight=0.5)
        for deadline in (0.0005, 0.005):
            also = frozenset({Code.DEADLINE_EXCEEDED})
            yield Case("tiny deadline", *settings, also=also, timeout_s=deadline, weight=0.5)


def _model_specs(bad: Bad, sampler: Sampler) -> Iterator[Case]:
    """What is wrong with whom a request is for."""
    arrays = sampler.features("serving_default", 2, 1, HISTORY)
    good = predict_pb2.PredictRequest.FromString(predict_payload("serving_default", arrays))

    def spec(change: Callable) -> bytes:
        request = predict_pb2.PredictRequest()
        request.CopyFrom(good)
        change(request)
        return request.SerializeToString()

    def named(**fields) -> bytes:
        return spec(lambda r: [setattr(r.model_spec, *pair) for pair in fields.items()])

    gone = "Servable not found for request"
    yield bad("unknown model", named(name="nobody"), Code.NOT_FOUND, gone)
    yield bad("unknown model", named(name=_LONG), Code.NOT_FOUND, gone, weight=0.1)
    for version in (0, -1, 2**40, 2**63 - 1):
        payload = versioned(good.SerializeToString(), version)
        yield bad("unknown version", payload, Code.NOT_FOUND, f"{MODEL}, {version})")
    label = named(version_label="stable")
    yield bad("unknown label", label, INVALID, "Unrecognized servable version label: stable")
    unknown = Code.FAILED_PRECONDITION
    words = 'Serving signature key "nope" not found.'
    yield bad("unknown signature", named(signature_name="nope"), unknown, words)
    huge = named(signature_name=_LONG)
    yield bad("unknown signature", huge, unknown, "Serving signature key", weight=0.1)
    yield bad("no model", spec(lambda r: r.ClearField("model_spec")), INVALID, "Missing ModelSpec")
    yield bad("no model", named(name=""), INVALID, "ModelSpec has no name")
    filtered = spec(lambda r: r.output_filter.append("nope"))
    yield bad("unknown output", filtered, INVALID, "output tensor alias not found")
    twice = spec(lambda r: r.output_filter.extend(["probability"] * 2))
    yield bad("output asked for twice", twice, INVALID, "duplicate output tensor alias")
    for method in ("Predict", "GetModelMetadata", "GetModelStatus"):
        for payload in (b"\xff" * 40, b"\x0a\x05ab", b"\x0a\x03\x0a\x01\xff"):
            yield bad("bytes that are no message", payload, INVALID, "", method)
    yield bad("unknown method", good.SerializeToString(), Code.UNIMPLEMENTED, "", "NoSuchMethod")
    yield bad("method not offered", b"", Code.UNIMPLEMENTED, "", "MultiInference")
    # Of GetModelMetadataRequest and GetModelStatusRequest the first field is the model_spec too.
    other = predict_pb2.PredictRequest()
    other.model_spec.name = "nobody"
    unknown_model = other.SerializeToString()
    words = "Could not find any versions"
    yield bad("unknown model", unknown_model, Code.NOT_FOUND, words, "GetModelStatus")
    yield bad("no metadata field", unknown_model, INVALID, "metadata_field", "GetModelMetadata")


def _payload(name: str, arrays: Arrays, **changes: tensor_pb2.TensorProto) -> bytes:
    """A request in which some tensors are exchanged as they are."""
    request = predict_pb2.PredictRequest.FromString(predict_payload(name, arrays))
    for alias, proto in changes.items():
        request.inputs[alias].CopyFrom(proto)
    return request.SerializeToString()


def _signature_cases(bad: Bad, signature: Signature, arrays: Arrays) -> Iterator[Case]:
    """Names, types, ranks and sizes that are not the signature's; tensors that are none."""
    name = signature.name

    def case(kind: str, changed: Arrays, words: str, weight: float = 1.0) -> Case:
        return bad(kind, predict_payload(name, changed), INVALID, words, weight=weight)

    for alias in list(arrays)[:3]:
        rest = {key: value for key, value in arrays.items() if key != alias}
        yield case("missing input", rest, _SIZES)
        yield case("misnamed input", {**rest, alias + "_": arrays[alias]}, alias)
    yield case("missing input", {}, _SIZES)
    yield case("extra input", {**arrays, "surplus": arrays[alias]}, _SIZES)
    yield case("extra input", {**arrays, _LONG: arrays[alias]}, _SIZES, 0.1)
    for alias, array in arrays.items():
        other = np.zeros(array.shape, _OTHER_DTYPES[array.dtype.kind])
        yield case("wrong dtype", {**arrays, alias: other}, "Expects arg[")
        row, value = array[:1].reshape(array.shape[1:]), array.ravel()[:1].reshape(())
        for wrong in (array[..., None], row, value):
            if wrong.ndim != array.ndim:
                changed = {**arrays, alias: wrong}
                yield case("wrong rank", changed, f'Input "{alias}" has shape')
        for wrong in (array[:1], array[:0], np.concatenate([array, array[:1]])):
            yield case("unequal rows", {**arrays, alias: wrong}, "first dimensions of")
        if alias in signature.candidates:
            changed = {**arrays, alias: array[:, :1]}
            yield case("unequal candidates", changed, "second dimensions of")
        for proto in _broken_tensors(array):
            payload = _payload(name, arrays, **{alias: proto})
            yield bad("tensor that is none", payload, INVALID, f"tensor parsing error: {alias}")


def _broken_tensors(array: np.ndarray) -> Iterator[tensor_pb2.TensorProto]:
    """Contents cut short, too long, or of another number than the shape says; no shapes, no types."""

    def changed(change: Callable) -> tensor_pb2.TensorProto:
        proto = tensors.to_proto(array)
        change(proto)
        return proto

    def sizes(*values: int) -> tensor_pb2.TensorProto:
        proto = changed(lambda p: p.tensor_shape.ClearField("dim"))
        for value in values:
            proto.tensor_shape.dim.add(size=value)
        return proto

    if array.dtype.kind != "O":
        content = array.tobytes()
        for wrong in (content[:-1], content[: array.itemsize], content + b"\0"):
            yield changed(lambda p, wrong=wrong: setattr(p, "tensor_content", wrong))
        yield sizes(*(2 * size for size in array.shape))
    else:
        packed = changed(lambda p: p.ClearField("string_val"))
        for content in (b"\x80", b"\xff" * 400, b"\x01" * array.size):
            packed.tensor_content = content
            yield packed
    yield sizes(*array.shape[1:], -1)
    yield sizes(2**40, 2**40)
    yield sizes(*[1] * 300)
    yield changed(lambda p: setattr(p.tensor_shape, "unknown_rank", True))
    for number in _NO_TYPES:
        yield changed(lambda p, number=number: setattr(p, "dtype", number))
    # One value that stands for terabytes.
    unfolded = sizes(2**45)
    unfolded.ClearField("tensor_content")
    yield unfolded


def _value_cases(bad: Bad, signature: Signature, arrays: Arrays, schema: Schema) -> Iterator[Case]:
    """Numbers and lengths that the graph refuses, naming the feature."""

    def case(kind: str, alias: str, value: float, words: str, place: tuple = (0,)) -> Case:
        array = arrays[alias].copy()
        array[place] = value
        payload = predict_payload(signature.name, {**arrays, alias: array})
        return bad(kind, payload, INVALID, words)

    numbers = [feature.name for feature in schema.features if feature.table is None]
    events = [f.name for s in schema.sequences for f in s.fields if f.table is None]
    for alias in numbers + events:
        places = [(0,) * arrays[alias].ndim, (-1,) * arrays[alias].ndim]
        for value in (np.nan, np.inf, -np.inf):
            for place in places:
                yield case("not finite", alias, value, f"{alias} must be finite", place)
    for sequence in schema.sequences:
        length, words = sequence.length_name, f"{sequence.length_name} must be from 0"
        for value in (-1, -(2**31)):
            yield case("negative length", length, value, words)
        for value in (HISTORY + 1, 2**31 - 1):
            yield case("length beyond the data", length, value, words, (-1,))
        if len(sequence.fields) > 1:
            alias = sequence.fields[0].name
            payload = predict_payload(signature.name, {**arrays, alias: arrays[alias][:, :-1]})
            yield bad("uneven events", payload, INVALID, "differ in their second dimension")
    if "refine_top_k" in arrays:
        yield case("negative refine_top_k", "refine_top_k", -1, "refine_top_k must be 0 or more")


def _state_cases(bad: Bad, sampler: Sampler, name: str) -> Iterator[Case]:
    """Users' states that no export made."""
    signature = sampler.signature(name)
    arrays = sampler.features(name, 2, 5, HISTORY)

    def state(tokens: int, version: str = "0123456789abcdef/1", **sizes: int) -> Arrays:
        made = {}
        for alias, info in signature.inputs.items():
            if alias.startswith("state_"):
                open_sizes = [2, sizes.get(alias, tokens)]
                shape = [open_sizes.pop(0) if size is None else size for size in info.shape]
                made[alias] = np.zeros(shape, info.dtype)
        return {**arrays, **made, "state_version": np.full(2, version, object)}

    foreign = state(4)
    words = "state_version must be"
    yield bad("foreign state", predict_payload(name, foreign), INVALID, words)
    huge = predict_payload(name, state(4, version=_LONG))
    yield bad("foreign state", huge, INVALID, words, weight=0.1)
    for alias in ("state_keys", "state_tower"):
        shape = list(foreign[alias].shape)
        shape[-1] += 1
        changed = {**foreign, alias: np.zeros(shape, foreign[alias].dtype)}
        payload = predict_payload(name, changed)
        yield bad("state of another model", payload, INVALID, f'Input "{alias}" has shape')
    without = predict_payload(name, {k: v for k, v in foreign.items() if k != "state_mask"})
    yield bad("state with a part missing", without, INVALID, "state_mask")
