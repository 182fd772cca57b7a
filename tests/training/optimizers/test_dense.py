import re

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import loopctr_tf as lc
from tests.factories import tiny_model


def test_a_step_worked_out_by_hand():
    """The first step of Adam moves by rate * sign(gradient); the decay comes on top."""
    kernel = tf.Variable([[2.0, -4.0]], name="dense/kernel")
    bias = tf.Variable([2.0, -4.0], name="dense/bias")
    optimizer = lc.optimizers.adamw(learning_rate=0.1, weight_decay=0.5)
    gradient = tf.constant([0.3, -0.2])
    optimizer.apply_gradients([(gradient[None], kernel), (gradient, bias)])
    np.testing.assert_allclose(bias, [2 - 0.1, -4 + 0.1], rtol=1e-5)
    # Decoupled: 2 (1 - .1 * .5) - .1, and -4 (1 - .1 * .5) + .1.
    np.testing.assert_allclose(kernel, [[1.9 - 0.1, -3.8 + 0.1]], rtol=1e-5)


def decayed(model, optimizer) -> set[str]:
    """Names of the weights that a step without any gradient changes."""
    before = [weight.numpy() for weight in model.trainable_variables]
    zeros = [tf.zeros_like(weight) for weight in model.trainable_variables]
    optimizer.apply_gradients(zip(zeros, model.trainable_variables, strict=True))
    return {
        weight.name
        for weight, old in zip(model.trainable_variables, before, strict=True)
        if np.any(weight.numpy() != old)
    }


def matrices(model) -> set[str]:
    """Names of the kernels of projections, attention, experts, routers and tower."""
    kinds = r"/(kernel(_\d+)?|query|key|value|output|inner|outer):0$"
    return {w.name for w in model.weights if re.search(kinds, w.name) and "_hcr/" not in w.name}


@pytest.mark.parametrize("amsgrad", [False, True])
def test_many_steps_are_those_of_keras(amsgrad):
    rng = np.random.default_rng(0)
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 3, 0.5)
    start, gradients = rng.normal(size=[3, 2]), rng.normal(size=[10, 3, 2])
    found = []
    for kind in (lc.optimizers.AdamW, keras.optimizers.AdamW):
        kernel = tf.Variable(start, dtype=tf.float32, name="dense/kernel")
        optimizer = kind(schedule, weight_decay=0.1, global_clipnorm=1.5, amsgrad=amsgrad)
        for gradient in gradients:
            optimizer.apply_gradients([(tf.constant(gradient, tf.float32), kernel)])
        found.append(kernel.numpy())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-6)
    assert np.all(found[0] != start)


def test_matrices_are_decayed_and_nothing_else():
    model = tiny_model()
    expected = matrices(model)
    assert decayed(model, lc.optimizers.adamw(weight_decay=0.1)) == expected
    left = {re.sub(r".*/(\w+?)(_\d+)?:0", r"\1", w.name) for w in model.weights} - {"kernel"}
    assert {"embeddings", "bias", "gain", "sink", "vectors", "queries", "mix"} <= left


def test_what_is_decayed_does_not_depend_on_the_names_of_models_and_sequences():
    named = tiny_model().get_config()
    named["name"] = "without_hcr_and_gain"
    named["config"]["zero_outputs"] = False  # zeros stay zeros, decayed or not
    named["schema"]["sequences"][1]["name"] = "bias_history"
    model = lc.LoopCTR.from_config(named)
    assert any("bias_history_compression/query" in name for name in matrices(model))
    assert decayed(model, lc.optimizers.adamw(weight_decay=0.1)) == matrices(model)


@pytest.mark.parametrize("copy", ["", "/replica_1", "/part_0"])
def test_copies_and_parts_of_a_variable_are_treated_alike(copy):
    """Copies that were not would part for good."""
    names = {
        "m/encoder/movie_embedding/embeddings": False,
        "m/projection/bias_12": False,
        "m/entry_block/attention_hcr/read_kernel": False,
        "m/long_compression/queries": False,
        "m/long_compression/query": True,
        "m/projection/kernel_12": True,
        "bias_history_compression/key": True,
    }
    optimizer = lc.optimizers.adamw()
    for name, expected in names.items():
        variable = tf.Variable(1.0, name=name + copy)
        assert variable.name == f"{name}{copy}:0"
        optimizer.build([variable])
        assert optimizer._use_weight_decay(variable) == expected, variable.name


def test_the_global_norm_is_clipped():
    optimizer = lc.optimizers.adamw(clip_norm=1.0)
    gradients = [tf.constant([3.0]), tf.constant([0.0, 4.0])]  # norm 5
    clipped = optimizer._clip_gradients(gradients)
    np.testing.assert_allclose(clipped[0], [0.6])
    np.testing.assert_allclose(clipped[1], [0.0, 0.8])
    free = lc.optimizers.adamw()._clip_gradients(gradients)
    np.testing.assert_allclose(free[1], [0.0, 4.0])


def test_what_a_batch_asks_of_a_row_is_summed_before_it_is_clipped():
    optimizer = lc.optimizers.adamw(clip_norm=1.0)
    # Row 5: 1 + 3 = 4; with the other gradient a norm of 5. The parts' norm would be sqrt(19).
    slices = tf.IndexedSlices(tf.constant([[1.0], [3.0]]), tf.constant([5, 5]), tf.constant([9, 1]))
    rows, dense = optimizer._clip_gradients([slices, tf.constant([3.0])])
    np.testing.assert_array_equal(rows.indices, [5])
    np.testing.assert_allclose(rows.values, [[0.8]])
    np.testing.assert_allclose(dense, [0.6])


@pytest.mark.parametrize("tables", ["adamw", "lazy_adamw", "rowwise_adagrad"])
def test_gradients_of_any_precision_are_taken(tables):
    table = tf.Variable(tf.ones([9, 1]), name="m/embeddings")
    kernel = tf.Variable([1.0], name="m/kernel")
    optimizer = lc.optimizers.adamw(0.1, weight_decay=0.0, clip_norm=9.0, tables=tables)
    values = tf.constant([[2.0], [1.0]], tf.bfloat16)
    slices = tf.IndexedSlices(values, tf.constant([5, 5]), tf.constant([9, 1]))
    optimizer.apply_gradients([(slices, table), (tf.constant([0.5], tf.bfloat16), kernel)])
    np.testing.assert_allclose(kernel, [0.9], rtol=1e-4)
    np.testing.assert_allclose(table[5], [0.9], rtol=1e-4)


@pytest.mark.parametrize("tables", ["adamw", "lazy_adamw", "rowwise_adagrad"])
def test_rows_are_never_compiled_for_their_number(tables, monkeypatch):
    """XLA, which Keras takes on a GPU, compiles anew for every size; batches name any number of rows."""
    compiled = []

    def note(self, gradient, variable, key):
        compiled.append(variable.name)

    monkeypatch.setattr(keras.optimizers.AdamW, "_update_step_xla", note)
    table = tf.Variable(tf.ones([9, 1]), name="m/embeddings")
    kernel = tf.Variable([1.0], name="m/kernel")
    optimizer = lc.optimizers.adamw(0.1, tables=tables)
    optimizer.jit_compile = True
    slices = tf.IndexedSlices(tf.constant([[1.0]]), tf.constant([5]), tf.constant([9, 1]))
    optimizer.apply_gradients([(slices, table), (tf.constant([0.5]), kernel)])
    assert compiled == ["m/kernel:0"]
    np.testing.assert_allclose(table[5], [0.9], rtol=1e-4)


def test_the_average_of_weights_follows_its_momentum():
    weight = tf.Variable([1.0], name="w/bias")
    optimizer = lc.optimizers.adamw(learning_rate=0.1, ema_momentum=0.75)
    optimizer.build([weight])
    for _ in range(2):
        optimizer.apply_gradients([(tf.constant([1.0]), weight)])
    np.testing.assert_allclose(weight, [0.8], rtol=1e-5)
    optimizer.finalize_variable_values([weight])
    # The average starts at the first value: 1, then .75 * 1 + .25 * .9 = .975, then .93125.
    np.testing.assert_allclose(weight, [0.75 * 0.975 + 0.25 * 0.8], rtol=1e-5)


def test_a_saved_and_loaded_optimizer_decays_the_same(tmp_path):
    model = tiny_model()
    model.compile(lc.optimizers.adamw(weight_decay=0.1))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    assert decayed(loaded, loaded.optimizer) == matrices(loaded)
