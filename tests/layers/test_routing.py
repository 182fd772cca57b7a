import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers import Router, balance_loss
from tests.layers import harness
from tests.layers.harness import Case, mask_of, normal
from tests.reference import moe


def test_router_by_hand():
    # Logits ln 1, ln 2, ln 4, ln 1: probabilities 1/8, 2/8, 4/8, 1/8; of the best two 1/3 and 2/3.
    gates, statistics = router(np.log([[1, 2, 4, 1]]), 2)(tf.constant([[1.0]]))
    np.testing.assert_allclose(gates, [[0, 1 / 3, 2 / 3, 0]], rtol=1e-6)
    np.testing.assert_allclose(statistics, [[0, 1, 1, 0], [1 / 8, 2 / 8, 4 / 8, 1 / 8]], rtol=1e-6)


def test_balance_loss_by_hand():
    # f = (2/3, 1/3), p = (1.9/3, 1.1/3): 2 (3.8 + 1.1) / 9.
    assert balance_loss(tf.constant([[2.0, 1.0], [1.9, 1.1]])).numpy() == pytest.approx(9.8 / 9)


EXPERTS = 4


def routes(w, x, mask, active):
    return [
        moe.route(x[place], w["kernel"], active)
        for place in np.ndindex(*x.shape[:-1])
        if mask is None or mask[place]
    ]


def case(active=2, mask=None, shape=(2, 3, 5)):
    x = normal(*shape)

    def reference(w, x, mask=None):
        gates = [moe.route(token, w["kernel"], active).gates for token in x.reshape(-1, 5)]
        return (
            np.reshape(gates, [*x.shape[:-1], EXPERTS]),
            moe.statistics(routes(w, x, mask, active), EXPERTS),
        )

    return Case(
        lambda **kwargs: Router(EXPERTS, active, **kwargs),
        (x,) if mask is None else (x, mask),
        reference,
    )


def router(kernel, active, dtype="float32"):
    layer = Router(np.shape(kernel)[1], active, dtype=dtype)
    layer.build([None, np.shape(kernel)[0]])
    layer.kernel.assign(kernel)
    return layer


@pytest.mark.parametrize("check", harness.CHECKS)
def test_layer(check, tmp_path):
    check(case(mask=mask_of([3, 1], 3)), tmp_path)


@pytest.mark.parametrize("active", [1, 2, 3, 4])
def test_any_number_of_active_experts(active):
    harness.equals_reference(case(active, shape=(2, 2, 2, 5)))


class BalanceOfRouter(Router):
    """Gives the balance loss of a router, for the reference to be held against."""

    def call(self, x, mask=None):
        return balance_loss(super().call(x, mask).statistics)


@pytest.mark.parametrize("active", [1, 2])
def test_balance_loss_equals_its_reference(active):
    def reference(w, x, mask):
        return np.array(moe.balance_loss(routes(w, x, mask, active), EXPERTS))

    harness.equals_reference(
        Case(
            lambda **kwargs: BalanceOfRouter(EXPERTS, active, **kwargs),
            (normal(3, 4, 5), mask_of([4, 0, 2], 4)),
            reference,
        )
    )


# The router.


@pytest.mark.parametrize("active", [1, 2, 3])
def test_ties_are_broken_to_exactly_k(active):
    equal = router(np.zeros([5, EXPERTS]), active)(tf.constant(normal(6, 5), tf.float32))
    expected = np.array([1.0] * active + [0.0] * (EXPERTS - active)) / active
    np.testing.assert_allclose(equal.gates, np.tile(expected, [6, 1]), rtol=1e-6)
    np.testing.assert_array_equal(equal.statistics[0], 6 * (expected > 0))
    np.testing.assert_allclose(equal.statistics[1], [6 / EXPERTS] * EXPERTS, rtol=1e-6)


def test_logits_of_any_size_give_finite_gates_and_gradients():
    layer = router([[1.0, -1.0, 0.5, 0.0]], 2)
    x = tf.constant([[1e30], [-1e30], [0.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        gates, statistics = layer(x)
        total = tf.reduce_sum(tf.square(gates)) + tf.reduce_sum(tf.square(statistics))
    np.testing.assert_allclose(gates[0], [1, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(gates[1], [0, 1, 0, 0], atol=1e-6)
    for part in (gates, statistics, *tape.gradient(total, [x, layer.kernel])):
        assert np.isfinite(part).all()


def test_every_option_is_kept():
    layer = Router(3, 2, "ones")
    copy = keras.layers.deserialize(keras.layers.serialize(layer))
    assert (copy.experts, copy.active_experts) == (3, 2)
    copy.build([None, 2])
    np.testing.assert_array_equal(copy.kernel, np.ones([2, 3]))


def test_router_and_statistics_stay_float32_in_half_precision():
    layer = router(normal(5, EXPERTS, seed=1), 2, "mixed_bfloat16")
    x = tf.constant(normal(3, 5), tf.bfloat16)
    gates, statistics = layer(x)
    assert gates.dtype == tf.bfloat16
    assert statistics.dtype == tf.float32
    logits = np.asarray(tf.cast(x, tf.float64)) @ layer.kernel.numpy().astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(statistics[1], shares.sum(axis=0), rtol=1e-5)


# The balance loss.


def test_balance_loss_is_one_at_uniform_routing():
    # Each of four tokens prefers an expert of its own, and all equally strongly.
    for active in (1, 2, 4):
        statistics = router(np.eye(4) + np.roll(np.eye(4), 1, axis=1) / 2, active)(
            tf.eye(4)
        ).statistics
        np.testing.assert_allclose(statistics[0], [active] * 4)
        np.testing.assert_allclose(balance_loss(statistics), 1, rtol=1e-6)
    equal = router(np.zeros([5, EXPERTS]), 2)(tf.constant(normal(6, 5), tf.float32))
    np.testing.assert_allclose(balance_loss(equal.statistics), 1, rtol=1e-6)


def test_balance_loss_is_the_number_of_experts_where_one_has_all():
    statistics = router([[100.0, 0.0, 0.0, 0.0]], 1)(tf.ones([7, 1])).statistics
    np.testing.assert_allclose(balance_loss(statistics), EXPERTS, rtol=1e-6)


def test_balance_loss_of_nothing_is_zero_with_finite_gradient():
    statistics = tf.zeros([2, EXPERTS])
    with tf.GradientTape() as tape:
        tape.watch(statistics)
        loss = balance_loss(statistics)
    assert loss.numpy() == 0
    np.testing.assert_array_equal(tape.gradient(loss, statistics), np.zeros([2, EXPERTS]))


def test_balance_loss_pulls_on_probabilities_alone():
    statistics = tf.constant([[3.0, 1.0], [1.5, 2.5]])
    with tf.GradientTape() as tape:
        tape.watch(statistics)
        loss = balance_loss(statistics)
    # E f_e / N for the probabilities, with f = (3/4, 1/4) and N = 4.
    np.testing.assert_allclose(tape.gradient(loss, statistics), [[0, 0], [3 / 8, 1 / 8]], rtol=1e-6)


def test_balance_loss_has_one_value_for_each_leading_index():
    one, other = [[2.0, 1.0], [1.9, 1.1]], [[1.0, 1.0], [1.0, 1.0]]
    np.testing.assert_allclose(balance_loss(tf.constant([one, other])), [9.8 / 9, 1], rtol=1e-6)
