import numpy as np
import pytest
import tensorflow as tf

from loopctr_tf.layers import NewestFirst
from loopctr_tf.layers.newest_first import turned
from tests.layers import harness
from tests.layers.harness import Case, normal
from tests.reference.basics import unsaid


def test_by_hand():
    layer = NewestFirst()
    old, new = (tf.constant([[[1.0], [2.0], [0.0]]]), [2]), (tf.constant([[[3.0], [0.0]]]), [1])
    layer.build([((1, 3, 1), (1,)), ((1, 2, 1), (1,))])
    layer.separator.assign([9])
    line, lengths = layer([old, new])
    np.testing.assert_array_equal(line[0, :4, 0], [3, 9, 2, 1])
    np.testing.assert_array_equal(lengths, [4])


def sequences(*tokens: int):
    return [(normal(3, size, 2), np.array([size, 1, 0], np.int32)) for size in tokens]


def reference(w, parts):
    line = unsaid((3, sum(x.shape[1] for x, _ in parts) + len(parts) - 1, 2))
    lengths = np.zeros(3)
    for row in range(3):
        events = []
        for i, (x, count) in enumerate(parts):
            events += [w["separator_token"]] if i else []
            events += list(x[row, : count[row]])
        lengths[row] = len(events)
        for place, event in enumerate(reversed(events)):
            line[row, place] = event
    return line, lengths


CASE = Case(NewestFirst, (sequences(4, 2, 3),), reference)


@pytest.mark.parametrize("case", [CASE, Case(NewestFirst, (sequences(4),), reference)])
def test_line_and_gradients(case):
    layer = harness.made(case, jitter=0.4)
    inputs = harness.tensors(case.inputs)
    expected, lengths = case.reference(harness.weights_of(layer), *case.inputs)
    said = ~np.isnan(expected)
    pull = tf.constant(np.where(said, normal(*expected.shape, seed=2), 0.0))
    line, found = layer(*inputs)
    np.testing.assert_array_equal(found, lengths)
    np.testing.assert_array_equal(line.numpy()[said], expected[said])
    slopes, _ = harness.gradients(layer, inputs, lambda out: tf.reduce_sum(out[0] * pull))
    # The line holds each real token once, so that a token's slope is the pull at its place.
    for (tokens, counts), slope in zip(case.inputs[0], slopes, strict=True):
        for row in range(3):
            for t in range(counts[row]):
                place = np.flatnonzero((expected[row] == tokens[row, t]).all(-1))[0]
                np.testing.assert_array_equal(slope[row, t], pull[row, place])


def test_turned_twice_is_as_before_whatever_the_lengths():
    x, lengths = tf.constant(normal(4, 5, 2)), tf.constant([0, 1, 4, 5])
    np.testing.assert_array_equal(turned(turned(x, lengths), lengths), x)
