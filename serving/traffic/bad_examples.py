"""tf.Examples, and requests with them, that no server should answer."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from tensorflow.core.example import example_pb2

from loopctr_tf.features.schema import Schema
from traffic.cases import Case
from traffic.good import HISTORY
from traffic.hostile import INVALID, Bad
from traffic.messages import examples_request, predict_payload
from traffic.samples import EXAMPLE_SIGNATURES, Sampler


def bad_example_cases(
    exports: Iterable[str], sampler: Sampler, schema: Schema, names: list[str]
) -> Iterator[Case]:
    """Bad examples to ``classify`` and ``regress``, and both methods where they do not belong.

    Args:
      exports: names of the exports.
      sampler: of the features.
      schema: of the features.
      names: signatures that all the exports have.
    """
    bad = Bad(exports)
    for name in sorted(set(EXAMPLE_SIGNATURES) & set(names)):
        first, second = sampler.examples(2, HISTORY)
        for kind, wrong, words in _bad_rows(first, schema):
            payload = predict_payload(name, {"inputs": np.array([second, wrong], object)})
            yield bad(kind, payload, INVALID, words)
        method = name.capitalize()
        empty = examples_request(method, name, [])
        yield bad("no examples", empty.SerializeToString(), INVALID, "Input is empty", method)
        whole = examples_request(method, name, [first])
        # The example's own bytes end the message.
        cut = whole.SerializeToString()[:-7]
        yield bad("bytes that are no message", cut, INVALID, "", method)
        for feature in _numbers(schema):
            _set_number(whole.input.example_list.examples[0], feature, np.nan)
            payload = whole.SerializeToString()
            yield bad("not finite", payload, INVALID, "must be finite", method)
    for method in ("Classify", "Regress"):
        for name in ("serving_default", "nope"):
            wrong = examples_request(method, name, sampler.examples(1, 1))
            yield bad("wrong method", wrong.SerializeToString(), INVALID, "", method)


def _bad_rows(serialized: bytes, schema: Schema) -> Iterator[tuple[str, bytes, str]]:
    """What is wrong, the row, words of the refusal."""

    def changed(change: Callable) -> bytes:
        example = example_pb2.Example.FromString(serialized)
        change(example)
        return example.SerializeToString()

    for garbage in (b"\xff" * 50, b"no example at all", serialized[:-3], b"\x0a\xff\xff\xff\x7f"):
        yield "bytes that are no tf.Example", garbage, ""
    single = [f.name for f in schema.features if f.type != "multi_categorical"]
    for name in single:
        without = changed(lambda e, name=name: e.features.feature.pop(name))
        yield "example without a feature", without, name
        empty = changed(lambda e, name=name: e.features.feature[name].Clear())
        yield "example without a feature", empty, name
    yield "example without a feature", b"", ""
    field = schema.features[0]
    if field.table is not None:
        wrong = changed(lambda e: e.features.feature[field.name].float_list.value.append(1.0))
        yield "example with a wrong type", wrong, field.name
    for name in _numbers(schema):
        infinite = changed(lambda e, name=name: _set_number(e, name, np.inf))
        yield "not finite", infinite, f"{name} must be finite"
    for sequence in schema.sequences:
        if len(sequence.fields) < 2:
            continue
        name = sequence.fields[0].name
        values = {"string": ("bytes_list", b"x"), "int64": ("int64_list", 1)}
        table = sequence.fields[0].table
        kind, value = ("float_list", 1.0) if table is None else values[schema.table(table).dtype]
        longer = changed(
            lambda e, name=name, kind=kind, value=value: getattr(
                e.features.feature[name], kind
            ).value.append(value)
        )
        yield "uneven events", longer, "has another number of events"


def _numbers(schema: Schema) -> list[str]:
    return [feature.name for feature in schema.features if feature.table is None]


def _set_number(example: example_pb2.Example, name: str, value: float) -> None:
    example.features.feature[name].float_list.value[0] = value
