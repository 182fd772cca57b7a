import json
import math

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tf_keras as keras

from loopctr_tf import evaluation as metrics
from loopctr_tf.errors import UsageError

# Three users. "a": positives .8, .5 against negatives .5, .2: 1 + 1 + 1/2 + 1 of 4 pairs = 7/8.
# "b": positives .6 against negatives .9, .1: 1 of 2 pairs = 1/2. "c": positives only.
LABELS = [1, 1, 0, 0, 1, 0, 0, 1]
SCORES = [0.8, 0.5, 0.5, 0.2, 0.6, 0.9, 0.1, 0.3]
USERS = ["a", "a", "a", "a", "b", "b", "b", "c"]
GAUC = {
    "plain": (7 / 8 + 1 / 2) / 2,
    "impressions": (4 * 7 / 8 + 3 * 1 / 2) / 7,
    "clicks": (2 * 7 / 8 + 1 * 1 / 2) / 3,
}


def pairwise_auc(labels, scores, weights=None):
    """The definition: all pairs of a positive and a negative, one by one."""
    weights = np.ones(len(labels)) if weights is None else weights
    won = total = 0.0
    for i in np.flatnonzero(labels == 1):
        for j in np.flatnonzero(labels == 0):
            pair = weights[i] * weights[j]
            total += pair
            won += pair * (1.0 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0.0)
    return won / total if total else math.nan


def random_rows(rows=400, users=25, levels=12, seed=0):
    """Labels, probabilities with many ties, and integer users."""
    rng = np.random.default_rng(seed)
    users = rng.integers(users, size=rows)
    probabilities = (rng.integers(levels, size=rows) + 0.5) / levels
    labels = (rng.random(rows) < probabilities).astype(np.float32)
    labels[users == 0] = 1.0  # a user without a negative
    return labels, probabilities, users


# Exact metrics.


def test_auc_counts_a_tie_as_half():
    # Pairs: .7 > .4, .7 > .1, .4 = .4 (half), .4 > .1.
    assert metrics.auc([1, 0, 1, 0], [0.7, 0.4, 0.4, 0.1]) == 3.5 / 4


def test_auc_of_one_class_is_nan():
    assert math.isnan(metrics.auc([1, 1], [0.1, 0.2]))
    assert math.isnan(metrics.auc([0, 0], [0.1, 0.2]))
    assert math.isnan(metrics.auc([1, 0], [0.1, 0.2], sample_weight=[1, 0]))


def test_auc_equals_all_pairs():
    labels, scores, _ = random_rows()
    weights = np.random.default_rng(1).random(len(labels))
    assert metrics.auc(labels, scores) == pytest.approx(pairwise_auc(labels, scores), abs=1e-12)
    assert metrics.auc(labels, scores, weights) == pytest.approx(
        pairwise_auc(labels, scores, weights), abs=1e-12
    )


def test_auc_takes_integer_weights_as_repeated_rows():
    repeats = np.array([3, 1, 2, 0, 1, 2, 1, 1])
    expected = metrics.auc(np.repeat(LABELS, repeats), np.repeat(SCORES, repeats))
    assert metrics.auc(LABELS, SCORES, repeats) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("weighting", metrics.WEIGHTINGS)
def test_gauc_by_hand(weighting):
    result = metrics.gauc(LABELS, SCORES, USERS, weighting)
    assert result == metrics.GAUCResult(pytest.approx(GAUC[weighting], abs=1e-15), 2, 1)


@pytest.mark.parametrize(
    "groups",
    [
        np.array([user.encode() for user in USERS], dtype=object),
        [-5 if user == "a" else 2**62 if user == "b" else 0 for user in USERS],
        [1 if user == "a" else "1" if user == "b" else 2.5 for user in USERS],
        pd.Series(USERS, index=range(10, 18)),
        np.array(USERS)[:, None],
        tf.constant(USERS),
    ],
    ids=["bytes", "int", "mixed", "series", "column", "tensor"],
)
def test_gauc_takes_any_hashable_groups(groups):
    assert metrics.gauc(LABELS, SCORES, groups).value == pytest.approx(GAUC["plain"], abs=1e-15)


@pytest.mark.parametrize("weighting", metrics.WEIGHTINGS)
def test_gauc_equals_all_pairs(weighting):
    labels, scores, users = random_rows()
    values, weights, skipped = [], [], 0
    for user in np.unique(users):
        rows = users == user
        value = pairwise_auc(labels[rows], scores[rows])
        if math.isnan(value):
            skipped += 1
            continue
        values.append(value)
        weights.append(
            {"plain": 1, "impressions": rows.sum(), "clicks": labels[rows].sum()}[weighting]
        )
    assert skipped >= 1
    result = metrics.gauc(labels, scores, users, weighting)
    assert result.value == pytest.approx(np.average(values, weights=weights), abs=1e-12)
    assert (result.groups_used, result.groups_skipped) == (len(values), skipped)


def test_gauc_without_a_usable_group_is_nan():
    result = metrics.gauc([1, 0], [0.1, 0.2], ["a", "b"])
    assert math.isnan(result.value)
    assert (result.groups_used, result.groups_skipped) == (0, 2)


def test_log_loss_clips_certain_predictions():
    assert metrics.log_loss([1], [0.0]) == pytest.approx(7 * math.log(10), rel=1e-12)
    assert metrics.log_loss([0], [1.0]) == pytest.approx(7 * math.log(10), rel=1e-6)


def test_normalized_entropy_of_the_base_rate_is_one():
    assert metrics.normalized_entropy([1, 0], [0.5, 0.5]) == 1.0
    assert metrics.normalized_entropy([1, 0, 0, 0], [0.25] * 4) == pytest.approx(1.0, abs=1e-15)


def test_normalized_entropy_of_equal_labels_is_nan():
    assert math.isnan(metrics.normalized_entropy([1, 1], [0.5, 0.5]))


def test_calibration_by_hand():
    assert metrics.calibration([1, 0, 0, 1], [0.75, 0.25, 0.5, 1.0]) == 1.25
    assert math.isnan(metrics.calibration([0, 0], [0.5, 0.5]))


def test_evaluate_scores_by_hand():
    result = metrics.evaluate_scores(LABELS, SCORES, USERS)
    # Positives .8 .5 .6 .3 against negatives .5 .2 .9 .1 win 3 + 2.5 + 3 + 2 of 16 pairs.
    own = [0.8, 0.5, 0.5, 0.8, 0.6, 0.1, 0.9, 0.3]
    loss = -sum(math.log(p) for p in own) / 8
    expected = {
        "auc": 10.5 / 16,
        "gauc": GAUC["plain"],
        "gauc_impressions": GAUC["impressions"],
        "gauc_clicks": GAUC["clicks"],
        "ne": loss / math.log(2),
        "log_loss": loss,
        "calibration": 3.9 / 4,
        "groups_used": 2,
        "groups_skipped": 1,
        "rows": 8,
    }
    assert result == pytest.approx(expected, rel=1e-12)
    assert {type(value) for value in result.values()} == {float, int}
    assert json.loads(json.dumps(result)) == result


BAD_INPUT = [
    (lambda: metrics.auc([0, 2], [0, 1]), "labels must be 0 or 1, got 2.0 in row 1"),
    (lambda: metrics.auc([0, 1], [0, 1, 2]), "scores has 3 rows but labels has 2"),
    (lambda: metrics.auc([], []), "labels is empty, got 0 rows"),
    (lambda: metrics.auc([0, 1], [0, math.nan]), "scores must be finite, got nan in row 1"),
    (lambda: metrics.auc([0, 1], ["x", "y"]), "scores must be numbers"),
    (lambda: metrics.auc([0, 1], [[0, 1], [2, 3]]), "scores must have shape [rows]"),
    (lambda: metrics.auc([0, 1], [0, 1], [1, -1]), "sample_weight must not be negative"),
    (lambda: metrics.gauc([0, 1], [0, 1], ["a"]), "groups has 1 rows but labels has 2"),
    (
        lambda: metrics.gauc([0, 1], [0, 1], pd.Series(["a", None], [5, 6], object)),
        "groups must not be missing, got None in row 1",
    ),
    (
        lambda: metrics.gauc([0, 1], [0, 1], [1, 1], "rows"),
        "unknown weighting 'rows'; choose one of plain, impressions, clicks",
    ),
    (lambda: metrics.log_loss([0, 1], [0, 1.5]), "lie in [0, 1], got 1.5 in row 1"),
    (lambda: metrics.GroupAUC(weighting="rows"), "unknown weighting 'rows'"),
    (lambda: metrics.GroupAUC(num_groups=0), "num_groups must be at least 1, got 0"),
    (lambda: metrics.GroupAUC(max_logit=0), "max_logit must be positive, got 0"),
    (lambda: metrics.GroupAUC().update_state([1], [0.5]), "groups is None"),
    (
        lambda: metrics.GroupAUC().update_state([1], [0.5], groups=[0.5]),
        "groups must be integers or strings, got float32",
    ),
    (
        lambda: metrics.NormalizedEntropy().update_state([1, 0], [0.5]),
        "y_pred has 1 values but y_true has 2",
    ),
]


@pytest.mark.parametrize(("call", "words"), BAD_INPUT, ids=[words for _, words in BAD_INPUT])
def test_bad_input_is_one_line(call, words):
    with pytest.raises(UsageError) as caught:
        call()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


# Keras metrics.


def logit(probabilities):
    return np.log(probabilities) - np.log1p(-np.asarray(probabilities))


def feed(metric, columns, batch=64, **kwargs):
    """Updates `metric` batch by batch; `columns` are its positional arguments."""
    for start in range(0, len(columns[0]), batch):
        stop = start + batch
        metric.update_state(
            *(column[start:stop] for column in columns),
            **{name: column[start:stop] for name, column in kwargs.items()},
        )
    return float(metric.result())


SCALAR_METRICS = [
    (metrics.NormalizedEntropy, metrics.normalized_entropy),
    (metrics.Calibration, metrics.calibration),
]


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize(("streaming", "exact"), SCALAR_METRICS)
def test_streaming_equals_exact(streaming, exact, from_logits):
    labels, probabilities, _ = random_rows(rows=1000)
    metric = streaming(from_logits=from_logits, dtype="float64")
    predictions = logit(probabilities) if from_logits else probabilities
    value = feed(metric, (labels[:, None], predictions[:, None]))
    assert value == pytest.approx(exact(labels, probabilities), rel=1e-12)
    metric.reset_state()
    assert math.isnan(float(metric.result()))


@pytest.mark.parametrize(("streaming", "exact"), SCALAR_METRICS)
def test_streaming_weights_are_repeated_rows(streaming, exact):
    repeats = np.array([3, 1, 2, 0, 1, 2, 1, 1])
    metric = streaming(dtype="float64")
    metric.update_state(np.array(LABELS)[:, None], np.array(SCORES)[:, None], repeats)
    expected = exact(np.repeat(LABELS, repeats), np.repeat(SCORES, repeats))
    assert float(metric.result()) == pytest.approx(expected, rel=1e-12)


def test_sums_do_not_saturate():
    # In float32, 2^24 + 1 is 2^24: the second batch would be lost.
    metric = metrics.Calibration(dtype="float64")
    metric.update_state([1], [1.0], sample_weight=[2.0**24])
    metric.update_state([1], [0.0])
    assert float(metric.result()) == 2**24 / (2**24 + 1)


def test_normalized_entropy_is_finite_for_certain_predictions():
    metric = metrics.NormalizedEntropy()
    metric.update_state([1, 0], [0.0, 1.0])
    assert float(metric.result()) == pytest.approx(7 * math.log(10) / math.log(2), rel=1e-6)
    metric = metrics.NormalizedEntropy(from_logits=True)
    metric.update_state([1, 0], [-100.0, 100.0])
    assert float(metric.result()) == pytest.approx(100 / math.log(2), rel=1e-6)


def test_normalized_entropy_of_equal_labels_streams_as_nan():
    metric = metrics.NormalizedEntropy()
    metric.update_state([1, 1], [0.5, 0.5])
    assert math.isnan(float(metric.result()))


@pytest.mark.parametrize(
    ("weighting", "from_logits"), [("plain", True), ("impressions", False), ("clicks", False)]
)
def test_group_auc_equals_exact_when_nothing_collides(weighting, from_logits):
    # 12 levels of probability lie more than one bin apart, and 25 users have a bucket each.
    labels, probabilities, users = random_rows()
    metric = metrics.GroupAUC(25, weighting=weighting, from_logits=from_logits, dtype="float64")
    predictions = logit(probabilities) if from_logits else probabilities
    value = feed(metric, (labels, predictions), groups=users - 50)  # negative ids are ids too
    exact = metrics.gauc(labels, probabilities, users, weighting)
    assert value == pytest.approx(exact.value, rel=1e-12)
    metric.reset_state()
    assert math.isnan(float(metric.result()))


def test_group_auc_merges_groups_that_share_a_bucket():
    metric = metrics.GroupAUC(num_groups=2)
    metric.update_state([1, 0], [0.9, 0.1], groups=[1, 3])
    assert float(metric.result()) == 1.0  # apart, neither group would have a pair


def test_group_auc_ties_scores_of_one_bin_and_beyond_the_range():
    metric = metrics.GroupAUC(num_groups=1, bins=2, max_logit=1.0, from_logits=True)
    metric.update_state([1, 0], [0.9, 0.1], groups=[0, 0])
    assert float(metric.result()) == 0.5
    metric.reset_state()
    metric.update_state([1, 0, 0, 1], [math.inf, 50.0, -math.inf, -50.0], groups=[0, 0, 0, 0])
    assert float(metric.result()) == (0.5 + 1 + 0 + 0.5) / 4


def test_group_auc_weights_are_repeated_rows():
    repeats = np.array([3, 1, 2, 0, 1, 2, 1, 1])
    metric = metrics.GroupAUC(weighting="impressions")
    metric.update_state(LABELS, SCORES, repeats, groups=tf.constant(USERS))
    columns = (np.repeat(column, repeats) for column in (LABELS, SCORES, USERS))
    expected = metrics.gauc(*columns, "impressions").value
    assert float(metric.result()) == pytest.approx(expected, rel=1e-6)


KERAS_METRICS = [
    lambda: metrics.NormalizedEntropy(from_logits=True, name="ne", dtype="float64"),
    lambda: metrics.Calibration(from_logits=True, name="cal", dtype="float64"),
    lambda: metrics.GroupAUC(
        num_groups=7, bins=20, max_logit=3.0, weighting="clicks", from_logits=True, dtype="float64"
    ),
]


@pytest.mark.parametrize("build", KERAS_METRICS, ids=["ne", "calibration", "group_auc"])
def test_two_replicas_equal_one_device(build, two_devices):
    labels, probabilities, users = random_rows(rows=256)
    rows = (labels, logit(probabilities), np.linspace(0.5, 2.0, 256), users)

    @tf.function
    def step(metric, y_true, y_pred, weights, users):
        extra = {"groups": users} if isinstance(metric, metrics.GroupAUC) else {}
        metric.update_state(y_true, y_pred, weights, **extra)

    single = build()
    step(single, *rows)
    with two_devices.scope():
        replicated = build()
    # A quarter of the rows to one replica, the rest to the other.
    parts = [[column[:64] for column in rows], [column[64:] for column in rows]]
    values = two_devices.experimental_distribute_values_from_function(
        lambda context: tuple(
            tf.constant(column) for column in parts[context.replica_id_in_sync_group]
        )
    )
    two_devices.run(step, args=(replicated, *values))
    # The shared counters are float32 for GroupAUC, and weights are not whole numbers here.
    assert float(replicated.result()) == pytest.approx(float(single.result()), rel=1e-6)
    assert 0.0 < float(single.result()) < 10.0
    with two_devices.scope():
        replicated.reset_state()
    assert math.isnan(float(replicated.result()))


def fit_model():
    model = keras.Sequential(
        [keras.layers.Dense(1, activation="sigmoid", kernel_initializer="ones", input_shape=(2,))]
    )
    model.compile(
        "sgd", "binary_crossentropy", metrics=[metrics.NormalizedEntropy(), metrics.Calibration()]
    )
    return model


def test_fit_reports_the_same_on_two_replicas(two_devices):
    rng = np.random.default_rng(7)
    features = rng.normal(size=(64, 2)).astype(np.float32)
    labels = (rng.random(64) < 0.4).astype(np.float32)
    data = tf.data.Dataset.from_tensor_slices((features, labels)).batch(16)
    one = fit_model().fit(data, epochs=2, verbose=0).history
    with two_devices.scope():
        model = fit_model()
    two = model.fit(data, epochs=2, verbose=0).history
    for name in ("normalized_entropy", "calibration"):
        np.testing.assert_allclose(two[name], one[name], rtol=1e-5)


@pytest.mark.parametrize("build", KERAS_METRICS, ids=["ne", "calibration", "group_auc"])
def test_serialise_round_trip(build):
    metric = build()
    restored = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert type(restored) is type(metric)
    assert restored.get_config() == metric.get_config()
    extra = {"groups": [8, 1, 1, 1]} if isinstance(metric, metrics.GroupAUC) else {}
    for each in (metric, restored):
        each.update_state([1, 0, 1, 0], [0.3, 0.1, -2.0, -0.4], **extra)
    assert float(restored.result()) == float(metric.result())
    assert restored.result().dtype == tf.float64
