"""What is special to Hiformer."""

import numpy as np
import pytest
import tensorflow as tf

import loopctr_tf as lc
from tests.factories import compact_schema
from tests.models import harness
from tests.reference import hiformer as reference

KINDS = [("pair", None), ("composite", None), ("composite", 3)]


@pytest.mark.parametrize(("projection", "rank"), KINDS)
def test_parameters_follow_the_formula(projection, rank):
    model = harness.make("hiformer", projection=projection, rank=rank)
    d, f, count = 8, 6, 9  # six features, two sequences, the task token
    groups = sum(width + 1 for width in (1, 4, 4, 4, 3, 1, 8, 5)) * d
    layers = 0
    for outputs in (count, 1):
        tokens = 2 * count + outputs
        if projection == "pair":
            layers += tokens * d**2
        else:
            layers += tokens * count * d**2 if rank is None else (5 * count + outputs) * d * rank
        layers += outputs * (d**2 + 2 * d * f + f + d) + 4 * d
    tower = (d + 1) * 5 + 5 + 1
    assert harness.beside_tables(model) == groups + d + layers + 2 * d + tower


@pytest.mark.parametrize(("projection", "rank"), KINDS)
def test_every_projection_equals_the_slow_version(projection, rank):
    model = harness.make("hiformer", compact_schema(), projection=projection, rank=rank)
    features, _ = harness.batch(compact_schema())
    tokens = model.encoder({name: value[:2] for name, value in features.items()})
    found = model.forward(tokens, False, model.heads).logits[:, 0]
    np.testing.assert_allclose(found, reference.logits(model, tokens), atol=1e-5)


def test_a_low_rank_is_a_full_matrix_of_that_rank():
    low = harness.make("hiformer", rank=3)
    full = harness.make("hiformer", rank=None)
    products = {}
    for weight in low.weights:
        if weight.name.endswith("down:0"):
            up = next(w for w in low.weights if w.name == weight.name.replace("down", "up"))
            products[weight.name.replace("down", "kernel")] = tf.matmul(weight, up)
        else:
            products[weight.name] = weight
    for weight in full.weights:
        weight.assign(products[weight.name])
    features, _ = harness.batch()
    np.testing.assert_allclose(full(features), low(features), atol=1e-5)


def test_settings_are_checked():
    with pytest.raises(lc.UsageError, match="heads is 3; give a divisor of dim"):
        harness.make("hiformer", heads=3)
    with pytest.raises(lc.UsageError, match=r"rank is 3, but projection is 'pair'.*leave rank out"):
        harness.make("hiformer", projection="pair")
