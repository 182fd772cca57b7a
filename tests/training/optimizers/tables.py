"""Tables of a few rows, steps that name some of them, and a run of any optimizer over such steps."""

import numpy as np
import tensorflow as tf
import tf_keras as keras

ROWS, DIM = 7, 3


class Halving(keras.optimizers.schedules.LearningRateSchedule):
    """0.2, 0.1, 0.05, ...: no two steps have the same rate."""

    def __call__(self, step):
        return 0.2 * 0.5 ** tf.cast(step, tf.float32)

    def get_config(self):
        return {}


def start(seed=0):
    """Rows to start from."""
    return np.random.default_rng(seed).normal(size=[ROWS, DIM]).astype(np.float32)


def draw_steps(count, full=False, seed=1):
    """Of each step the rows named, some of them twice or not at all, and their gradients.

    With ``full`` every row is named at each step. Without, row 0 never is, and step 2 names nothing.
    """
    rng = np.random.default_rng(seed)
    steps = []
    for step in range(count):
        named = rng.integers(1, ROWS, 0 if step == 2 else 5)
        if full:
            named = rng.permutation([*range(ROWS), *named])
        gradients = rng.normal(size=[len(named), DIM]) * 10.0 ** rng.integers(-3, 1)
        steps.append((named, gradients.astype(np.float32)))
    return steps


def slices(named, gradients, rows=ROWS):
    """A gradient of rows, as a gather gives it."""
    return tf.IndexedSlices(
        tf.constant(gradients), tf.constant(named, tf.int64), tf.constant([rows, DIM], tf.int64)
    )


def train(optimizer, steps, dense=False, graph=False):
    """(table, kernel) after ``steps``; every step's gradient of the kernel is 0.01 and more.

    With ``dense`` the table's gradients come with all its rows; with ``graph`` steps are compiled.
    """
    table = tf.Variable(start(), name="m/embeddings")
    kernel = tf.Variable(np.ones([2, 2], np.float32), name="m/kernel")
    optimizer.build([table, kernel])

    def apply(gradient, of_kernel):
        optimizer.apply_gradients([(gradient, table), (of_kernel, kernel)])

    apply = tf.function(apply, reduce_retracing=True) if graph else apply
    for number, (named, gradients) in enumerate(steps, start=1):
        gradient = slices(named, gradients)
        of_kernel = tf.fill([2, 2], 0.01 * number)
        apply(tf.convert_to_tensor(gradient) if dense else gradient, of_kernel)
    optimizer.finalize_variable_values([table, kernel])
    return table.numpy(), kernel.numpy()
