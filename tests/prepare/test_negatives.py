"""Draws of sampled negatives: NumPy's own Philox, exclusion, and the pools of splits."""

import numpy as np
import pytest

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.negatives import _key, sample_negatives, uniform
from loopctr_tf.prepare.rule_parts import NegativeRule


def test_many_streams_at_once_are_numpys():
    keys = np.array([5, 2**63 + 11, 0], np.uint64)
    who = np.repeat([0, 1, 2], [3, 9, 6])
    position = np.concatenate([np.arange(3), np.arange(4, 13), np.arange(6)])
    found = uniform(7, keys, who, position)
    for stream, key in enumerate(keys):
        philox = np.random.Philox(key=np.array([7, key], np.uint64))
        expected = np.random.Generator(philox).random(13)
        np.testing.assert_array_equal(found[who == stream], expected[position[who == stream]])


def draw(by="popularity", per_positive=4, seed=1, upto=None, users=("a", "b"), owner=None):
    upto = np.array([[4, 1, 0, 5], [4, 1, 2, 5], [4, 1, 2, 5]]) if upto is None else upto
    owner = np.array([0, 0, 1]) if owner is None else owner
    item = np.array([0, 1, 3])[: len(owner)]
    rule = NegativeRule(per_positive=per_positive, by=by, seed=seed)
    rows, split = np.arange(len(owner)), np.array([0, 1, 2])[: len(owner)]
    return sample_negatives(rule, upto, list(users), owner, item, rows, split)


def test_a_users_own_items_and_later_ones_are_never_drawn():
    found = draw(per_positive=500)
    assert set(found[0]) == {3}  # item 2 has no training row
    assert set(found[1]) == {2, 3}
    assert set(found[2]) == {0, 1, 2}


def test_popularity_and_uniform():
    popular, uniform_ = draw(per_positive=4000)[2], draw("uniform", 4000)[2]
    assert np.bincount(popular)[:3] / 4000 == pytest.approx([4 / 7, 1 / 7, 2 / 7], abs=0.03)
    assert np.bincount(uniform_)[:3] / 4000 == pytest.approx([1 / 3] * 3, abs=0.03)


def test_draws_depend_on_seed_and_user_alone():
    both = draw()
    alone = draw(users=("a",), owner=np.array([0, 0]))
    np.testing.assert_array_equal(both[:2], alone)
    assert (draw(seed=2) != both).any()
    assert _key("a") != _key("b")


def test_a_user_who_has_met_everything_is_named():
    upto = np.array([[9, 9], [9, 9], [9, 9]])
    with pytest.raises(UsageError, match="user 'a' has events with every item"):
        draw(upto=upto, users=("a",), owner=np.array([0, 0]))
