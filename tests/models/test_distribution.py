"""Two replicas train as one device does with the whole batch, and exchange rows, not tables."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import loopctr_tf as lc
from loopctr_tf.models.encoder import Embedding
from tests.factories import compact_schema, random_frame, rewriting_off, tiny_model

BATCH = 6
ROWS = (2 * BATCH + 5, BATCH + 3)
"""Three and two steps; the last batch of a pass is split 3 + 2, and then 3 + 0."""


class Steps(keras.callbacks.Callback):
    """All figures after each step."""

    def __init__(self):
        super().__init__()
        self.figures = []

    def on_train_batch_end(self, batch, logs=None):
        self.figures.append(dict(logs))


def train(scope):
    """Five steps: (figures after each step, weights at the end)."""
    with scope:
        model = tiny_model(schema=compact_schema(), loops=0, streams=1, balance_weight=0.1)
        optimizer = lc.optimizers.adamw(
            0.01, clip_norm=0.5, tables="lazy_adamw", table_weight_decay=0.5
        )
        # Where a gradient is zero but for rounding, Adam would make steps of the rounding.
        optimizer.epsilon = 1e-3
        model.compile(optimizer, metrics=[keras.metrics.MeanSquaredError(name="brier")])
    steps = Steps()
    for seed, rows in enumerate(ROWS):
        frame = random_frame(rows, seed)
        dataset = lc.read_dataset(frame, compact_schema(), batch_size=BATCH)
        with rewriting_off():
            model.fit(dataset, callbacks=[steps], verbose=0)
    for weight in (*model.trainable_variables, *optimizer.variables):
        # Replicas that part would go unseen, because only the first is shown.
        for copy in getattr(weight, "values", ())[1:]:
            np.testing.assert_array_equal(copy, weight.values[0], err_msg=weight.name)
    return steps.figures, {weight.name: weight.numpy() for weight in model.weights}


@pytest.mark.slow
def test_two_replicas_train_as_one_device_with_the_whole_batch(two_devices):
    """Every registered model, loops included, takes one step in ``test_models``; here rows of tables
    move lazily."""
    expected_figures, expected_weights = train(contextlib.nullcontext())
    figures, weights = train(two_devices.scope())
    assert len(figures) == len(expected_figures) == 5
    for step, (found, expected) in enumerate(zip(figures, expected_figures, strict=True)):
        assert {"loss", "balance_loss", "loop_0_loss", "loop_0_auc", "brier"} <= set(found)
        assert found == pytest.approx(expected, abs=1e-5), step
    assert weights.keys() == expected_weights.keys()
    for name, expected in expected_weights.items():
        np.testing.assert_allclose(weights[name], expected, rtol=0, atol=1e-5, err_msg=name)
    # The balance loss and the labels both had a say.
    assert figures[0]["balance_loss"] > 1.0
    assert figures[-1]["loss"] != pytest.approx(figures[0]["loss"], abs=1e-3)


@pytest.mark.parametrize("tables", ["lazy_adamw", "rowwise_adagrad"])
def test_replicas_exchange_the_rows_that_they_named_and_no_table(two_devices, tables):
    rows = 10_007
    with two_devices.scope():
        table = tf.Variable(tf.ones([rows, 1]), name="m/embeddings")
        optimizer = lc.optimizers.adamw(0.5, tables=tables, table_weight_decay=1.0)
        optimizer.build([table])

    def replica_step(named):
        gradient = tf.IndexedSlices(tf.ones([tf.size(named), 1]), named, tf.constant([rows, 1]))
        optimizer.apply_gradients([(gradient, table)])

    @tf.function
    def step(first, second):
        named = two_devices.experimental_distribute_values_from_function(
            lambda context: [first, second][context.replica_id_in_sync_group]
        )
        two_devices.run(replica_step, args=(named,))

    batches = [tf.constant([3, 3, 5]), tf.constant([5])]
    step(*batches)
    # Each row of two gets one step of 0.5 * sign(gradient) after a decay of 0.5.
    for copy in table.values:
        np.testing.assert_allclose(copy.numpy()[[3, 4, 5], 0], [0.0, 1.0, 0.0], atol=1e-5)
    assert whole_tables(step.get_concrete_function(*batches), rows) == []


def whole_tables(function, rows) -> list[str]:
    """Operations of ``function`` that give something of ``rows`` rows."""
    operations = function.graph.get_operations()
    shapes = {op.name: output.shape for op in operations for output in op.outputs}
    assert any(shape.rank for shape in shapes.values())
    return [name for name, shape in shapes.items() if shape.rank and shape[0] == rows]


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (lambda *arguments: Embedding(*arguments, dtype="mixed_bfloat16"), []),
        (Embedding, []),
        (keras.layers.Embedding, ["ReadVariableOp"]),  # which is why there is one of our own
    ],
    ids=["mixed", "float32", "Keras"],
)
def test_replicas_read_the_rows_that_they_name_and_no_table(two_devices, kind, found):
    rows = 10_007
    with two_devices.scope():
        layer = kind(rows, 2)
        layer.build(None)
    layer.set_weights([np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)])

    def replica_step(named):
        with tf.GradientTape() as tape:
            read = layer(named)
            total = tf.reduce_sum(read)
        (gradient,) = tape.gradient(total, layer.trainable_variables)
        assert isinstance(gradient, tf.IndexedSlices)
        assert gradient.values.dtype == tf.float32
        return tf.cast(read, tf.float32), gradient.indices

    @tf.function
    def step(named):
        return two_devices.run(replica_step, args=(named,))

    read, indices = step(tf.constant([3, 3, 127]))
    for copy in two_devices.experimental_local_results(read):
        np.testing.assert_array_equal(copy, [[6, 7], [6, 7], [254, 255]])
    for copy in two_devices.experimental_local_results(indices):
        np.testing.assert_array_equal(copy, [3, 3, 127])
    names = whole_tables(step.get_concrete_function(tf.constant([0, 0, 0])), rows)
    assert sorted({name.rpartition("/")[2].partition("_")[0] for name in names}) == found
    # Outside of a replica too, where a model is evaluated and exported.
    np.testing.assert_array_equal(tf.cast(layer(tf.constant([3])), tf.float32), [[6, 7]])
