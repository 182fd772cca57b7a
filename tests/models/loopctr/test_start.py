"""At initialisation the model is a plain pre-norm Transformer: neither streams nor experts show yet."""

import numpy as np
import pytest
import tf_keras as keras

import loopctr_tf as lc
from tests.factories import (
    compact_schema,
    copy_weights,
    disturb,
    random_batch,
    tiny_config,
    tiny_model,
)


@pytest.fixture(scope="module")
def batch():
    return random_batch(6, schema=compact_schema())


def small(**settings):
    """A model as it starts where its sub-layers do something from the beginning."""
    settings = {"zero_outputs": False, **settings}
    return tiny_model(schema=compact_schema(), seed=None, **settings)


def with_random_tables(model):
    """The embeddings and projections moved from their small first values; the blocks as they start."""
    model.encoder.embeddings["movie"].set_weights(
        [np.random.default_rng(1).standard_normal([14, 4]).astype(np.float32)]
    )
    return model


def test_hyper_connections_start_as_plain_residuals_at_every_depth(batch):
    features, _ = batch
    many = with_random_tables(small(streams=3, loops=4))
    plain = small(streams=1, loops=4)
    copy_weights(many, plain)
    expected = plain(features).numpy()
    assert np.abs(np.diff(expected, axis=1)).max() > 1e-4
    np.testing.assert_allclose(many(features), expected, atol=1e-5)
    # Not so any more once its weights have moved.
    disturb(many)
    disturb(plain)
    assert np.abs(many(features) - plain(features)).max() > 1e-2


def test_by_default_no_depth_changes_a_token_at_the_start_and_every_one_learns(batch):
    features, labels = batch
    model = with_random_tables(small(zero_outputs=True))
    logits = model(features).numpy()
    assert np.ptp(logits[:, 0]) > 1e-3
    np.testing.assert_allclose(logits, np.repeat(logits[:, :1], logits.shape[1], axis=1), atol=1e-5)
    model.compile(keras.optimizers.SGD(1.0), run_eagerly=True)
    for _ in range(3):
        model.train_on_batch(features, labels)
    assert np.abs(np.diff(model(features), axis=1)).max() > 1e-5


def test_hyper_connections_add_4_d_plus_10_parameters_a_sub_layer():
    def block(streams):
        model = small(streams=streams)
        return model.loop_block.count_params(), model.entry_block.count_params()

    d = 8
    for many, plain in zip(block(2), block(1), strict=True):
        assert many - plain == 2 * (4 * d + 10)


def test_equal_experts_start_as_one_dense_expert(batch):
    features, _ = batch
    mixture = with_random_tables(small(experts=4, active_experts=2))
    dense = small(experts=1, active_experts=1)
    by_name = {weight.name: weight for weight in mixture.weights}
    for weight in dense.weights:
        value = by_name[weight.name]
        expert = len(weight.shape) == 3  # [experts, in, out]
        router = "router" in weight.name
        weight.assign(value[:1] if expert else value[:, :1] if router else value)
    np.testing.assert_allclose(mixture(features), dense(features), rtol=1e-5, atol=1e-6)


def test_unequal_experts_start_apart():
    inner = small(equal_experts=False).loop_block.ffn.inner
    assert np.abs(inner[0] - inner[1]).max() > 1e-2
    equal = small().loop_block.ffn.inner
    np.testing.assert_array_equal(equal[0], equal[1])


def test_two_models_start_differently_unless_seeded(batch):
    def logits(seed):
        keras.utils.set_random_seed(seed)
        return lc.LoopCTR(compact_schema(), tiny_config(loops=1))(batch[0]).numpy()

    first = logits(5)
    np.testing.assert_array_equal(logits(5), first)
    assert np.abs(logits(6) - first).max() > 1e-3
