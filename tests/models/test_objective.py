import math

import numpy as np
import pytest
import tensorflow as tf

from loopctr_tf.models.objective import BatchMean, MultiDepthObjective, replicas, sum_over_replicas

LN2, LN3 = math.log(2), math.log(3)

# A logit of 0 costs ln 2 whatever the label, one of ln 3 costs ln(4/3) at label 1 and ln 4 at 0.
LABELS = [1.0, 0.0]
LOGITS = [[0.0, LN3], [LN3, -LN3]]
LOSSES = [[LN2, math.log(4 / 3)], [math.log(4), math.log(4 / 3)]]
BY_DEPTH = [(LN2 + math.log(4)) / 2, math.log(4 / 3)]

# Two routers of two experts: assignments counted, and probabilities summed, over the depths 0 and 1.
STATISTICS = [
    # f = (3/4, 1/4), p = (.6, .4): 2 (.45 + .1) = 1.1. It does not run at depth 1.
    [[[3.0, 1.0], [2.4, 1.6]], [[0.0, 0.0], [0.0, 0.0]]],
    # Uniform: 1. Then all to one expert: f = (1, 0), p = (.9, .1): 1.8.
    [[[2.0, 2.0], [2.0, 2.0]], [[4.0, 0.0], [3.6, 0.4]]],
]
BALANCE = (1.1 + (1.0 + 1.8) / 2) / 2


def results(objective) -> dict[str, float]:
    return {metric.name: float(metric.result()) for metric in objective.tracked_metrics}


def evaluate(objective, labels=LABELS, logits=LOGITS, statistics=STATISTICS, sample_weight=None):
    weights = None if sample_weight is None else tf.constant(sample_weight)
    return float(
        objective(tf.constant(labels), tf.constant(logits), tf.constant(statistics), weights)
    )


def test_the_objective_worked_out_by_hand():
    objective = MultiDepthObjective(2, balance_weight=0.5)
    expected = sum(BY_DEPTH) / 2 + 0.5 * BALANCE
    assert evaluate(objective) == pytest.approx(expected, rel=1e-6)
    assert results(objective) == pytest.approx(
        {
            "loss": expected,
            "loop_0_loss": BY_DEPTH[0],
            "loop_0_auc": 0.0,
            "loop_1_loss": BY_DEPTH[1],
            "loop_1_auc": 1.0,
            "balance_loss": BALANCE,
        },
        rel=1e-5,
    )
    assert list(results(objective)) == [
        "loss",
        "loop_0_loss",
        "loop_0_auc",
        "loop_1_loss",
        "loop_1_auc",
        "balance_loss",
    ]


def test_without_balance_weight_the_balance_is_only_measured():
    objective = MultiDepthObjective(2, balance_weight=0.0)
    assert evaluate(objective) == pytest.approx(sum(BY_DEPTH) / 2, rel=1e-6)
    assert results(objective)["balance_loss"] == pytest.approx(BALANCE)


def test_supervision_of_the_last_depth_trains_it_alone_and_measures_all():
    objective = MultiDepthObjective(2, balance_weight=0.5, supervision="last")
    assert evaluate(objective) == pytest.approx(BY_DEPTH[1] + 0.5 * BALANCE, rel=1e-6)
    found = results(objective)
    assert found["loop_0_loss"] == pytest.approx(BY_DEPTH[0])
    assert found["loop_1_loss"] == pytest.approx(BY_DEPTH[1])
    logits = tf.Variable(LOGITS)
    with tf.GradientTape() as tape:
        loss = objective(tf.constant(LABELS), logits, tf.constant(STATISTICS))
    gradient = tape.gradient(loss, logits).numpy()
    # (sigmoid(z) - y) / 2 rows.
    np.testing.assert_allclose(gradient, [[0.0, -1 / 8], [0.0, 1 / 8]], atol=1e-7)


def test_sample_weights_weigh_rows_and_the_batch_size_divides():
    weights = [3.0, 0.5]
    weighted = [sum(w * row[d] for w, row in zip(weights, LOSSES, strict=True)) for d in range(2)]
    for shape in ([2], [2, 1]):
        objective = MultiDepthObjective(2, balance_weight=0.5)
        value = evaluate(objective, sample_weight=np.reshape(np.float32(weights), shape))
        assert value == pytest.approx(sum(weighted) / 2 / 2 + 0.5 * BALANCE, rel=1e-6)
        # A metric is a mean over the weight.
        assert results(objective)["loop_0_loss"] == pytest.approx(weighted[0] / 3.5)


def test_a_weight_of_zero_leaves_a_row_out():
    objective = MultiDepthObjective(2, balance_weight=0.0)
    value = evaluate(objective, sample_weight=[1.0, 0.0])
    assert value == pytest.approx(sum(LOSSES[0]) / 2 / 2, rel=1e-6)
    assert results(objective)["loop_1_loss"] == pytest.approx(LOSSES[0][1])


@pytest.mark.parametrize("labels", [[[1.0], [0.0]], [1, 0], [True, False]])
def test_labels_may_be_columns_and_of_any_type(labels):
    objective = MultiDepthObjective(2, balance_weight=0.5)
    assert evaluate(objective, labels) == pytest.approx(sum(BY_DEPTH) / 2 + 0.5 * BALANCE, rel=1e-6)


def test_metrics_are_means_over_rows_of_batches_of_any_size():
    objective = MultiDepthObjective(2, balance_weight=0.5)
    evaluate(objective)
    other = evaluate(objective, [1.0], [[0.0, 0.0]], np.float32(STATISTICS) * 0 + 1.0)
    assert other == pytest.approx(LN2 + 0.5 * 1.0, rel=1e-6)
    found = results(objective)
    first = sum(BY_DEPTH) / 2 + 0.5 * BALANCE
    assert found["loss"] == pytest.approx((2 * first + other) / 3, rel=1e-5)
    assert found["balance_loss"] == pytest.approx((2 * BALANCE + 1.0) / 3, rel=1e-5)
    assert found["loop_0_loss"] == pytest.approx((LN2 + math.log(4) + LN2) / 3, rel=1e-5)


def test_gradients_worked_out_by_hand():
    objective = MultiDepthObjective(2, balance_weight=0.5)
    logits, statistics = tf.Variable(LOGITS), tf.Variable(STATISTICS)
    with tf.GradientTape() as tape:
        loss = objective(tf.constant(LABELS), logits, statistics)
    by_logit, by_statistic = (g.numpy() for g in tape.gradient(loss, [logits, statistics]))
    # (sigmoid(z) - y) / (2 rows * 2 depths); sigmoid(ln 3) = 3/4.
    np.testing.assert_allclose(by_logit, [[-1 / 8, -1 / 16], [3 / 16, 1 / 16]], atol=1e-7)
    # Only probabilities are differentiable: 0.5 / 2 routers / depths * E f_e / tokens.
    expected = np.zeros_like(by_statistic)
    expected[0, 0, 1] = 0.5 / 2 * 2 * np.array([0.75, 0.25]) / 4
    expected[1, 0, 1] = 0.5 / 2 / 2 * 2 * np.array([0.5, 0.5]) / 4
    expected[1, 1, 1] = 0.5 / 2 / 2 * 2 * np.array([1.0, 0.0]) / 4
    np.testing.assert_allclose(by_statistic, expected, atol=1e-7)


def test_routers_that_never_ran_have_no_say():
    """Without a loop, the routers of the Loop Block have nothing to balance."""
    objective = MultiDepthObjective(2, balance_weight=0.5)
    idle = np.zeros_like(np.float32(STATISTICS[:1]))
    statistics = np.concatenate([np.float32(STATISTICS), idle])
    evaluate(objective, statistics=statistics)
    assert results(objective)["balance_loss"] == pytest.approx(BALANCE)
    objective = MultiDepthObjective(2, balance_weight=0.5)
    value = evaluate(objective, statistics=np.zeros_like(np.float32(STATISTICS)))
    assert value == pytest.approx(sum(BY_DEPTH) / 2, rel=1e-6)


def test_extreme_logits_give_a_finite_loss():
    objective = MultiDepthObjective(2, balance_weight=0.0)
    assert evaluate(objective, logits=[[-80.0, 80.0], [0.0, 0.0]]) == pytest.approx(
        (80 / 2 + LN2 / 2 + 0 + LN2 / 2) / 2, rel=1e-6
    )


def test_a_mean_of_no_batch_is_zero():
    assert float(BatchMean("m").result()) == 0.0


# Under a strategy.


def per_replica(strategy, parts):
    return strategy.experimental_distribute_values_from_function(
        lambda context: parts[context.replica_id_in_sync_group]
    )


def test_outside_a_strategy_a_sum_over_replicas_is_the_value():
    assert replicas() == 1
    assert float(sum_over_replicas(tf.constant(3.0))) == 3.0


@pytest.mark.parametrize("first", [2, 3, 0])
def test_shares_of_unequal_replicas_add_up_to_the_whole_batch(two_devices, first):
    """``first`` of four rows go to the first replica, the rest to the second."""
    rng = np.random.default_rng(0)
    labels = np.float32([1, 0, 0, 1])
    logits = rng.normal(size=[4, 3]).astype(np.float32)
    weights = rng.uniform(0.5, 2.0, size=4).astype(np.float32)
    # Statistics of a row; a batch's are their sum.
    statistics = rng.uniform(0.1, 1.0, size=[4, 2, 3, 2, 2]).astype(np.float32)
    whole = MultiDepthObjective(3, balance_weight=0.5)
    tensors = [tf.constant(x) for x in (labels, logits, statistics, weights)]

    def run(objective, labels, logits, statistics, weights):
        with tf.GradientTape() as tape:
            tape.watch([logits, statistics])
            loss = objective(labels, logits, tf.reduce_sum(statistics, axis=0), weights)
        return loss, *tape.gradient(loss, [logits, statistics])

    expected_loss, *expected_gradients = run(whole, *tensors)

    with two_devices.scope():
        objective = MultiDepthObjective(3, balance_weight=0.5)
    cut = [slice(0, first), slice(first, 4)]
    parts = [per_replica(two_devices, [x[rows] for rows in cut]) for x in tensors]

    @tf.function(autograph=False)
    def step(*parts):
        return two_devices.run(run, args=(objective, *parts))

    losses, *gradients = step(*parts)
    local = two_devices.experimental_local_results
    assert float(tf.add_n(local(losses))) == pytest.approx(float(expected_loss), rel=1e-5)
    for parts, expected in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(tf.concat(local(parts), axis=0), expected, atol=1e-6)
    assert results(objective) == pytest.approx(results(whole), rel=1e-5)
