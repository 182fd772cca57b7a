"""One user against N candidates equals scoring row by row; foreign or uneven inputs are refused."""

import numpy as np
import pytest
import tensorflow as tf

from loopctr_tf.bench.workload import candidate_features, user_features, workload_schema
from loopctr_tf.export.signatures import _stored
from loopctr_tf.export.validity import (
    aligned,
    checked_state_version,
    refine_counts,
    same_sizes,
    validated,
)
from loopctr_tf.models import LoopCTR, chunks
from tests.factories import disturb, random_batch, tiny_config, tiny_model
from tests.operations import watched

REQUESTS, CANDIDATES = 4, 3


@pytest.fixture(scope="module")
def model():
    made = tiny_model()
    disturb(made)
    return made


@pytest.fixture(scope="module")
def sides(model):
    """User features [R, ...], candidate features [R, N, ...], and both as R N rows."""
    features, _ = random_batch(REQUESTS * CANDIDATES, seed=3)
    candidate = {feature.name for feature in model.schema.candidate_features}
    inputs = model.schema.inputs
    user = {name: features[name][:REQUESTS] for name in inputs if name not in candidate}
    items = {
        name: tf.reshape(features[name], [REQUESTS, CANDIDATES, *features[name].shape[1:]])
        for name in inputs
        if name in candidate
    }
    rows = {name: tf.repeat(value, CANDIDATES, axis=0) for name, value in user.items()}
    return user, items, rows | {name: features[name] for name in candidate}


def encoded(model, user, loops):
    (state,) = model.encode_user(model.encoder(user), (f"loop_{loops}",))
    return state


def rank(model, state, items, loops):
    return model.rank(state, model.encoder(items), f"loop_{loops}")


def pointwise(model, rows, loops):
    return model.score(rows, loops=loops).numpy().reshape(REQUESTS, CANDIDATES)


def test_chunks_of_candidates_are_scored_alike(model, sides, monkeypatch):
    user, items, _ = sides
    many = {name: tf.concat([value] * 2, axis=1) for name, value in items.items()}
    cache = encoded(model, user, 1)
    at_once = rank(model, cache, many, 1)
    for weights in (1, 600):  # chunks of one candidate, and of a few
        monkeypatch.setattr(chunks, "WEIGHTS_AT_A_TIME", weights)
        np.testing.assert_allclose(rank(model, cache, many, 1), at_once, atol=1e-6)


def test_the_users_tokens_are_never_copied_for_a_candidate(monkeypatch):
    events, count, dim, loops = 40, 50, 32, 1
    config = tiny_config(dim=dim, heads=2, streams=2)
    model = LoopCTR(workload_schema(events), config)
    user = {k: tf.constant(v) for k, v in user_features(model.schema, 1).items()}
    items = {k: tf.constant(v) for k, v in candidate_features((1, count)).items()}
    copied = count * events * dim
    with watched() as seen:
        rank(model, encoded(model, user, loops), items, loops)
    assert max(seen.elements.values()) < copied
    with watched() as seen:
        model.score(
            {k: tf.repeat(v, count, 0) for k, v in user.items()}
            | {k: v[0] for k, v in items.items()},
            loops,
        )
    assert max(seen.elements.values()) >= copied  # row by row they are
    # And what grows with both, the attention weights, is made for a chunk at a time.
    monkeypatch.setattr(chunks, "WEIGHTS_AT_A_TIME", 1000)
    with watched() as seen:
        rank(model, encoded(model, user, loops), items, loops)
    assert max(seen.elements[name] for name in ("Softmax", "BatchMatMulV2")) <= 2 * events * (
        events + 1
    )


@pytest.mark.parametrize("settings", [{"history_mean": True, "sink": False}, {"tower_units": []}])
def test_options_that_the_users_side_knows_of(sides, settings):
    user, items, rows = sides
    made = tiny_model(**settings)
    disturb(made)
    for loops in (0, 1):
        ranked = rank(made, encoded(made, user, loops), items, loops)
        np.testing.assert_allclose(ranked, pointwise(made, rows, loops), atol=1e-6)


@pytest.mark.parametrize("settings", [{"history_mean": True, "tower_units": []}])
def test_ranking_in_mixed_precision_is_near_scoring_row_by_row(sides, settings):
    user, items, rows = sides
    # All experts, so that a rounding never becomes another choice.
    made = tiny_model(precision="mixed_bfloat16", active_experts=3, **settings)
    for loops in (0, 2):
        cache = encoded(made, user, loops)
        assert (cache["keys"].dtype, cache["tower"].dtype) == (tf.bfloat16, tf.float32)
        ranked = rank(made, cache, items, loops)
        assert ranked.dtype == tf.float32
        np.testing.assert_allclose(ranked, pointwise(made, rows, loops), atol=0.02)


def test_the_user_state_at_zero_loops_holds_no_user_tokens(model, sides):
    cache = encoded(model, sides[0], 0)
    assert cache["tokens"].shape[2] == 0
    assert cache["keys"].shape[1] == 1
    deeper = encoded(model, sides[0], 2)
    assert deeper["tokens"].shape[2] == len(model.schema.request_features)
    assert deeper["keys"].shape[1] == 3


def test_cascade_refines_each_requests_best(model, sides):
    user, items, rows = sides
    shallow, deep = (pointwise(model, rows, loops) for loops in (0, 2))
    wanted = [0, 1, 2, 9]
    sides = model.encoder(user), model.encoder(items)
    probability, refined = model.cascade(*sides, tf.constant(wanted), ("loop_0", "loop_2"))
    for request, count in enumerate(wanted):
        best = np.argsort(-shallow[request])[:count]
        expected, looped = shallow[request].copy(), np.zeros(CANDIDATES, bool)
        expected[best], looped[best] = deep[request][best], True
        np.testing.assert_allclose(probability[request], expected, atol=1e-6)
        np.testing.assert_array_equal(refined[request], looped)


# What would be repeated in silence is refused.


def fails(message: str):
    return pytest.raises(tf.errors.InvalidArgumentError, match=message)


@pytest.mark.parametrize(("mode", "name"), [("reject", "history_length"), ("repair", "age")])
def test_one_row_beside_many_is_refused(model, sides, mode, name):
    rows = {**sides[2], name: sides[2][name][:1]}
    with fails("first dimensions of .* must be equal"):
        validated(rows, model.schema, mode)


def test_candidate_features_need_one_number_of_candidates(model, sides):
    user, items, _ = sides
    aligned({**user, **items}, model.schema)
    with fails("second dimensions of .*affinity.* must be equal"):
        validated({**user, **items, "affinity": items["affinity"][:, :1]}, model.schema, "reject")


def test_refine_top_k_counts_and_size(model, sides):
    user, items, _ = sides
    with fails("refine_top_k must be 0 or more"):
        refine_counts(tf.constant([1, -1]), "reject")
    assert refine_counts(tf.constant([1, -1]), "repair").numpy().tolist() == [1, 0]
    with fails("first dimensions of .*refine_top_k.* must be equal"):
        aligned({**user, **items, "refine_top_k": tf.constant([1])}, model.schema)


def test_foreign_states_are_refused():
    checked_state_version(tf.constant(["a/0", "a/0"]), "a/0")
    with fails("state_version must be a/0, this model's; encode the user again"):
        checked_state_version(tf.constant(["a/0", "b/0"]), "a/0")
    specs = {"keys": tf.TensorSpec([None, 1, 3, 4])}
    same_sizes({"keys": tf.ones([2, 1, 3, 4])}, specs)
    with fails(r"keys must have the sizes \[1, 3, 4\] after its first; received"):
        same_sizes({"keys": tf.ones([2, 1, 2, 4])}, specs)


@pytest.mark.parametrize("loops", [0, 2])
def test_padding_of_a_state_changes_nothing(model, sides, loops):
    user, items, _ = sides
    user = {
        n: v[:, :3] if n.startswith("history") and v.shape.rank > 1 else v for n, v in user.items()
    }
    user["history_length"] = tf.minimum(user["history_length"], 3)
    cache = encoded(model, user, loops)
    specs = model.state_specs(f"loop_{loops}", tf.float32)
    wide = {name: _stored(cache[name], spec) for name, spec in specs.items()}
    assert wide["keys"].shape[2] > cache["keys"].shape[2]
    np.testing.assert_allclose(
        rank(model, wide, items, loops),
        rank(model, cache, items, loops),
        atol=1e-6,
    )
