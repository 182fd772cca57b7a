"""Keras's fit, evaluate and predict on a whole model; steps run without a graph, to be quick."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import loopctr_tf as lc
from loopctr_tf.errors import UsageError
from tests.factories import compact_schema, random_batch, random_frame, tiny_config, tiny_model

ROWS = 12

FIGURES = [
    "loss",
    "loop_0_loss",
    "loop_0_auc",
    "loop_1_loss",
    "loop_1_auc",
    "balance_loss",
]


@pytest.fixture(scope="module")
def frame():
    return random_frame(ROWS)


@pytest.fixture(scope="module")
def dataset(frame):
    """Two batches, of 8 and 4 rows."""
    return lc.read_dataset(frame, compact_schema(), batch_size=8).cache()


@pytest.fixture(scope="module")
def batch():
    return random_batch(ROWS, schema=compact_schema())


def compiled(optimizer="sgd", metrics=None, **settings):
    model = tiny_model(schema=compact_schema(), **{"loops": 1, "streams": 1, **settings})
    model.compile(optimizer, run_eagerly=True, **(metrics or {}))
    return model


def binary_crossentropy(labels, probabilities) -> np.ndarray:
    """The definition, in double precision."""
    p = np.float64(probabilities)
    return -(labels * np.log(p) + (1 - labels) * np.log(1 - p))


# Training.


def test_training_learns_and_shows_every_depth(batch):
    model = compiled(lc.optimizers.adamw(0.02, clip_norm=1.0), dropout=0.1)
    options = {"batch_size": ROWS, "epochs": 2, "validation_data": batch, "verbose": 0}
    history = model.fit(*batch, **options).history
    assert list(history) == FIGURES + [f"val_{name}" for name in FIGURES]
    for name in ("loss", "loop_0_loss", "loop_1_loss"):
        assert history[name][-1] < history[name][0]


def test_evaluate_is_the_objective_worked_out_from_the_probabilities(frame, dataset):
    model = compiled(balance_weight=0.5)
    figures = model.evaluate(dataset, verbose=0, return_dict=True)
    probabilities = model.predict(dataset, verbose=0)
    losses = [
        binary_crossentropy(frame.label.to_numpy(), column).mean() for column in probabilities.T
    ]
    assert figures["loop_0_loss"] == pytest.approx(losses[0], rel=1e-4)
    assert figures["loop_1_loss"] == pytest.approx(losses[1], rel=1e-4)
    assert figures["balance_loss"] > 1.0
    assert figures["loss"] == pytest.approx(
        np.mean(losses) + 0.5 * figures["balance_loss"], rel=1e-4
    )


def test_supervision_of_the_last_depth_reaches_fit(dataset):
    figures = compiled(supervision="last", balance_weight=0.0).evaluate(
        dataset, verbose=0, return_dict=True
    )
    assert figures["loss"] == pytest.approx(figures["loop_1_loss"], rel=1e-5)
    assert figures["loop_0_loss"] != pytest.approx(figures["loop_1_loss"], rel=1e-2)


def test_sample_weights_reach_the_loss_of_both_training_and_evaluation(batch):
    features, labels = batch
    weights = np.where(np.arange(ROWS) < 8, 0.0, 2.0).astype(np.float32)
    kept = {name: value[8:] for name, value in features.items()}
    model = compiled(balance_weight=0.0)
    expected = model.evaluate(kept, labels[8:], verbose=0, return_dict=True)
    unweighted = model.evaluate(features, labels, verbose=0, return_dict=True)
    figures = {
        "evaluate": model.evaluate(
            features, labels, sample_weight=weights, verbose=0, return_dict=True
        ),
        # Figures of a step are taken before its update.
        "fit": model.train_on_batch(features, labels, sample_weight=weights, return_dict=True),
    }
    for found in figures.values():
        # A row of weight 0 is as if it was not there; all rows count in metrics.
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)
        assert found["loop_0_loss"] == pytest.approx(unweighted["loop_0_loss"], rel=1e-4)


def test_a_column_of_weights_reaches_fit(frame):
    """The schema names it; twice the weight is the row twice, in what the model learns too."""
    schema = compact_schema()
    weighted = lc.Schema.from_dict({**schema.to_dict(), "weight": "importance"})
    counts = np.arange(ROWS) % 3
    repeated = frame.loc[frame.index.repeat(counts)]
    kernels = []
    for rows, kind in ((frame.assign(importance=counts), weighted), (repeated, schema)):
        dataset = lc.read_dataset(rows, kind, batch_size=3 * ROWS)
        model = compiled(keras.optimizers.SGD(0.1), balance_weight=0.0)
        model.fit(dataset, epochs=2, verbose=0)
        kernels.append([weight.numpy() for weight in model.trainable_weights])
        assert model.predict(dataset, verbose=0).shape[0] == len(rows)
    for one, other in zip(*kernels, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_metrics_of_the_user_are_shown_the_probability_at_depth_0(frame, dataset):
    model = compiled(
        metrics={
            "metrics": [
                keras.metrics.AUC(name="served_auc"),
                lc.metrics.NormalizedEntropy(name="ne"),
            ],
            "weighted_metrics": [keras.metrics.MeanSquaredError(name="brier")],
        }
    )
    figures = model.evaluate(dataset, verbose=0, return_dict=True)
    assert list(figures) == [*FIGURES, "served_auc", "ne", "brier"]
    probability = model.predict(dataset, verbose=0)[:, 0]
    labels = frame.label.to_numpy()
    assert figures["served_auc"] == pytest.approx(figures["loop_0_auc"], abs=1e-6)
    rate = labels.mean()
    entropy = -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
    assert figures["ne"] == pytest.approx(figures["loop_0_loss"] / entropy, rel=1e-4)
    assert figures["brier"] == pytest.approx(np.mean((probability - labels) ** 2), rel=1e-4)


def test_losses_of_layers_are_added(batch):
    plain, added = (compiled(keras.optimizers.SGD(0.1)) for _ in range(2))
    kernel = added.exit_block.head.kernel
    added.exit_block.head.add_loss(lambda: tf.reduce_sum(kernel))
    for model in (plain, added):
        model.train_on_batch(*batch)
    # The gradient of the sum is one.
    np.testing.assert_allclose(kernel, plain.exit_block.head.kernel - 0.1, atol=1e-5)


def test_dropout_acts_in_training_alone(batch):
    features, _ = batch
    model = compiled(dropout=0.5)
    np.testing.assert_array_equal(model(features), model(features, training=False))
    assert np.abs(model(features, training=True) - model(features, training=True)).max() > 1e-3


def test_the_group_column_may_be_among_the_features(frame, batch):
    ((grouped, _),) = lc.read_dataset(frame, compact_schema(), group=True)
    assert "user_id" in grouped
    model = compiled()
    np.testing.assert_array_equal(model(grouped), model(batch[0]))


# Prediction.


def test_predict_gives_the_probability_of_every_depth(dataset, batch):
    model = compiled(loops=2)
    probabilities = model.predict(dataset, verbose=0)
    assert probabilities.shape == (ROWS, 3)
    assert probabilities.dtype == np.float32
    assert probabilities.min() > 0
    assert probabilities.max() < 1
    logits = model(batch[0]).numpy()
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-logits)), atol=1e-6)
    np.testing.assert_allclose(model.score(batch[0]), probabilities[:, 0], atol=1e-6)


# Repeatability.


def test_a_fixed_seed_gives_the_same_first_losses_twice(frame):
    def first_losses():
        keras.utils.set_random_seed(7)
        model = lc.LoopCTR(compact_schema(), tiny_config(loops=0, streams=1, dropout=0.2))
        model.compile(lc.optimizers.adamw(0.01, clip_norm=1.0), run_eagerly=True)
        dataset = lc.read_dataset(frame, compact_schema(), batch_size=6, shuffle=True, seed=7)
        seen = []
        show = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda _, logs: seen.append(dict(logs))
        )
        model.fit(dataset, verbose=0, callbacks=[show])
        return seen

    first = first_losses()
    assert len(first) == 2
    assert first_losses() == first


def test_a_model_without_loops_is_evaluated_with_its_balance(dataset):
    figures = compiled(loops=0, balance_weight=0.5).evaluate(dataset, verbose=0, return_dict=True)
    assert list(figures) == ["loss", "loop_0_loss", "loop_0_auc", "balance_loss"]
    assert figures["balance_loss"] > 1.0
    assert figures["loss"] > figures["loop_0_loss"] + 0.5


# What is refused.


def test_a_loss_of_the_users_own_is_refused():
    with pytest.raises(UsageError) as error:
        tiny_model(schema=compact_schema(), seed=None, loops=0).compile(
            "adam", loss="binary_crossentropy"
        )
    assert str(error.value) == (
        "loss is 'binary_crossentropy'; leave it out, the model brings its own objective"
    )


def test_fit_before_compile_is_refused(dataset):
    with pytest.raises(RuntimeError, match="compile"):
        tiny_model(schema=compact_schema(), seed=None, loops=0).fit(dataset, verbose=0)
