"""MTGR: who sees whom, its parameters and its settings."""

import numpy as np
import pytest
import tensorflow as tf

import loopctr_tf as lc
from tests.factories import HISTORY, LONG, compact_schema
from tests.models import harness
from tests.reference import mtgr

REQUEST = 3


def test_parameters_follow_the_formula():
    model = harness.make("mtgr")
    d, groups = 8, 4  # request features, two sequences, candidates
    hstu = harness.beside_tables(harness.make("hstu"))
    assert harness.beside_tables(model) == hstu + 2 * 4 * (groups - 1) * d


def full_batch():
    """Two users of full histories."""
    rng = np.random.default_rng(5)
    features, _ = harness.batch()
    users = {name: value[:2] for name, value in features.items()}
    for name, length in (("history", HISTORY), ("long", LONG)):
        users[f"{name}_length"] = tf.constant([length] * 2)
        users[f"{name}_movie"] = tf.constant(rng.choice(["m1", "m2", "m3"], (2, length)))
    users["history_genres"] = tf.constant(rng.choice(["drama", "action"], (2, HISTORY, 2)))
    users["history_gap"] = tf.constant(rng.exponential(9.0, (2, HISTORY)), tf.float32)
    users["long_rating"] = tf.constant(rng.uniform(0.0, 5.0, (2, LONG)), tf.float32)
    return users


ALL = np.arange(REQUEST + HISTORY + LONG)
PLACES = {"history": ALL[REQUEST : REQUEST + HISTORY], "long": ALL[REQUEST + HISTORY :]}


@pytest.mark.parametrize(
    ("causal", "sequence", "event", "expected"),
    [
        (None, "history", 3, PLACES["history"][3:]),
        (None, "long", LONG - 1, ALL),
        ([], "history", 3, ALL),
        (["history", "long"], "long", 7, [*PLACES["history"], *PLACES["long"][7:]]),
    ],
)
def test_an_event_moves_those_that_see_it_and_no_others(causal, sequence, event, expected):
    model = harness.make("mtgr", causal_sequences=causal)
    users = full_batch()
    before = model.encode_user(model.encoder(users), ("",))[0]["keys"]
    movies = users[f"{sequence}_movie"].numpy()
    movies[:, event] = "m9"
    users[f"{sequence}_movie"] = tf.constant(movies)
    after = model.encode_user(model.encoder(users), ("",))[0]["keys"]
    # Keys of the second layer are made of what the first one read.
    moved = np.abs(after - before)[:, 1].max(axis=(0, 2)) > 1e-6
    np.testing.assert_array_equal(np.flatnonzero(moved), expected)


def test_without_request_features_no_group_stands_for_them():
    values = compact_schema().to_dict()
    values["features"] = [f for f in values["features"] if f["side"] == "item"]
    model = harness.make("mtgr", lc.Schema.from_dict(values))
    assert model.stack[0].groups == 2
    features, _ = harness.batch(model.schema)
    tokens = model.encoder({name: value[:2] for name, value in features.items()})
    found = model.forward(tokens, False, model.heads).logits[:, 0]
    np.testing.assert_allclose(found, mtgr.logits(model, tokens), atol=1e-5)


def test_sequences_that_do_not_exist_are_refused():
    with pytest.raises(
        lc.UsageError,
        match=r"causal_sequences names \['short'\]; the schema's sequences are \['history', 'long'\]",
    ):
        harness.make("mtgr", causal_sequences=["short", "long"])
