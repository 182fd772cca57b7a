"""The load-balancing loss worked out by hand, in value and gradient, on one replica and on two."""

import numpy as np
import pytest
import tensorflow as tf

from loopctr_tf.models.loopctr.balance import balance_share

# Two routers of two experts: assignments counted, and probabilities summed, over the depths 0 and 1.
STATISTICS = np.float32(
    [
        # f = (3/4, 1/4), p = (.6, .4): 2 (.45 + .1) = 1.1. It does not run at depth 1.
        [[[3.0, 1.0], [2.4, 1.6]], [[0.0, 0.0], [0.0, 0.0]]],
        # Uniform: 1. Then all to one expert: f = (1, 0), p = (.9, .1): 1.8.
        [[[2.0, 2.0], [2.0, 2.0]], [[4.0, 0.0], [3.6, 0.4]]],
    ]
)
BALANCE = (1.1 + (1.0 + 1.8) / 2) / 2


def test_value_and_gradient_worked_out_by_hand():
    statistics = tf.Variable(STATISTICS)
    with tf.GradientTape() as tape:
        loss = balance_share(statistics)
    assert float(loss) == pytest.approx(BALANCE, rel=1e-6)
    # Only probabilities are differentiable: 1 / 2 routers / depths * E f_e / tokens.
    expected = np.zeros_like(STATISTICS)
    expected[0, 0, 1] = 1 / 2 * 2 * np.array([0.75, 0.25]) / 4
    expected[1, 0, 1] = 1 / 2 / 2 * 2 * np.array([0.5, 0.5]) / 4
    expected[1, 1, 1] = 1 / 2 / 2 * 2 * np.array([1.0, 0.0]) / 4
    np.testing.assert_allclose(tape.gradient(loss, statistics), expected, atol=1e-7)


def test_routers_that_never_ran_have_no_say():
    """Without a loop, the routers of the Loop Block have nothing to balance."""
    idle = np.zeros_like(STATISTICS[:1])
    assert float(balance_share(np.concatenate([STATISTICS, idle]))) == pytest.approx(BALANCE)
    assert float(balance_share(tf.zeros_like(STATISTICS))) == 0.0


@pytest.mark.parametrize("first", [2, 3, 0])
def test_shares_of_unequal_replicas_add_up_to_the_whole_batch(two_devices, first):
    """``first`` of four rows go to the first replica, the rest to the second."""
    by_row = np.random.default_rng(0).uniform(0.1, 1.0, [4, 2, 3, 2, 2]).astype(np.float32)

    def run(by_row):
        with tf.GradientTape() as tape:
            tape.watch(by_row)
            share = balance_share(tf.reduce_sum(by_row, axis=0))
        return share, tape.gradient(share, by_row)

    expected, expected_gradient = run(tf.constant(by_row))
    cut = [by_row[:first], by_row[first:]]
    parts = two_devices.experimental_distribute_values_from_function(
        lambda context: tf.constant(cut[context.replica_id_in_sync_group])
    )
    shares, gradients = tf.function(
        lambda parts: two_devices.run(run, args=(parts,)), autograph=False
    )(parts)
    local = two_devices.experimental_local_results
    assert float(tf.add_n(local(shares))) == pytest.approx(float(expected), rel=1e-5)
    np.testing.assert_allclose(tf.concat(local(gradients), 0), expected_gradient, atol=1e-6)
