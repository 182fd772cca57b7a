"""Equal to dense AdamW where every row is named, to a row-by-row reference where not."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import loopctr_tf as lc
from tests.reference.optimizers import AdamRow, train_rows
from tests.training.optimizers.tables import Halving, draw_steps, slices, start, train


def lazy(rate=0.1, **settings):
    return lc.optimizers.adamw(rate, tables="lazy_adamw", **settings)


def test_two_steps_worked_out_by_hand():
    table = tf.Variable([[2.0], [5.0]], name="m/embeddings")
    optimizer = lazy()
    optimizer.build([table])
    optimizer.apply_gradients([(slices([0, 0], [[0.1], [0.2]], rows=2), table)])
    # Adam's first step is rate * sign(gradient).
    np.testing.assert_allclose(table, [[1.9], [5.0]], rtol=1e-5)
    optimizer.apply_gradients([(slices([1], [[0.3]], rows=2), table)])
    # Row 1 comes late: m = .1 g and v = .001 g^2 with the factors of the second step.
    late = 0.1 * np.sqrt(1 - 0.999**2) / (1 - 0.9**2) * 0.1 / np.sqrt(0.001)
    np.testing.assert_allclose(table, [[1.9], [5.0 - late]], rtol=1e-5)


@pytest.mark.parametrize(
    ("clip_norm", "decay", "schedule"), [(0.0, 0.0, False), (0.5, 0.5, False), (0.0, 0.5, True)]
)
def test_equals_dense_adamw_when_every_row_is_named_at_each_step(clip_norm, decay, schedule):
    rate = Halving() if schedule else 0.1
    steps = draw_steps(12, full=True)
    optimizer = lazy(rate, weight_decay=decay, table_weight_decay=decay, clip_norm=clip_norm)
    # Keras's own decays all weights, tables too.
    plain = keras.optimizers.AdamW(rate, decay, global_clipnorm=clip_norm or None)
    expected = train(plain, steps, dense=True)
    for found, wanted in zip(train(optimizer, steps), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
    assert np.abs(expected[0] - start()).max() > 0.1


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_equals_the_reference_when_rows_are_named_now_and_then(graph, decay):
    steps = draw_steps(12)
    table, _ = train(lazy(Halving(), table_weight_decay=decay), steps, graph=graph)
    rates = [0.2 * 0.5**step for step in range(12)]
    expected = train_rows(AdamRow, start(), steps, rates, decay)
    # In float32, as in Keras's AdamW, 1 - .999^t is good to 6e-5 of itself at first.
    np.testing.assert_allclose(table, expected, rtol=0, atol=1e-5)


def test_the_state_is_that_of_adamw():
    table = tf.Variable(start(), name="m/embeddings")
    states = []
    for tables in ("adamw", "lazy_adamw"):
        optimizer = lc.optimizers.adamw(tables=tables)
        optimizer.build([table])
        states.append([(variable.name, variable.shape) for variable in optimizer.variables])
    assert states[0] == states[1]
