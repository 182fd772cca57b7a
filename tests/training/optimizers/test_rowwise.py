"""Row-wise Adagrad by hand and against a row-by-row reference; one figure of state a row."""

import numpy as np
import pytest
import tensorflow as tf

import loopctr_tf as lc
from tests.reference.optimizers import AdagradRow, train_rows
from tests.training.optimizers.tables import DIM, ROWS, Halving, draw_steps, slices, start, train


def rowwise(rate=0.1, **settings):
    return lc.optimizers.adamw(rate, tables="rowwise_adagrad", **settings)


def test_two_steps_worked_out_by_hand():
    table = tf.Variable([[1.0, 1.0, 1.0], [5.0, 5.0, 5.0]], name="m/embeddings")
    optimizer = rowwise()
    optimizer.build([table])
    # Both namings of row 0 together: (3, 0, 0), mean square 3.
    gradient = slices([0, 0], [[1.0, 0.0, 0.0], [2.0, 0.0, 0.0]], rows=2)
    optimizer.apply_gradients([(gradient, table)])
    np.testing.assert_allclose(table, [[1 - 0.3 / 3**0.5, 1, 1], [5, 5, 5]], rtol=1e-6)
    # (0, 3, 0) once more: mean squares 6.
    optimizer.apply_gradients([(slices([0], [[0.0, 3.0, 0.0]], rows=2), table)])
    expected = [[1 - 0.3 / 3**0.5, 1 - 0.3 / 6**0.5, 1], [5, 5, 5]]
    np.testing.assert_allclose(table, expected, rtol=1e-6)


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_equals_the_reference(graph, full, decay):
    steps = draw_steps(12, full)
    table, _ = train(rowwise(Halving(), table_weight_decay=decay), steps, graph=graph)
    rates = [0.2 * 0.5**step for step in range(12)]
    expected = train_rows(AdagradRow, start(), steps, rates, decay)
    np.testing.assert_allclose(table, expected, rtol=1e-6, atol=1e-6)


def test_dense_weights_are_trained_by_adamw():
    steps = draw_steps(12)
    _, kernel = train(rowwise(weight_decay=0.5), steps)
    _, expected = train(lc.optimizers.adamw(0.1, weight_decay=0.5), steps)
    np.testing.assert_array_equal(kernel, expected)


def test_a_table_has_one_figure_of_state_a_row():
    table = tf.Variable(tf.zeros([ROWS, DIM]), name="m/embeddings")
    optimizer = rowwise()
    optimizer.build([table])
    kept = [v.shape.num_elements() for v in optimizer.variables if "embeddings" in v.name]
    assert sum(kept) == ROWS
