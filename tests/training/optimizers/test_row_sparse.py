"""What both row-sparse rules keep to: no work on whole tables, exact decay, exact continuation."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import loopctr_tf as lc
from loopctr_tf.training.optimizers.row_sparse import is_table
from tests.factories import random_batch, schema_dict, tiny_model
from tests.operations import watched
from tests.reference.optimizers import AdagradRow, AdamRow, train_rows
from tests.training.optimizers.tables import draw_steps, slices, start, train

RULES = {"lazy_adamw": AdamRow, "rowwise_adagrad": AdagradRow}

both = pytest.mark.parametrize("tables", RULES)


def wide_schema(rows):
    """The small schema with ``rows`` rows of movies, which a feature and two sequences share."""
    values = schema_dict()
    values["tables"]["movie"] = {"hash_buckets": rows}
    return lc.Schema.from_dict(values)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("m/encoder/movie_embedding/embeddings", True),
        ("embeddings/replica_1", True),
        ("m/embeddings/part_0", True),
        ("m/embeddings_projection/kernel", False),
        ("m/long_recency/vectors", False),
    ],
)
def test_tables_are_known_by_name(name, expected):
    assert is_table(tf.Variable(1.0, name=name)) == expected


# Cost.


@both
def test_no_operation_of_a_training_step_is_as_large_as_a_table(tables):
    rows = 50_000
    model = tiny_model(schema=wide_schema(rows), seed=None, loops=0, streams=1)
    settings = {"clip_norm": 1.0, "table_weight_decay": 0.1}
    model.compile(lc.optimizers.adamw(tables=tables, **settings), run_eagerly=True)
    batch = random_batch(6)
    with watched() as seen:
        model.train_on_batch(*batch)
    assert seen.elements["ResourceGather"] > 0
    assert max(seen.elements.values()) < rows


def test_the_check_above_would_find_whole_tables():
    table = tf.Variable(start(), name="m/embeddings")
    optimizer = lc.optimizers.adamw()
    optimizer.build([table])
    with watched() as seen:
        optimizer.apply_gradients([(slices([1], start()[:1]), table)])
    assert max(seen.elements.values()) >= start().size


# Rows.


@both
def test_rows_that_no_batch_names_stay_as_they_are(tables):
    table, _ = train(lc.optimizers.adamw(0.1, tables=tables), draw_steps(12))
    np.testing.assert_array_equal(table[0], start()[0])
    assert np.all(table[1:] != start()[1:])


@both
@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_a_dense_gradient_counts_as_one_of_every_row(tables, decay):
    def optimizer():
        return lc.optimizers.adamw(0.1, tables=tables, table_weight_decay=decay)

    steps = draw_steps(12, full=True)
    found, _ = train(optimizer(), steps, dense=True)
    expected, _ = train(optimizer(), steps)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@both
def test_tables_may_have_a_rate_of_their_own(tables):
    steps = draw_steps(12)
    found = train(lc.optimizers.adamw(0.1, tables=tables, table_learning_rate=0.03), steps)
    other, _ = train(lc.optimizers.adamw(0.03, tables=tables), steps)
    _, kernel = train(lc.optimizers.adamw(0.1, tables=tables), steps)
    np.testing.assert_allclose(found[0], other, rtol=1e-6)
    np.testing.assert_allclose(found[1], kernel, rtol=1e-6)


@both
def test_one_table_of_many_features_trains_as_the_reference(tables):
    """Candidates, histories and lists of genres: gradients of all namings of a row are one."""
    model = tiny_model(loops=0, streams=1)
    weights = [w for w in model.trainable_variables if "movie_e" in w.name or "genre_e" in w.name]
    first, steps = [weight.numpy() for weight in weights], [[], []]
    optimizer = lc.optimizers.adamw(0.05, tables=tables, table_weight_decay=0.2)
    optimizer.build(weights)
    for seed in range(3):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(random_batch(3, seed)[0]))
        gradients = tape.gradient(loss, weights)
        for own, gradient in zip(steps, gradients, strict=True):
            assert len(np.unique(gradient.indices)) < len(gradient.indices)
            own.append((gradient.indices.numpy(), gradient.values.numpy()))
        optimizer.apply_gradients(zip(gradients, weights, strict=True))
    optimizer.finalize_variable_values(weights)
    for weight, start_, own in zip(weights, first, steps, strict=True):
        expected = train_rows(RULES[tables], start_, own, [0.05] * 3, 0.2)
        np.testing.assert_allclose(weight, expected, rtol=0, atol=1e-5)


def test_a_table_that_is_not_trainable_is_left_alone():
    values = schema_dict()
    values["tables"]["movie"]["trainable"] = False
    model = tiny_model(schema=lc.Schema.from_dict(values), loops=0, streams=1)
    before = {weight.name: weight.numpy() for weight in model.weights}
    optimizer = lc.optimizers.adamw(tables="lazy_adamw", table_weight_decay=0.1)
    model.compile(optimizer, run_eagerly=True)
    model.train_on_batch(*random_batch(6))
    optimizer.finalize_variable_values(model.trainable_variables)
    moved = {w.name.split("/")[-2] for w in model.weights if np.any(w.numpy() != before[w.name])}
    assert "genre_embedding" in moved
    assert "movie_embedding" not in moved


# Decay.


@both
def test_a_row_gets_the_decay_that_it_missed_when_it_is_named(tables):
    table = tf.Variable([[8.0], [8.0]], name="m/embeddings")
    optimizer = lc.optimizers.adamw(0.5, tables=tables, table_weight_decay=1.0)
    optimizer.build([table])

    def step(row):
        optimizer.apply_gradients([(slices([row], [[0.0]], rows=2), table)])

    step(0)
    step(0)
    np.testing.assert_allclose(table, [[2.0], [8.0]])
    optimizer.learning_rate = 0.25
    step(1)
    np.testing.assert_allclose(table, [[2.0], [8 * 0.5 * 0.5 * 0.75]])
    for _ in range(2):  # the second time there is nothing to do
        optimizer.catch_up([table])
        np.testing.assert_allclose(table, [[2 * 0.75], [8 * 0.5 * 0.5 * 0.75]])


@both
def test_averages_are_those_of_rows_decayed_at_every_step(tables):
    table = tf.Variable([[8.0], [8.0]], name="m/embeddings")
    optimizer = lc.optimizers.adamw(0.5, ema_momentum=0.5, tables=tables, table_weight_decay=1.0)
    optimizer.build([table])
    for _ in range(2):
        optimizer.apply_gradients([(slices([0], [[0.0]], rows=2), table)])
    np.testing.assert_allclose(table, [[2.0], [2.0]])
    optimizer.finalize_variable_values([table])
    # 8, then (8 + 4) / 2 = 6, then (6 + 2) / 2 = 4, of the row that was named and of the other.
    np.testing.assert_allclose(table, [[4.0], [4.0]])


# Going on from what was saved.


def compiled(tables, seed=0):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.layers.Embedding(20, 3, input_length=2),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )
    settings = {"clip_norm": 1.0, "table_weight_decay": 0.5}
    optimizer = lc.optimizers.adamw(0.01, tables=tables, **settings)
    model.compile(optimizer, "mse", run_eagerly=True)
    return model


def go_on(model, seeds):
    for seed in seeds:
        rows = np.random.default_rng(seed).integers(20, size=[2, 2])
        model.train_on_batch(rows, np.array([0.0, 1.0]))


@pytest.mark.parametrize(
    ("tables", "way"), [("lazy_adamw", "keras"), ("rowwise_adagrad", "checkpoint")]
)
def test_training_goes_on_exactly_from_what_was_saved(tables, way, tmp_path):
    """Batches of a few rows, so that many rows wait for decay when the model is saved."""
    model = compiled(tables)
    go_on(model, [1, 2])
    if way == "keras":
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        loaded.run_eagerly = True
    else:
        path = tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(tmp_path / "c")
        loaded = compiled(tables, seed=9)
        checkpoint = tf.train.Checkpoint(model=loaded, optimizer=loaded.optimizer)
        checkpoint.restore(path).assert_existing_objects_matched()
    assert len(np.unique(model.optimizer._stood[0])) > 1
    for one in (model, loaded):
        go_on(one, [3, 4])
        one.optimizer.finalize_variable_values(one.trainable_variables)
    pairs = [*zip(model.weights, loaded.weights, strict=True)]
    pairs += zip(model.optimizer.variables, loaded.optimizer.variables, strict=True)
    for expected, found in pairs:
        np.testing.assert_array_equal(found, expected, err_msg=expected.name)
