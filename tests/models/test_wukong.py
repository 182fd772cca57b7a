import numpy as np
import pytest

import loopctr_tf as lc
from loopctr_tf.models.wukong import WukongConfig
from tests.factories import compact_schema
from tests.models import harness

GROUPS = (1, 4, 4, 4, 3, 1, 8, 5)
"""Widths of the small schema's features and sequences."""


def test_parameters_follow_the_formula():
    n, d, n_f, n_l, k, u = len(GROUPS), 8, 3, 2, 2, 6
    m = n_f + n_l
    projections = sum(width + 1 for width in GROUPS) * d

    def layer(n):
        machine = 3 * n * k + (n * k + 1) * u + (u + 1) * n_f * d
        return machine + n * n_l + 2 * d + (n * m if n != m else 0)

    tower = (m * d + 1) * 5 + 5 + 1
    found = harness.beside_tables(harness.make("wukong"))
    assert found == projections + layer(n) + layer(m) + tower


def test_a_layer_that_keeps_the_number_of_vectors_has_no_residual_map():
    def maps(model):
        return [weight.name for weight in model.weights if "residual" in weight.name]

    assert maps(harness.make("wukong")) == ["m/layer_0/residual/kernel:0"]
    assert maps(harness.make("wukong", compact_schema(), fm_outputs=1)) == []


def test_histories_enter_without_order():
    model = harness.make("wukong")
    features, _ = harness.batch()
    turned = dict(features)
    lengths = features["long_length"].numpy()
    for field in harness.FIELDS["long"]:
        values = features[field].numpy().copy()
        for row, length in enumerate(lengths):
            values[row, :length] = values[row, :length][::-1]
        turned[field] = values
    # Of more than max_length events the most recent ones stay, others than after the turn.
    short = lengths <= 9
    assert short.any()
    found, expected = harness.scores(model, turned), harness.scores(model, features)
    np.testing.assert_allclose(found[short], expected[short], atol=1e-6)


def test_sizes_are_checked():
    with pytest.raises(lc.UsageError, match="rank"):
        WukongConfig(rank=0)
