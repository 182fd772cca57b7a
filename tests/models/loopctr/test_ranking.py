"""One user against N candidates equals scoring row by row; foreign or uneven inputs are refused."""

import numpy as np
import pytest
import tensorflow as tf

from loopctr_tf.bench.workload import candidate_features, user_features, workload_model
from loopctr_tf.export.validity import (
    aligned,
    checked_state_version,
    refine_counts,
    same_tokens,
    validated,
)
from loopctr_tf.models.loopctr import ranking
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
    inputs = model.schema.input_specs()
    user = {name: features[name][:REQUESTS] for name in inputs if name not in candidate}
    items = {
        name: tf.reshape(features[name], [REQUESTS, CANDIDATES, *features[name].shape[1:]])
        for name in inputs
        if name in candidate
    }
    rows = {name: tf.repeat(value, CANDIDATES, axis=0) for name, value in user.items()}
    return user, items, rows | {name: features[name] for name in candidate}


def pointwise(model, rows, loops):
    return model.score(rows, loops=loops).numpy().reshape(REQUESTS, CANDIDATES)


@pytest.mark.parametrize("loops", [0, 1, 2])
def test_ranking_equals_scoring_row_by_row(model, sides, loops):
    user, items, rows = sides
    ranked = ranking.rank(model, ranking.encode_user(model, user, loops), items, loops)
    np.testing.assert_allclose(ranked, pointwise(model, rows, loops), atol=1e-6)


def test_the_order_of_candidates_does_not_matter(model, sides):
    user, items, _ = sides
    cache = ranking.encode_user(model, user, 1)
    turned = {name: value[:, ::-1] for name, value in items.items()}
    np.testing.assert_allclose(
        ranking.rank(model, cache, turned, 1),
        ranking.rank(model, cache, items, 1)[:, ::-1],
        atol=1e-6,
    )


@pytest.mark.parametrize("loops", [0, 2])
@pytest.mark.parametrize("weights", [1, 600])  # chunks of one candidate, and of a few
def test_chunks_of_candidates_are_scored_alike(model, sides, loops, weights, monkeypatch):
    user, items, _ = sides
    many = {name: tf.concat([value] * 5, axis=1) for name, value in items.items()}
    cache = ranking.encode_user(model, user, loops)
    at_once = ranking.rank(model, cache, many, loops)
    monkeypatch.setattr(ranking, "WEIGHTS_AT_A_TIME", weights)
    np.testing.assert_allclose(ranking.rank(model, cache, many, loops), at_once, atol=1e-6)


@pytest.mark.parametrize("loops", [0, 2])
def test_the_users_tokens_are_never_copied_for_a_candidate(loops, monkeypatch):
    events, count, dim = 40, 50, 32
    config = tiny_config(dim=dim, heads=2, streams=2)
    model = workload_model(events, 0, config)
    user = {k: tf.constant(v) for k, v in user_features(model.schema, 1).items()}
    items = {k: tf.constant(v) for k, v in candidate_features((1, count)).items()}
    copied = count * events * dim
    with watched() as seen:
        ranking.rank(model, ranking.encode_user(model, user, loops), items, loops)
    assert max(seen.elements.values()) < copied
    with watched() as seen:
        model.score(
            {k: tf.repeat(v, count, 0) for k, v in user.items()}
            | {k: v[0] for k, v in items.items()},
            loops,
        )
    assert max(seen.elements.values()) >= copied  # row by row they are
    # And what grows with both, the attention weights, is made for a chunk at a time.
    monkeypatch.setattr(ranking, "WEIGHTS_AT_A_TIME", 1000)
    with watched() as seen:
        ranking.rank(model, ranking.encode_user(model, user, loops), items, loops)
    assert max(seen.elements[name] for name in ("Softmax", "BatchMatMulV2")) <= 2 * events * (
        events + 1
    )


def test_no_candidates_are_no_scores(model, sides):
    user, items, _ = sides
    none = {name: value[:, :0] for name, value in items.items()}
    for loops in (0, 1):
        cache = ranking.encode_user(model, user, loops)
        assert ranking.rank(model, cache, none, loops).shape == (REQUESTS, 0)


@pytest.mark.parametrize("settings", [{"history_mean": True}, {"sink": False}, {"tower_units": []}])
def test_options_that_the_users_side_knows_of(sides, settings):
    user, items, rows = sides
    made = tiny_model(**settings)
    disturb(made)
    for loops in (0, 1):
        ranked = ranking.rank(made, ranking.encode_user(made, user, loops), items, loops)
        np.testing.assert_allclose(ranked, pointwise(made, rows, loops), atol=1e-6)


@pytest.mark.parametrize("settings", [{"history_mean": True}, {"tower_units": []}])
def test_ranking_in_mixed_precision_is_near_scoring_row_by_row(sides, settings):
    user, items, rows = sides
    # All experts, so that a rounding never becomes another choice.
    made = tiny_model(precision="mixed_bfloat16", active_experts=3, **settings)
    for loops in (0, 2):
        cache = ranking.encode_user(made, user, loops)
        assert [x.dtype for x in cache] == [tf.as_dtype(x) for x in ranking.cache_dtypes(made)]
        ranked = ranking.rank(made, cache, items, loops)
        assert ranked.dtype == tf.float32
        np.testing.assert_allclose(ranked, pointwise(made, rows, loops), atol=0.02)


def test_the_user_state_at_zero_loops_holds_no_user_tokens(model, sides):
    cache = ranking.encode_user(model, sides[0], 0)
    assert cache.tokens.shape[2] == 0
    assert cache.keys.shape[1] == 1
    deeper = ranking.encode_user(model, sides[0], 2)
    assert deeper.tokens.shape[2] == len(model.schema.request_features)
    assert deeper.keys.shape[1] == 3


def test_cascade_refines_each_requests_best(model, sides):
    user, items, rows = sides
    shallow, deep = (pointwise(model, rows, loops) for loops in (0, 2))
    wanted = [0, 1, 2, 9]
    probability, depth = ranking.cascade(model, user, items, tf.constant(wanted), 2)
    for request, count in enumerate(wanted):
        best = np.argsort(-shallow[request])[:count]
        expected, looped = shallow[request].copy(), np.zeros(CANDIDATES)
        expected[best], looped[best] = deep[request][best], 2
        np.testing.assert_allclose(probability[request], expected, atol=1e-6)
        np.testing.assert_array_equal(depth[request], looped)


# What would be repeated in silence is refused.


def fails(message: str):
    return pytest.raises(tf.errors.InvalidArgumentError, match=message)


@pytest.mark.parametrize("mode", ["reject", "repair"])
@pytest.mark.parametrize("name", ["history_length", "history_gap", "age"])
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
    same_tokens(3, tf.ones([2, 3]), tf.ones([2, 1, 3, 4]), tf.ones([2, 1, 3, 4]))
    with fails("must have 3 tokens; received"):
        same_tokens(3, tf.ones([2, 3]), tf.ones([2, 1, 3, 4]), tf.ones([2, 1, 2, 4]))


@pytest.mark.parametrize("loops", [0, 1])
def test_padding_of_a_state_changes_nothing(model, sides, loops):
    user, items, _ = sides
    cache = ranking.encode_user(model, user, loops)
    wide = ranking.padded(cache, model.sequence_tokens + 2)
    assert wide.keys.shape[2] == model.sequence_tokens + 2 > cache.keys.shape[2]
    np.testing.assert_allclose(
        ranking.rank(model, wide, items, loops),
        ranking.rank(model, cache, items, loops),
        atol=1e-6,
    )
