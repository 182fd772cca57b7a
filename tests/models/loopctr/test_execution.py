"""`tf.while_loop` and the unrolled loops give the same numbers, in a graph and without one."""

import numpy as np
import pytest
import tensorflow as tf

import loopctr_tf as lc
from loopctr_tf.models.loopctr.balance import balance_share
from loopctr_tf.models.settings import ExecutionConfig
from tests.factories import compact_schema, random_batch, tiny_model


@pytest.fixture(scope="module")
def batch():
    return random_batch(6, schema=compact_schema())


def small(**settings):
    return tiny_model(schema=compact_schema(), streams=1, **settings)


def step(model, features, labels):
    """Logits, router statistics, loss, balance loss and the gradient for every weight."""
    with tf.GradientTape() as tape:
        logits, statistics = model(features, training=True, return_statistics=True)
        balance = balance_share(statistics)
        loss = tf.reduce_mean(logits * (labels[:, None] - 0.4)) + 0.5 * balance
    gradients = tape.gradient(loss, model.trainable_variables)
    return {
        "logits": logits,
        "statistics": statistics,
        "loss": loss,
        "balance": balance,
        **{
            weight.name: tf.convert_to_tensor(gradient)
            for weight, gradient in zip(model.trainable_variables, gradients, strict=True)
        },
    }


def loops_in(function) -> bool:
    return bool({"While", "StatelessWhile"} & {op.type for op in function.graph.get_operations()})


@pytest.fixture(scope="module")
def plain(batch):
    """One eager step of the unrolled model, experts grouped, nothing computed twice."""
    return step(small(loops=2, expert_dispatch="grouped"), *batch)


WAYS = {
    "while": {"loop_execution": "while"},
    "recompute": {"recompute": True},
    "xla": {"xla": True},
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_all_ways_agree_in_outputs_losses_and_gradients(way, batch, plain):
    expected, model = plain, small(loops=2, **WAYS[way])
    function = tf.function(lambda: step(model, *batch), autograph=False).get_concrete_function()
    actual = function()
    assert loops_in(function) == (way == "while")
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        scale = max(1.0, float(tf.reduce_max(tf.abs(value))))
        np.testing.assert_allclose(actual[name], value, atol=1e-5 * scale, err_msg=name)
    assert float(expected["balance"]) > 1.0
    assert all(np.any(value) for value in expected.values())


def test_scores_of_a_while_loop_in_a_graph_are_those_without_one(batch):
    features, _ = batch
    looped = small(loops=1, loop_execution="while")
    unrolled = small(loops=1)
    function = tf.function(lambda: looped(features, loops=3), autograph=False)
    assert loops_in(function.get_concrete_function())
    np.testing.assert_allclose(function(), unrolled(features, loops=3), atol=1e-5)


def test_automatic_execution_gives_the_same_numbers(batch):
    features, _ = batch
    automatic = small(loops=2, loop_execution="auto")
    np.testing.assert_allclose(automatic(features), small(loops=2)(features), atol=1e-6)
    for training in (True, False):
        function = tf.function(
            lambda training=training: automatic(features, training=training), autograph=False
        )
        assert loops_in(function.get_concrete_function()) == (not training)


def test_what_xla_and_recompute_refuse():
    model = small(loops=0, xla=True)
    with pytest.raises(lc.UsageError, match=r"jit_compile is True; leave it out.*xla=True"):
        model.compile("adam", jit_compile=True)
    with pytest.raises(lc.UsageError, match="expert_dispatch is 'grouped'; XLA needs sizes"):
        ExecutionConfig(xla=True, expert_dispatch="grouped")
    for setting in ("xla", "recompute"):
        with pytest.raises(lc.UsageError, match="loop_execution is 'while'; xla and recompute"):
            ExecutionConfig(loop_execution="while", **{setting: True})
