import numpy as np
import pytest
import tensorflow as tf

from loopctr_tf.layers import ActivationUnit
from loopctr_tf.layers.counting import count_flops
from tests.layers import harness
from tests.layers.harness import Case, mask_of, normal

MASK = mask_of([4, 1, 0], 4)


def test_by_hand():
    """Two events of width one, a network of one hidden unit that reads t * h alone, doubled."""
    unit = ActivationUnit([1])
    unit.build([None, 1])
    values = ([[0], [0], [0], [1]], [0], [[2]], [0])
    for weight, value in zip(unit.weights, values, strict=True):
        weight.assign(value)
    events = tf.constant([[[np.log(3.0)], [0.0], [5.0]]], tf.float32)
    found = unit(tf.constant([[1.0]]), events, tf.constant([[True, True, False]]))
    # sigmoid(log 3) = 3 / 4, so that the weights are 3 / 2 and 1; they do not sum to one.
    np.testing.assert_allclose(found, [[1.5 * np.log(3.0)]], rtol=1e-6)


def reference(w, candidate, events, mask):
    pooled = np.zeros_like(candidate)
    for row, (t, line) in enumerate(zip(candidate, events, strict=True)):
        for h in line[mask[row]]:
            x = np.concatenate([t, h, t - h, t * h]) @ w["kernel"] + w["bias"]
            for i in range(2):
                x = 1 / (1 + np.exp(-x))
                x = x @ w[f"rest/dense_{i}/kernel"] + w[f"rest/dense_{i}/bias"]
            pooled[row] += x * h
    return pooled


CASE = Case(
    lambda **k: ActivationUnit([5, 2], **k), (normal(3, 3), normal(3, 4, 3), MASK), reference
)


@pytest.mark.parametrize("check", harness.CHECKS)
def test_layer(check, tmp_path):
    check(CASE, tmp_path)


def test_padding_moves_neither_output_nor_gradient():
    unit = harness.made(CASE, "float32", jitter=0.4)
    candidate, events, _ = harness.tensors(CASE.inputs, "float32")
    found = []
    for padding in (0.0, np.nan, np.inf):
        with tf.GradientTape() as tape:
            output = unit(candidate, tf.where(MASK[..., None], events, padding), MASK)
        found.append([output, *tape.gradient(output, unit.trainable_variables)])
    for junk in found[1:]:
        for part, expected in zip(junk, found[0], strict=True):
            np.testing.assert_array_equal(part, expected)
    np.testing.assert_array_equal(found[0][0][2], [0, 0, 0])  # no event at all


def test_events_of_a_longer_history_weigh_no_less():
    unit = harness.made(CASE, "float32", jitter=0.4)
    candidate, event = tf.ones([1, 3]), tf.ones([1, 1, 3])
    once = unit(candidate, event, tf.constant([[True]]))
    twice = unit(candidate, tf.repeat(event, 2, axis=1), tf.constant([[True, True]]))
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-6)


def test_products_are_counted():
    unit = harness.made(CASE, "float32")
    with count_flops() as counted:
        unit(*harness.tensors(CASE.inputs, "float32"))
    # Rows 3, events 4, width 3: the candidate's part, the events', the other layers, the pooling.
    assert sum(counted) == 2 * 3 * (3 * 5 + 4 * (3 * 5 + 5 * 2 + 2 * 1 + 3))


def test_hidden_widths_are_needed():
    with pytest.raises(ValueError, match="units is empty; give at least one hidden width"):
        ActivationUnit([])


def test_every_option_is_kept():
    harness.keeps_options(ActivationUnit, units=[7, 2])
