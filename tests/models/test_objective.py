"""The objective worked out by hand: heads, their weights, regularisers, sample weights, replicas."""

import math

import numpy as np
import pytest
import tensorflow as tf

from loopctr_tf.models.objective import (
    BatchMean,
    Objective,
    metric_name,
    replicas,
    sum_over_replicas,
)

LN2, LN3 = math.log(2), math.log(3)

# A logit of 0 costs ln 2 whatever the label, one of ln 3 costs ln(4/3) at label 1 and ln 4 at 0.
LABELS = [1.0, 0.0]
LOGITS = [[0.0, LN3], [LN3, -LN3]]
LOSSES = [[LN2, math.log(4 / 3)], [math.log(4), math.log(4 / 3)]]
BY_HEAD = [(LN2 + math.log(4)) / 2, math.log(4 / 3)]
PENALTY = 1.25


def two_heads(weights=(0.5, 0.5), penalty=0.5) -> Objective:
    return Objective(("a", "b"), weights, {"penalty": penalty})


def results(objective) -> dict[str, float]:
    return {metric.name: float(metric.result()) for metric in objective.tracked_metrics}


def evaluate(objective, labels=LABELS, logits=LOGITS, sample_weight=None, penalty=PENALTY):
    weights = None if sample_weight is None else tf.constant(sample_weight)
    losses = {"penalty": tf.constant(penalty)}
    return float(objective(tf.constant(labels), tf.constant(logits), losses, weights))


def test_the_objective_worked_out_by_hand():
    objective = two_heads()
    expected = sum(BY_HEAD) / 2 + 0.5 * PENALTY
    assert evaluate(objective) == pytest.approx(expected, rel=1e-6)
    figures = {
        "loss": expected,
        "a_loss": BY_HEAD[0],
        "a_auc": 0.0,
        "b_loss": BY_HEAD[1],
        "b_auc": 1.0,
        "penalty": PENALTY,
    }
    assert results(objective) == pytest.approx(figures, rel=1e-5)
    assert list(results(objective)) == list(figures)


def test_a_lone_head_without_regularisers():
    objective = Objective(("",), (1.0,))
    logits = tf.constant(LOGITS)[:, :1]
    loss = float(objective(tf.constant(LABELS), logits))
    assert loss == pytest.approx(BY_HEAD[0], rel=1e-6)
    assert list(results(objective)) == ["loss", "cross_entropy", "auc"]
    assert [metric_name("", m) for m in ("loss", "auc")] == ["cross_entropy", "auc"]


def test_a_regulariser_of_weight_zero_is_only_measured():
    objective = two_heads(penalty=0.0)
    assert evaluate(objective) == pytest.approx(sum(BY_HEAD) / 2, rel=1e-6)
    assert results(objective)["penalty"] == pytest.approx(PENALTY)


def test_a_head_of_weight_zero_is_measured_and_not_trained():
    objective = two_heads(weights=(0.0, 1.0))
    logits = tf.Variable(LOGITS)
    with tf.GradientTape() as tape:
        loss = objective(tf.constant(LABELS), logits, {"penalty": tf.constant(PENALTY)})
    assert float(loss) == pytest.approx(BY_HEAD[1] + 0.5 * PENALTY, rel=1e-6)
    assert results(objective)["a_loss"] == pytest.approx(BY_HEAD[0])
    # (sigmoid(z) - y) / 2 rows; sigmoid(ln 3) = 3/4.
    gradient = tape.gradient(loss, logits)
    np.testing.assert_allclose(gradient, [[0.0, -1 / 8], [0.0, 1 / 8]], atol=1e-7)


def test_sample_weights_weigh_rows_of_the_loss_and_of_no_metric():
    weights = [3.0, 0.5]
    weighted = [sum(w * row[d] for w, row in zip(weights, LOSSES, strict=True)) for d in range(2)]
    for shape in ([2], [2, 1]):
        objective = two_heads()
        value = evaluate(objective, sample_weight=np.reshape(np.float32(weights), shape))
        assert value == pytest.approx(sum(weighted) / 3.5 / 2 + 0.5 * PENALTY, rel=1e-6)
        assert results(objective)["loss"] == pytest.approx(value)
        assert results(objective)["a_loss"] == pytest.approx(BY_HEAD[0])
        assert results(objective)["b_auc"] == 1.0


def gradients(labels, logits, weights=None):
    objective, logits = two_heads(penalty=0.0), tf.Variable(logits)
    with tf.GradientTape() as tape:
        losses = {"penalty": tf.constant(PENALTY)}
        loss = objective(tf.constant(labels), logits, losses, weights and tf.constant(weights))
    return float(loss), tape.gradient(loss, logits).numpy()


def test_a_weight_of_two_is_the_row_twice_and_of_zero_the_row_left_out():
    labels, logits = [1.0, 0.0, 0.0], [*LOGITS, [0.3, -0.7]]
    loss, weighted = gradients(labels, logits, [2.0, 1.0, 0.0])
    expected, plain = gradients([1.0, 1.0, 0.0], [logits[0], logits[0], logits[1]])
    assert loss == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(weighted, [plain[0] + plain[1], plain[2], [0, 0]], atol=1e-7)
    # Their scale does not matter.
    small, _ = gradients(labels, logits, [0.02, 0.01, 0.0])
    assert small == pytest.approx(loss, rel=1e-6)


def test_a_batch_of_zero_weights_teaches_nothing():
    loss, gradient = gradients(LABELS, LOGITS, [0.0, 0.0])
    assert loss == 0.0
    assert not gradient.any()


def test_the_loss_of_an_epoch_is_a_mean_over_the_weights():
    objective = two_heads(penalty=0.0)
    first = evaluate(objective, sample_weight=[2.0, 1.0])
    other = evaluate(objective, [1.0], [[0.0, 0.0]], sample_weight=[0.5])
    assert results(objective)["loss"] == pytest.approx((3 * first + 0.5 * other) / 3.5, rel=1e-5)


@pytest.mark.parametrize("labels", [[[1.0], [0.0]], [1, 0], [True, False]])
def test_labels_may_be_columns_and_of_any_type(labels):
    value = evaluate(two_heads(), labels)
    assert value == pytest.approx(sum(BY_HEAD) / 2 + 0.5 * PENALTY, rel=1e-6)


def test_metrics_are_means_over_rows_of_batches_of_any_size():
    objective = two_heads()
    first = evaluate(objective)
    other = evaluate(objective, [1.0], [[0.0, 0.0]], penalty=1.0)
    assert other == pytest.approx(LN2 + 0.5 * 1.0, rel=1e-6)
    found = results(objective)
    assert found["loss"] == pytest.approx((2 * first + other) / 3, rel=1e-5)
    assert found["penalty"] == pytest.approx((2 * PENALTY + 1.0) / 3, rel=1e-5)
    assert found["a_loss"] == pytest.approx((LN2 + math.log(4) + LN2) / 3, rel=1e-5)


def test_extreme_logits_give_a_finite_loss():
    value = evaluate(two_heads(penalty=0.0), logits=[[-80.0, 80.0], [0.0, 0.0]])
    assert value == pytest.approx((80 / 2 + LN2 / 2 + 0 + LN2 / 2) / 2, rel=1e-6)


def test_a_mean_of_no_batch_is_zero():
    assert float(BatchMean("m").result()) == 0.0


# Under a strategy.


def test_outside_a_strategy_a_sum_over_replicas_is_the_value():
    assert replicas() == 1
    assert float(sum_over_replicas(tf.constant(3.0))) == 3.0


@pytest.mark.parametrize("first", [2, 3, 0])
def test_shares_of_unequal_replicas_add_up_to_the_whole_batch(two_devices, first):
    """``first`` of four rows go to the first replica, the rest to the second."""
    rng = np.random.default_rng(0)
    labels = np.float32([1, 0, 0, 1])
    logits = rng.normal(size=[4, 2]).astype(np.float32)
    weights = rng.uniform(0.5, 2.0, size=4).astype(np.float32)
    penalties = np.float32([0.5, 0.25, 1.0, 2.0])  # a batch's is their sum
    tensors = [tf.constant(x) for x in (labels, logits, penalties, weights)]

    def run(objective, labels, logits, penalties, weights):
        with tf.GradientTape() as tape:
            tape.watch([logits, penalties])
            losses = {"penalty": tf.reduce_sum(penalties)}
            loss = objective(labels, logits, losses, weights)
        return loss, *tape.gradient(loss, [logits, penalties])

    whole = two_heads()
    expected_loss, *expected_gradients = run(whole, *tensors)
    with two_devices.scope():
        objective = two_heads()
    cut = [slice(0, first), slice(first, 4)]
    parts = [
        two_devices.experimental_distribute_values_from_function(
            lambda context, x=x: x[cut[context.replica_id_in_sync_group]]
        )
        for x in tensors
    ]

    @tf.function(autograph=False)
    def step(*parts):
        return two_devices.run(run, args=(objective, *parts))

    losses, *gradients = step(*parts)
    local = two_devices.experimental_local_results
    assert float(tf.add_n(local(losses))) == pytest.approx(float(expected_loss), rel=1e-5)
    for parts, expected in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(tf.concat(local(parts), axis=0), expected, atol=1e-6)
    assert results(objective) == pytest.approx(results(whole), rel=1e-5)
