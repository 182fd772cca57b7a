"""The oracle and its rivals on cases worked out by hand."""

import numpy as np
import pytest

from loopctr_tf.evaluation import exact
from loopctr_tf.evaluation.oracle import (
    BINS,
    DepthLogits,
    honest_selector,
    logits_of,
    null_control,
    oracle,
)


def test_the_oracle_takes_the_depth_of_least_loss():
    logits = np.array([[0.1, 0.5], [0.1, 0.5], [-2.0, -1.0], [-2.0, -1.0]])
    assert oracle(np.array([1, 0, 1, 0]), logits).tolist() == [0.5, 0.1, -1.0, -2.0]


def test_logits_undo_the_sigmoid_and_stay_finite():
    np.testing.assert_allclose(logits_of(np.array([0.5, 1 / (1 + np.exp(-2))])), [0, 2], atol=1e-9)
    assert np.isfinite(logits_of(np.array([0.0, 1.0]))).all()


@pytest.fixture(scope="module")
def noisy():
    """Depths that differ by noise alone: whatever an oracle gains is luck."""
    rng = np.random.default_rng(1)
    truth = rng.normal(size=4000)
    labels = (rng.random(4000) < 1 / (1 + np.exp(-truth))).astype(int)
    return DepthLogits(labels, truth[:, None] + 0.3 * rng.normal(size=(4000, 3)), np.full(4000, 7))


def test_the_null_control_equals_an_oracle_over_noise(noisy):
    found = exact.auc(noisy.labels, oracle(noisy.labels, noisy.logits))
    null = exact.auc(noisy.labels, null_control(noisy.labels, noisy.logits))
    best = max(exact.auc(noisy.labels, depth) for depth in noisy.logits.T)
    assert found - best > 0.05  # all of it luck
    assert abs(found - null) < 0.005


def test_the_null_control_permutes_whole_rows_within_bins():
    # Two rows a bin: a deviation is the row's own or its neighbour's.
    logits = (
        np.arange(2 * BINS)[:, None] + np.array([[-0.1, 0.1]]) * np.arange(1, 2 * BINS + 1)[:, None]
    )
    found = null_control(np.ones(2 * BINS), logits) - np.arange(2 * BINS)
    for i, deviation in enumerate(found * 10):
        assert round(deviation) in (1 + i - i % 2, 2 + i - i % 2)


def test_the_honest_selector_chooses_by_the_length_of_the_history(noisy):
    # One depth knows the truth where histories are long, the other where they are short.
    rng, rows = np.random.default_rng(2), len(noisy.labels)
    history, junk = rng.integers(0, 2, rows) * 50, rng.normal(size=rows)
    long = history > 0
    truth = noisy.logits[:, 0]
    logits = np.stack([np.where(long, truth, junk), np.where(long, junk, truth)], axis=1)
    known = DepthLogits(noisy.labels, logits, history)
    chosen = exact.auc(noisy.labels, honest_selector(known, known))
    assert chosen > exact.auc(noisy.labels, logits.mean(axis=1)) + 0.03
    assert chosen == pytest.approx(exact.auc(noisy.labels, truth), abs=0.01)


def test_the_honest_selector_does_not_read_the_labels_it_is_judged_on(noisy):
    other = noisy._replace(labels=1 - noisy.labels)
    np.testing.assert_array_equal(honest_selector(noisy, noisy), honest_selector(noisy, other))
