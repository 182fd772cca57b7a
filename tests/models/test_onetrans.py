import numpy as np
import pytest
import tensorflow as tf

import loopctr_tf as lc
from loopctr_tf.layers.counting import count_flops
from tests.factories import compact_schema
from tests.models import harness


def test_parameters_follow_the_formula():
    model = harness.make("onetrans")
    d, inner, layers, features = 8, 6, 3, 6
    projections = sum(width + 1 for width in (1, 4, 4, 4, 3, 1, 8, 5)) * d
    positions = (5 + 9) * d + d  # the last d is the separator
    block = (features + 1) * (4 * d**2 + 2 * d * inner) + 2 * d
    unread = 2 * d**2 + 2 * d * inner
    tower = (features * d + 1) * 5 + 5 + 1
    expected = projections + positions + layers * block - unread + d + tower
    assert harness.beside_tables(model) == expected


def test_queries_fall_linearly_from_all_events_to_the_last_layer():
    """A full line is 5 + 1 + 9 tokens, and there are 6 features beside the sequences."""

    def queries(**settings):
        return harness.make("onetrans", **settings).queries

    assert queries(layers=1) == [0]
    assert queries(layers=4, final_queries=3) == [15, 11, 7, 0]
    assert queries(layers=4, final_queries=None) == [15, 12, 9, 0]  # to 6
    assert queries(layers=3, final_queries=None, pyramid=False) == [15, 15, 0]


def test_a_state_has_the_pyramids_sizes():
    model = harness.make("onetrans", layers=4, final_queries=3)
    features, _ = harness.batch()
    user, _, _ = harness.sides(model, features)
    (state,) = model.encode_user(model.encoder(user), ("",))
    specs = model.state_specs("", tf.float32)
    assert set(state) == set(specs)
    # Three user and context features, and the events that each layer reads.
    assert [specs[f"keys_{i}"].shape[1] for i in range(4)] == [3 + 15, 3 + 15, 3 + 11, 3 + 7]
    for name, spec in specs.items():
        assert state[name].shape[1] <= spec.shape[1]


def test_events_that_issue_no_query_are_read_nevertheless():
    model = harness.make("onetrans", compact_schema(), layers=3, final_queries=1)
    assert model.queries == [5, 3, 0]
    tokens = model.encoder(harness.batch(compact_schema())[0])
    events, mask = model._line(tokens.sequences)
    moved = tf.concat([events[:, :4], events[:, 4:] + 1], axis=1)
    layer = model.stack[1]
    found = [layer.step_events(x, mask)[0] for x in (events, moved)]
    assert found[0].shape[1] == 3
    assert np.abs(found[0] - found[1]).max() > 1e-3


@pytest.mark.parametrize("pyramid", [True, False])
def test_more_padding_never_moves_a_score(pyramid):
    settings = {} if pyramid else {"pyramid": False, "final_queries": None}
    model = harness.make("onetrans", compact_schema(), **settings)
    if not pyramid:  # the harness has the other
        harness.check_padding(model)
    features, _ = harness.batch(model.schema)
    row = {name: value[1:2] for name, value in features.items()}
    np.testing.assert_allclose(model.score(row), model.score(features)[1:2], atol=1e-6)


def test_a_candidate_never_changes_what_is_stored_of_a_user():
    """In one pass over the whole line, no event and no user's token depends on the candidate."""
    model = harness.make("onetrans", compact_schema())
    features, _ = harness.batch(model.schema)
    tokens = model.encoder(features)
    other = tokens._replace(candidate=[token + 1 for token in tokens.candidate])
    found = []
    for groups in (tokens, other):
        events, mask = model._line(groups.sequences)
        x = model._features([*groups.request, *groups.candidate])[:, None]
        for layer in model.stack:
            events, keys, values = layer.step_events(events, mask)
            x, own, _ = layer.step_features(x, keys, values, mask)
            mask = mask[:, : layer.queries]
        found.append((x, own))
    users = len(tokens.request)
    for one, another in zip(*found, strict=True):
        np.testing.assert_array_equal(one[:, :, :users], another[:, :, :users])
        assert np.abs(one[:, :, users:] - another[:, :, users:]).min() > 0


def test_a_pyramid_costs_less():
    features, _ = harness.batch(compact_schema())
    counted = []
    for settings in ({}, {"pyramid": False, "final_queries": None}):
        with count_flops() as operations:
            harness.make("onetrans", compact_schema(), **settings)(features)
        counted.append(sum(operations))
    assert counted[0] < counted[1]


def test_a_schema_without_request_features_ranks():
    schema = compact_schema()
    values = schema.to_dict()
    values["features"] = [f for f in values["features"] if f["name"] == "movie_id"]
    schema = lc.Schema.from_dict(values)
    model = harness.make("onetrans", schema)
    features, _ = harness.batch(schema)
    user, candidates, pairs = harness.sides(model, features)
    expected = model.score(pairs).numpy().reshape(harness.ROWS, -1)
    np.testing.assert_allclose(harness.rank(model, user, candidates, ""), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 3}, "heads is 3; give a divisor of dim"),
        ({"final_queries": 16}, "final_queries is 16; give at most 15"),
        ({"pyramid": False}, "final_queries is 1 without a pyramid; leave it out"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(lc.UsageError, match=message):
        harness.make("onetrans", **settings)
