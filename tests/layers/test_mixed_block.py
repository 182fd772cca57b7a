import numpy as np
import pytest
import tensorflow as tf

from loopctr_tf.layers import MixedBlock
from tests.layers import harness
from tests.layers.harness import Case, mask_of, normal


def test_by_hand():
    """Width one, no feed-forward: an event and a feature after it, whose values are 2 and 3."""
    block = MixedBlock(heads=1, ffn_dim=1, features=1)
    block.build([None, None, 1])
    for weights, value in ((block.shared, 2.0), (block.own, 3.0)):
        for weight in weights.values():
            weight.assign(tf.zeros_like(weight))
        # Without queries all weights are equal; the input norm leaves a one.
        key_value = weights["key_value"]
        key_value.assign(tf.reshape([0.0, value], key_value.shape))
        weights["output"].assign(tf.ones_like(weights["output"]))
    features, events = block(tf.ones([1, 1, 1]), tf.ones([1, 2, 1]), tf.constant([[True, False]]))
    # The event reads itself, 2; the feature the event and itself, (2 + 3) / 2; both are added.
    np.testing.assert_allclose(events[0, 0], [1 + 2], atol=1e-5)
    np.testing.assert_allclose(features[0, 0], [1 + 2.5], atol=1e-5)


MASK = mask_of([5, 2, 0], 5)
CASES = {
    queries: Case(
        lambda queries=queries, **kwargs: MixedBlock(2, 6, 3, queries, **kwargs),
        (normal(3, 3, 4), normal(3, 5, 4), MASK),
    )
    for queries in (None, 2, 0)
}


@pytest.mark.parametrize("queries", [None, 2])
@pytest.mark.parametrize("check", harness.IN_KERAS)
def test_layer(check, queries, tmp_path):
    check(CASES[queries], tmp_path)


def made(queries=None):
    return harness.made(CASES[queries], jitter=0.4), harness.tensors(CASES[queries].inputs)


def test_the_pyramid_leaves_the_newest_as_they_are():
    (full, inputs), (some, _), (none, _) = made(), made(2), made(0)
    features, events = full(*inputs)
    for block, queries in ((some, 2), (none, 0)):
        harness.copy_weights(full, block)
        same, newest = block(*inputs)
        np.testing.assert_allclose(same, features, atol=1e-12)
        np.testing.assert_allclose(newest, events[:, :queries], atol=1e-12)
        assert newest.shape[1] == queries


def test_newer_tokens_and_padding_never_move_older_ones():
    block, (features, events, mask) = made()
    expected_features, expected = block(features, events, mask)
    newer = tf.concat([100 * tf.ones_like(events[:, :1]), events, -events], axis=1)
    longer = tf.concat([tf.ones_like(mask[:, :1]), mask, tf.zeros_like(mask)], axis=1)
    _, found = block(features, newer, longer)
    for row, length in enumerate(MASK.sum(1)):
        np.testing.assert_allclose(found[row, 1 : 1 + length], expected[row, :length], atol=1e-12)
    found, _ = block(features, newer[:, 1:], longer[:, 1:])
    np.testing.assert_allclose(found, expected_features, atol=1e-12)
    changed = tf.concat([features[:, :2], features[:, 2:] + 1], axis=1)
    found, same = block(changed, events, mask)
    np.testing.assert_array_equal(same, expected)
    np.testing.assert_array_equal(found[:, :2], expected_features[:, :2])


def test_last_features_alone_on_cached_keys_equal_all_at_once():
    block, (features, events, mask) = made()
    expected, _ = block(features, events, mask)
    _, keys, values = block.step_events(events, mask)
    _, own_keys, own_values = block.step_features(features[:, None, :1], keys, values, mask)
    keys = tf.concat([own_keys[:, 0], keys], axis=1)
    values = tf.concat([own_values[:, 0], values], axis=1)
    seen = tf.concat([tf.ones_like(mask[:, :1]), mask], axis=1)
    candidates = tf.stack([features[:, 1:], -features[:, 1:]], axis=1)
    found, _, _ = block.step_features(candidates, keys, values, seen, first=1)
    np.testing.assert_allclose(found[:, 0], expected[:, 1:], atol=1e-12)


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="heads is 3; give a divisor of the width 4"):
        MixedBlock(3, 2, 1).build([None, None, 4])


def test_every_option_is_kept():
    harness.keeps_options(MixedBlock, heads=2, ffn_dim=3, features=4, queries=5, dropout=0.5)
