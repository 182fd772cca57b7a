"""Every registered model through the harness."""

import re

import numpy as np
import pytest

from loopctr_tf.models import MODELS
from loopctr_tf.training.optimizers import UNDECAYED
from tests.models import harness


@pytest.fixture(scope="module", params=sorted(MODELS))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name):
    return harness.make(name)


def test_every_model_has_settings_in_the_harness():
    assert set(harness.SETTINGS) == set(MODELS)


def test_weights_exist_before_the_first_batch(model):
    assert model.built
    assert model.count_params() > 0
    names = [weight.name for weight in model.weights]
    assert len(set(names)) == len(names)
    assert all(name.startswith("m/") for name in names)


def test_biases_gains_and_learned_tokens_are_not_decayed(model):
    decayed = [w for w in model.weights if not any(re.search(p, w.name) for p in UNDECAYED)]
    assert decayed
    assert [w.name for w in decayed if w.shape.rank < 2] == []


def test_a_model_comes_back_from_a_file_and_goes_on(model, tmp_path):
    harness.check_every_weight_moves(harness.check_saving(model, tmp_path))


@pytest.mark.parametrize("other", ["din", "hstu"])
def test_any_model_may_be_given_the_age_of_events(other):
    aged = harness.make(other, event_recency=True)
    features, _ = harness.batch()
    harness.check_padding(aged)
    harness.check_ranking(aged)
    assert type(aged).from_config(aged.get_config()).config.event_recency
    (weights,) = aged.encoder.recency["history"].get_weights()
    before = harness.scores(aged, features)
    aged.encoder.recency["history"].set_weights([weights[::-1]])
    assert np.abs(harness.scores(aged, features) - before).max() > 1e-4


def test_padding_never_moves_a_score(model):
    harness.check_padding(model)


def test_ranking_equals_row_by_row_whatever_the_order(model):
    harness.check_ranking(model)


def test_an_export_scores_alike_without_the_library(name, tmp_path):
    harness.check_export(name, tmp_path)


def test_mixed_precision_stays_near_float32(name, model):
    harness.check_mixed_precision(name, model)


@pytest.mark.slow
@pytest.mark.parametrize("each", ["loopctr", "dlrm"])
def test_two_devices_equal_one(each, two_devices):
    """With regularisers and without: only the objective, which all models share, asks for replicas."""
    harness.check_two_devices(each, two_devices)
