"""Requests that a server merges are scored as if each had come alone, where the kit's rules are kept."""

import numpy as np
import pytest
import tensorflow as tf

from loopctr_tf.export.signatures import signature_makers
from loopctr_tf.export.warmup import BATCH_SIZES
from tests.serving.compact import GENRES, MAX_GENRES, MOVIES, compact_model
from tests.serving.merging import merge, split


@pytest.fixture(scope="module")
def run():
    """A call: signature, inputs -> outputs, of a zero-loop model exported to mend bad input."""
    makers, functions = signature_makers(compact_model(), ("loop_0",), bad_input="repair"), {}

    def run(signature, inputs):
        if signature not in functions:
            functions[signature] = makers[signature]()
        outputs = functions[signature](**{name: tf.constant(v) for name, v in inputs.items()})
        return {name: value.numpy() for name, value in outputs.items()}

    return run


def _pick(rng, values, *shape):
    return np.array(values, object)[rng.integers(len(values), size=shape)]


def _user(rng, rows, events=4):
    return {
        "age": rng.integers(18, 60, rows).astype(np.float32),
        "history_movie": _pick(rng, MOVIES, rows, events),
        "history_genres": _pick(rng, GENRES, rows, events, MAX_GENRES),
        "history_length": rng.integers(0, events + 1, rows).astype(np.int32),
    }


def _items(rng, *shape):
    return {
        "movie_id": _pick(rng, MOVIES, *shape),
        "genres": _pick(rng, GENRES, *shape, MAX_GENRES),
    }


def _merged(run, signature, requests):
    return split(run(signature, merge(requests, BATCH_SIZES)), requests)


def test_the_reference_pads_with_the_first_element_and_fills_up_with_a_row():
    first = {"x": np.array([[1, 2, 3]]), "n": np.array([3])}
    second = {"x": np.array([[7], [8]]), "n": np.array([1, 1])}
    merged = merge([first, second], (2, 5))
    assert merged["x"].tolist() == [[1, 2, 3], [7, 7, 7], [8, 7, 7], [7, 7, 7], [7, 7, 7]]
    assert merged["n"].tolist() == [3, 1, 1, 1, 1]
    parts = split(merged, [first, second])
    assert [part["n"].tolist() for part in parts] == [[3], [1, 1]]


def test_rows_with_histories_of_any_length(run):
    rng = np.random.default_rng(1)
    requests = [
        {**_user(rng, rows, events), **_items(rng, rows)}
        for rows, events in ((1, 4), (2, 1), (3, 7))
    ]
    for request, answer in zip(requests, _merged(run, "serving_default", requests), strict=True):
        alone = run("serving_default", request)["probability"]
        np.testing.assert_allclose(answer["probability"], alone, atol=1e-6)


def test_candidate_lists_of_any_length_are_the_first_of_a_longer_answer(run):
    rng = np.random.default_rng(2)
    requests = [
        {**_user(rng, 1, events), **_items(rng, 1, candidates)}
        for candidates, events in ((3, 2), (5, 6))
    ]
    answers = _merged(run, "rank_loop_0", requests)
    assert [answer["probability"].shape for answer in answers] == [(1, 5), (1, 5)]
    for request, answer, size in zip(requests, answers, (3, 5), strict=True):
        alone = run("rank_loop_0", request)["probability"]
        np.testing.assert_allclose(answer["probability"][:, :size], alone, atol=1e-6)


def test_multi_valued_features_must_be_sent_at_full_width(run):
    """The reason for the rule: filled up by the server, they gain values."""
    rng = np.random.default_rng(3)
    narrow = {**_user(rng, 1), **_items(rng, 1)}
    narrow["genres"] = np.array([["x", "y"]], object)
    wide = {**_user(rng, 1), **_items(rng, 1)}
    alone = run("serving_default", narrow)["probability"]
    merged = _merged(run, "serving_default", [narrow, wide])[0]["probability"]
    assert abs(merged[0] - alone[0]) > 1e-4

    filled = np.full((1, MAX_GENRES), "", object)
    filled[:, :2] = narrow["genres"]
    kept = _merged(run, "serving_default", [{**narrow, "genres": filled}, wide])[0]["probability"]
    np.testing.assert_allclose(kept, alone, atol=1e-6)


def test_a_bad_request_harms_none_beside_it(run):
    rng = np.random.default_rng(4)
    good, bad = ({**_user(rng, 2), **_items(rng, 2)} for _ in range(2))
    bad["history_length"] = np.array([-3, 99], np.int32)
    bad["age"] = np.array([np.nan, np.inf], np.float32)
    answers = _merged(run, "serving_default", [good, bad])
    alone = run("serving_default", good)["probability"]
    np.testing.assert_allclose(answers[0]["probability"], alone, atol=1e-6)
    assert np.isfinite(answers[1]["probability"]).all()


def test_states_may_be_merged_whatever_the_histories(run):
    rng = np.random.default_rng(5)
    users = [_user(rng, 1, events) for events in (4, 4, 2)]
    for user in users:
        user["history_length"][:] = user["history_movie"].shape[1]
    items = [_items(rng, 1, 3) for _ in users]
    alone = [
        run("rank_loop_0", {**user, **item})["probability"]
        for user, item in zip(users, items, strict=True)
    ]
    states = [run("encode_user_loop_0", user) for user in users]
    requests = [{**state, **item} for state, item in zip(states, items, strict=True)]

    merged = _merged(run, "rank_cached_loop_0", requests)
    for answer, wanted in zip(merged, alone, strict=True):
        np.testing.assert_allclose(answer["probability"], wanted, atol=1e-5)


def test_states_leave_a_merged_run_fit_to_be_used(run):
    rng = np.random.default_rng(6)
    users = [_user(rng, 1, events) for events in (5, 2)]
    items = _items(rng, 1, 3)
    for user, state in zip(users, _merged(run, "encode_user_loop_0", users), strict=True):
        wanted = run("rank_loop_0", {**user, **items})["probability"]
        cached = run("rank_cached_loop_0", {**state, **items})["probability"]
        np.testing.assert_allclose(cached, wanted, atol=1e-5)
