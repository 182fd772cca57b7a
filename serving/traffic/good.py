"""Requests that callers send, each with the answer of every export."""

from collections.abc import Iterator, Mapping

import numpy as np

from traffic.cases import Answer, Case, Code
from traffic.messages import Arrays, examples_request, predict_payload
from traffic.references import Reference
from traffic.samples import ENCODE, EXAMPLE_SIGNATURES, RANK_CACHED, Sampler

HISTORY = 20
"""Events of most requests."""
ROWS = ((1, HISTORY), (7, HISTORY), (64, HISTORY), (3, 300), (2, 0), (0, HISTORY))
"""(B, T) of requests to pointwise signatures, B = 0 and T = 0 among them."""
LISTS = ((1, 100), (1, 500), (3, 17), (2, 0), (0, 5))
"""(R, N) of requests to ranking signatures."""
_HUGE = "x" * (10 << 20)
_ODD = (b"\xff\xfe no text", b"a\x00b", "日本".encode(), b"")
_TIE = 1e-3
"""Scores of candidates that are this close may change places between two runs."""


def good_cases(
    references: Mapping[str, Reference],
    sampler: Sampler,
    names: list[str],
    rows: tuple = ROWS,
    lists: tuple = LISTS,
) -> Iterator[Case]:
    """Requests to the signatures ``names``.

    Args:
      references: export -> it, loaded.
      sampler: of the features.
      names: signatures that all the exports have.
      rows: (B, T) of requests to pointwise signatures.
      lists: (R, N) of requests to ranking signatures.
    """
    for name in names:
        if name in EXAMPLE_SIGNATURES:
            yield from _example_cases(references, sampler, name, rows)
        elif name.startswith(RANK_CACHED):
            yield from _cached_cases(references, sampler, name, lists)
        elif name.startswith("rank") or name == "cascade":
            for requests, candidates in lists:
                arrays = sampler.features(name, requests, candidates, HISTORY, mixed=True)
                if name == "cascade":
                    arrays["refine_top_k"][:] = settled(references, arrays)
                yield good_case(references, name, arrays)
        else:
            for count, history in rows:
                yield good_case(
                    references, name, sampler.features(name, count, 1, history, mixed=True)
                )
    yield from _odd_cases(references, sampler)


def good_case(references: Mapping[str, Reference], name: str, arrays: Arrays, **settings) -> Case:
    """A Predict request that every export answers."""
    return Case(
        settings.pop("kind", name),
        "Predict",
        predict_payload(name, arrays),
        {
            label: Answer(outputs=reference.outputs(name, arrays))
            for label, reference in references.items()
        },
        good=True,
        **settings,
    )


def _example_cases(references, sampler, name, rows) -> Iterator[Case]:
    """The signature by Predict, and by the method that it is made for."""
    for count, history in rows:
        if not count:
            continue
        examples = sampler.examples(count, history)
        case = good_case(references, name, {"inputs": np.array(examples, object)})
        yield case
        method = name.capitalize()
        payload = examples_request(method, name, examples).SerializeToString()
        yield Case(method, method, payload, case.answers, good=True)


def _cached_cases(references, sampler, name, lists) -> Iterator[Case]:
    """Each export's own users' states, which the others have to refuse."""
    encode = ENCODE + name.removeprefix(RANK_CACHED)
    for requests, candidates in lists:
        user = sampler.features(encode, requests, candidates, HISTORY, mixed=True)
        arrays = sampler.features(name, requests, candidates, HISTORY)
        for owner, reference in references.items():
            state = reference.outputs(encode, user)
            outputs = reference.outputs(name, {**arrays, **state})
            refusal = Answer(Code.INVALID_ARGUMENT, "state_version must be")
            answers = dict.fromkeys(references, refusal if requests else Answer())
            payload = predict_payload(name, {**arrays, **state})
            answers[owner] = Answer(outputs=outputs)
            yield Case(name, "Predict", payload, answers, good=True)


def settled(references: Mapping[str, Reference], arrays: Arrays) -> int:
    """Of how many candidates the choice is the same in every run: the cut lies in a gap of scores."""
    requests, candidates = arrays["refine_top_k"].shape[0], 0
    gaps = []
    for reference in references.values():
        none = {**arrays, "refine_top_k": np.zeros_like(arrays["refine_top_k"])}
        scores = np.sort(reference.outputs("cascade", none)["probability"], axis=1)[:, ::-1]
        candidates = scores.shape[1]
        gaps.append(scores[:, :-1] - scores[:, 1:])
    if not requests or candidates < 2:
        return candidates
    narrowest = np.min(np.concatenate(gaps), axis=0)
    best = int(np.argmax(narrowest))
    return best + 1 if narrowest[best] > _TIE else candidates


def _odd_cases(references, sampler) -> Iterator[Case]:
    """Strings that are valid, and that few would expect: 10 MB, no UTF-8, zeros inside."""
    name = "serving_default"
    strings = [a for a, i in sampler.signature(name).inputs.items() if i.is_string]
    for kind, values, weight in (("string of 10 MB", (_HUGE,), 0.1), ("odd bytes", _ODD, 1.0)):
        for alias in strings[:2]:
            arrays = sampler.features(name, len(values), 1, HISTORY)
            first = (0,) * (arrays[alias].ndim - 1)
            for row, value in enumerate(values):
                arrays[alias][(row, *first)] = value
            yield good_case(references, name, arrays, kind=kind, weight=weight)
