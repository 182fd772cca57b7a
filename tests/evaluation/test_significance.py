"""DeLong's test and the paired bootstrap against slow versions and known cases."""

import numpy as np
import pytest

from loopctr_tf.evaluation import exact
from loopctr_tf.evaluation.significance import delong, gauc_bootstrap, user_aucs


def slow_delong(labels, first, second):
    """(difference, variance) from the kernel of every pair, ties half (DeLong et al., eq. 2-6)."""
    positive, negative = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)

    def kernel(scores):
        pairs = scores[positive][:, None] - scores[negative][None]
        return (pairs > 0) + 0.5 * (pairs == 0)

    difference = kernel(first) - kernel(second)
    by_positive, by_negative = difference.mean(axis=1), difference.mean(axis=0)
    variance = by_positive.var(ddof=1) / len(positive) + by_negative.var(ddof=1) / len(negative)
    return difference.mean(), variance


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    first = labels + rng.normal(scale=1.0, size=200)
    second = (labels + rng.normal(scale=2.0, size=200)).round(1)  # with ties
    return labels, first, second, rng.integers(0, 25, 200)


def test_delong_equals_the_version_that_looks_at_every_pair(rows):
    labels, first, second, _ = rows
    found, (value, variance) = delong(labels, [first], [second]), slow_delong(labels, first, second)
    assert found.value == pytest.approx(value)
    assert found.value == pytest.approx(exact.auc(labels, first) - exact.auc(labels, second))
    assert found.high - found.low == pytest.approx(2 * 1.959964 * np.sqrt(variance), rel=1e-6)
    assert 0 < found.p < 0.05


def test_seeds_are_averaged_and_the_noise_of_the_test_rows_stays(rows):
    labels, first, second, _ = rows
    once, twice = delong(labels, [first], [second]), delong(labels, [first] * 2, [second])
    assert twice == pytest.approx(once)
    opposite = delong(labels, [first, second], [second, first])
    assert opposite.value == pytest.approx(0, abs=1e-12)


def test_rows_of_one_user_count_together(rows):
    labels, first, second, _ = rows
    apart = delong(labels, [first], [second], np.arange(200))
    alone = delong(labels, [first], [second])
    assert apart == pytest.approx(alone, rel=0.02, abs=1e-3)
    # Every row four times over says no more than once, if the four are one user's.
    four = [np.tile(values, 4) for values in (labels, first, second, np.arange(200))]
    together = delong(four[0], [four[1]], [four[2]], four[3])
    assert together == pytest.approx(apart, rel=1e-6)
    assert delong(four[0], [four[1]], [four[2]]).high < together.high


def test_what_the_rows_do_not_define_is_nan():
    assert np.isnan(delong([1, 1], [[0.1, 0.2]], [[0.2, 0.1]])).all()
    aucs = user_aucs([1, 0], [0.9, 0.1], ["a", "a"])
    assert np.isnan(gauc_bootstrap([aucs], [aucs])).all()


def test_a_model_does_not_differ_from_itself(rows):
    labels, first, _, groups = rows
    assert delong(labels, [first], [first]) == (0, 0, 0, 1)
    aucs = user_aucs(labels, first, groups)
    assert gauc_bootstrap([aucs], [aucs]) == (0, 0, 0, 1)


def test_user_aucs_average_to_gauc(rows):
    labels, first, second, groups = rows
    one, other = (user_aucs(labels, scores, groups) for scores in (first, second))
    assert one.mean() == pytest.approx(exact.gauc(labels, first, groups).value)
    found = gauc_bootstrap([one], [other], resamples=500)
    assert found.value == pytest.approx(one.mean() - other.mean())
    assert found.low < found.value < found.high
    # The bootstrap of a mean: its spread is the standard error.
    error = (one - other).std(ddof=0) / np.sqrt(len(one))
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert gauc_bootstrap([one], [other], resamples=500) == found


def test_users_with_one_label_are_left_out():
    aucs = user_aucs([1, 0, 1, 1], [0.9, 0.1, 0.3, 0.2], ["a", "a", "b", "b"])
    assert aucs.to_dict() == {"a": 1.0}
