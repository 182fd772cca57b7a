"""DIN's parameters and settings, and what reaches the events."""

import numpy as np
import pytest
import tensorflow as tf

import loopctr_tf as lc
from tests.models import harness


def test_parameters_follow_the_formula():
    model = harness.make("din")
    d, request, candidate = 8, 1 + 4 + 4, 4 + 3 + 1
    unit = (4 * d + 1) * 5 + (5 + 1) * 3 + 3 + 1
    projections = sum(width + 1 for width in (candidate, 8, 5)) * d
    tower = (request + candidate + 2 * d + 1) * 6 + 6 + 1
    assert harness.beside_tables(model) == projections + 2 * unit + tower


def test_the_candidate_decides_what_the_events_give():
    model = harness.make("din")
    tokens = model.encoder(harness.batch()[0])
    sequence, longest = tokens.sequences[0], int(np.argmax(tokens.sequences[0].lengths))
    events = model.projection.project(sequence.tokens, 1)
    seen = []
    for scale in (0.0, 1.0):
        candidate = tf.concat([scale * token for token in tokens.candidate], axis=-1)
        target = model.projection.project(candidate, 0)
        seen.append(model.units[0](target, events, sequence.mask)[longest].numpy())
    assert np.abs(seen[0] - seen[1]).max() > 1e-2


def test_the_order_of_events_means_nothing():
    model, (features, _) = harness.make("din"), harness.batch()
    turned = dict(features)
    lengths = features["long_length"].numpy()
    for field in harness.FIELDS["long"]:
        values = features[field].numpy()
        for row, length in enumerate(lengths):
            values[row, :length] = values[row, :length][::-1]
        turned[field] = values
    # A batch's histories are already cut to what the model reads.
    assert lengths.max() <= 9
    found, expected = harness.scores(model, turned), harness.scores(model, features)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_activation_units_need_a_hidden_layer():
    with pytest.raises(lc.UsageError, match="attention_units"):
        harness.make("din", attention_units=[])
