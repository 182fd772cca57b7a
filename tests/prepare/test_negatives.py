import numpy as np
import pytest

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.negatives import sample_negatives
from loopctr_tf.prepare.rules import NegativeRule


def everything(user, item, rule, split=None):
    """Negatives of a log in which every event is a row."""
    user, item = np.array(user, np.int32), np.array(item, np.int32)
    split = np.zeros(len(user), np.int8) if split is None else np.array(split, np.int8)
    return sample_negatives(user, item, np.arange(len(user)), split, rule)


def random_events(events=4000, users=40, items=60, seed=0):
    rng = np.random.default_rng(seed)
    item = np.minimum(rng.integers(0, items, events), rng.integers(0, items, events))
    return rng.integers(0, users, events), item


def test_shape_type_and_seed():
    user, item = random_events(500)
    found = everything(user, item, NegativeRule(per_positive=3, seed=5))
    assert (found.shape, found.dtype) == ((500, 3), np.int32)
    np.testing.assert_array_equal(
        found, everything(user, item, NegativeRule(per_positive=3, seed=5))
    )
    assert (found != everything(user, item, NegativeRule(per_positive=3, seed=6))).any()


@pytest.mark.parametrize("by", ["popularity", "uniform"])
@pytest.mark.parametrize("events", [300, 4000])
def test_never_an_item_that_the_user_met(by, events):
    """With 4,000 events the 40 users met most of the 60 items: the last draws are exact ones."""
    user, item = random_events(events)
    met = set(zip(user.tolist(), item.tolist(), strict=True))
    found = everything(user, item, NegativeRule(per_positive=4, by=by))
    assert all(
        (u, i) not in met for u, row in zip(user.tolist(), found.tolist(), strict=True) for i in row
    )


@pytest.mark.parametrize("by", ["popularity", "uniform"])
def test_an_item_met_in_an_event_that_is_no_row_is_met(by):
    """User 0 met item 1 in event 0, which is no row, and nobody else had item 2 but in rows."""
    user, item = np.array([0, 0, 1, 1], np.int32), np.array([1, 0, 1, 2], np.int32)
    rows = np.array([1, 2, 3])
    found = sample_negatives(
        user, item, rows, np.zeros(3, np.int8), NegativeRule(per_positive=20, by=by)
    )
    assert set(found[0]) == {2}
    assert set(found[1]) == set(found[2]) == {0}


@pytest.mark.parametrize("by", ["popularity", "uniform"])
@pytest.mark.parametrize("met_share", [0.05, 0.995])
def test_draws_follow_the_weights(by, met_share):
    """One user draws often; what it did not meet comes in proportion to its rows, or alike.

    With nearly all weight on what was met, most draws are the exact ones. The sum over items of
    (found - expected)^2 / expected has as many degrees of freedom as items less one.
    """
    rng = np.random.default_rng(1)
    weights = np.arange(1, 21) * 10
    own = np.repeat(20, int(weights.sum() * met_share / (1 - met_share)))
    # User 0 has item 20 alone; users 1, 2, ... have one event each with items 0 to 19.
    item = np.concatenate([own, rng.permutation(np.repeat(np.arange(20), weights))])
    user = np.concatenate([np.zeros(len(own), int), 1 + np.arange(weights.sum())])
    draws = max(1, 40_000 // len(own))
    found = everything(user, item, NegativeRule(per_positive=draws, by=by, seed=2))[
        : len(own)
    ].reshape(-1)
    counts = np.bincount(found, minlength=21)
    assert counts[20] == 0
    share = weights / weights.sum() if by == "popularity" else np.full(20, 1 / 20)
    expected = share * len(found)
    chi_square = ((counts[:20] - expected) ** 2 / expected).sum()
    assert chi_square < 43.8  # 19 degrees of freedom: exceeded once in a thousand


@pytest.mark.parametrize("by", ["popularity", "uniform"])
def test_a_split_draws_from_its_past(by):
    """Items 0-9 are of training rows, 10-19 of validation, 20-29 of test rows."""
    item = np.tile(np.arange(30), 20)
    split = np.tile(np.repeat([0, 1, 2], 10), 20)
    user = np.arange(600)  # Nobody meets more than one item.
    found = everything(user, item, NegativeRule(per_positive=30, by=by), split)
    assert set(found[split == 0].reshape(-1)) == set(range(10))
    assert set(found[split == 1].reshape(-1)) == set(range(20))
    assert set(found[split == 2].reshape(-1)) == set(range(30))


def test_rows_are_sampled_for_in_parts(monkeypatch):
    """Parts change nothing but the numbers drawn."""
    user, item = random_events(500)
    monkeypatch.setattr("loopctr_tf.prepare.negatives._ROWS", 64)
    found = everything(user, item, NegativeRule(per_positive=2))
    met = set(zip(user.tolist(), item.tolist(), strict=True))
    assert found.min() >= 0
    assert not met & {
        (u, i) for u, row in zip(user.tolist(), found.tolist(), strict=True) for i in row
    }


def test_a_user_who_met_everything_is_refused():
    with pytest.raises(UsageError, match="a user has events with every item that could be sampled"):
        everything([0, 0, 1], [0, 1, 1], NegativeRule(per_positive=1))
