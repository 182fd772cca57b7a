"""The run folder, best weights, early stopping, averaged weights, and what a bad run leaves behind."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from loopctr_tf.errors import UsageError
from loopctr_tf.features.schema import Schema
from loopctr_tf.training import run_folder as runs
from loopctr_tf.training import train as training
from loopctr_tf.training.optimizers import CatchUp, RowwiseAdagrad
from loopctr_tf.training.settings import RunConfig, TrainingConfig
from tests.factories import small_schema, tiny_config


def strict_json(path):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


# The folder of a real run.


def test_the_run_folder_keeps_settings_schema_logs_and_weights(run, prepared):
    assert {path.name for path in run.iterdir()} == {
        "config.yaml",
        "schema.yaml",
        "vocab",
        "metrics.json",
        "logs",
        "checkpoints",
        "weights",
    }
    config = RunConfig.load(run / "config.yaml")
    assert (config.model.dim, config.model.loops, config.training.epochs) == (8, 1, 2)
    assert Schema.load(run) == Schema.load(prepared)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "epoch-001.weights.h5",
        "epoch-002.weights.h5",
    ]
    assert [path.name for path in (run / "weights").iterdir()] == ["best.weights.h5"]
    for part in ("train", "validation"):
        assert list((run / "logs" / part).glob("events.out.tfevents.*"))


def test_metrics_json_tells_every_epoch_and_the_exact_figures_of_the_best(run, trained):
    found = strict_json(run / "metrics.json")
    assert set(found) == {
        "best_epoch",
        "monitor",
        "parameters",
        "served",
        "seconds",
        "valid",
        "protocol",
        "history",
    }
    assert found["protocol"] == "honest"
    figures = [f"loop_{depth}_{name}" for depth in range(2) for name in ("auc", "loss")]
    names = ["loss", "balance_loss", *figures]
    assert set(found["history"]) == {*names, *(f"val_{name}" for name in names)}
    assert {len(values) for values in found["history"].values()} == {2}
    assert found["monitor"] == "val_loop_0_auc"
    watched = found["history"]["val_loop_0_auc"]
    assert watched[found["best_epoch"] - 1] == max(watched)
    assert found["parameters"] == sum(np.prod(w.shape) for w in trained.trainable_weights)
    assert found["seconds"] > 0
    assert [row["loops"] for row in found["valid"]] == [0, 1]
    for row in found["valid"]:
        # Keras's own figures of that epoch; its AUC has 200 thresholds.
        watched = {
            name: found["history"][f"val_loop_{row['loops']}_{name}"][found["best_epoch"] - 1]
            for name in ("loss", "auc")
        }
        assert row["log_loss"] == pytest.approx(watched["loss"], abs=1e-5)
        assert row["auc"] == pytest.approx(watched["auc"], abs=0.02)


def test_training_learns(run):
    history = strict_json(run / "metrics.json")["history"]
    assert history["loss"][1] < history["loss"][0]
    assert history["val_loop_0_auc"][1] > 0.8


# Callbacks, on a model with one weight and epochs whose figures are made up.


def one_weight() -> keras.Model:
    """w, from 0; its loss on any row is -w, so that every gradient is -1."""
    model = keras.Sequential([keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.build([None, 1])
    return model


def minus_mean(_, predicted):
    return -tf.reduce_mean(predicted)


def play_epochs(folder, figures: list[float], **settings) -> tuple[int, float]:
    """(epochs before training stops, weight in the best file); epoch e leaves the weight e."""
    settings = TrainingConfig(**{"monitor": "val_loop_0_auc", **settings})
    folder.mkdir()
    (folder / "checkpoints").mkdir()
    (folder / runs.BEST_WEIGHTS).parent.mkdir()
    model = one_weight()
    model.compile("sgd", "mse")
    model.stop_training = False
    callbacks = keras.callbacks.CallbackList(
        training._callbacks(folder, settings, settings.monitor), model=model
    )
    callbacks.on_train_begin()
    epochs = 0
    for figure in figures:
        callbacks.on_epoch_begin(epochs)
        model.set_weights([np.array([[epochs + 1.0]])])
        callbacks.on_epoch_end(epochs, {settings.monitor: figure})
        epochs += 1
        if model.stop_training:
            break
    callbacks.on_train_end()
    model.load_weights(folder / runs.BEST_WEIGHTS)
    assert len(list((folder / "checkpoints").iterdir())) == epochs
    return epochs, float(model.get_weights()[0][0, 0])


def test_training_stops_after_patience_epochs_and_keeps_the_best(tmp_path):
    figures = [0.6, 0.7, 0.69, 0.7, 0.9]
    # Epoch 2 is the best until 3 and 4 are no better: an equal figure is none.
    assert play_epochs(tmp_path / "auc", figures, patience=2) == (4, 2.0)
    assert play_epochs(tmp_path / "patient", figures, patience=3) == (5, 5.0)
    settings = {"monitor": "val_loss", "patience": 1}
    assert play_epochs(tmp_path / "loss", [0.6, 0.5, 0.55, 0.1], **settings) == (3, 2.0)


def test_averaged_weights_are_what_is_validated_and_saved(tmp_path):
    model = one_weight()
    optimizer = keras.optimizers.SGD(1.0, use_ema=True, ema_momentum=0.5)
    model.compile(optimizer, minus_mean)
    started = []
    note = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda *_: started.append(float(model.get_weights()[0][0, 0]))
    )
    path = str(tmp_path / "epoch-{epoch}.weights.h5")
    save = keras.callbacks.ModelCheckpoint(path, save_weights_only=True)
    ones = np.ones([4, 1])
    history = model.fit(
        ones,
        ones,
        batch_size=2,
        epochs=2,
        validation_data=(ones, ones),
        callbacks=[note, save, training.AveragedWeights()],
        verbose=0,
    ).history
    # w: 0, 1, 2 | 3, 4. Its average, from 0: .5, 1.25 | 2.125, 3.0625.
    np.testing.assert_allclose(history["val_loss"], [-1.25, -3.0625])
    assert started == [0.0, 2.0]
    for epoch, average in ((1, 1.25), (2, 3.0625)):
        model.load_weights(path.format(epoch=epoch))
        np.testing.assert_allclose(model.get_weights()[0], [[average]])


def test_validation_before_the_first_step_uses_the_first_weights():
    model = one_weight()
    model.compile(keras.optimizers.SGD(1.0, use_ema=True), minus_mean)
    model.set_weights([np.array([[5.0]])])
    ones = np.ones([2, 1])
    average = training.AveragedWeights()
    assert model.evaluate(ones, ones, callbacks=[average], verbose=0) == -5.0


@pytest.mark.parametrize(
    ("settings", "first", "last"),
    [
        ({"table_optimizer": "lazy_adamw", "table_weight_decay": 0.1}, CatchUp, None),
        ({"ema_momentum": 0.9}, None, training.AveragedWeights),
        ({}, None, None),
    ],
)
def test_tables_are_caught_up_first_and_weights_averaged_last(tmp_path, settings, first, last):
    """Both only on request: what is saved in between must hold what they change."""
    callbacks = training._callbacks(tmp_path, TrainingConfig(**settings), "val_loss")
    kinds = [type(callback) for callback in callbacks]
    assert (kinds.count(CatchUp), kinds.count(training.AveragedWeights)) == (
        bool(first),
        bool(last),
    )
    assert kinds[0] is first or first is None
    assert kinds[-1] is last or last is None


def test_the_optimizer_is_as_the_settings_say():
    compiled = []
    training.compile_model(
        SimpleNamespace(compile=compiled.append),
        TrainingConfig(learning_rate=0.5, weight_decay=0.25, clip_norm=2.0, ema_momentum=0.75),
    )
    (optimizer,) = compiled
    assert float(optimizer.learning_rate) == 0.5
    assert (optimizer.weight_decay, optimizer.global_clipnorm) == (0.25, 2.0)
    assert (optimizer.use_ema, optimizer.ema_momentum) == (True, 0.75)


def test_the_rule_for_tables_is_as_the_settings_say():
    compiled = []
    settings = {"table_optimizer": "rowwise_adagrad", "table_learning_rate": 0.5}
    training.compile_model(
        SimpleNamespace(compile=compiled.append), TrainingConfig(**settings, table_weight_decay=0.1)
    )
    (optimizer,) = compiled
    assert type(optimizer) is RowwiseAdagrad
    assert (optimizer.table_learning_rate, optimizer.table_weight_decay) == (0.5, 0.1)


def test_strategies_by_name():
    assert training.make_strategy("none") is tf.distribute.get_strategy()
    assert isinstance(training.make_strategy("mirrored"), tf.distribute.MirroredStrategy)


# What a training that cannot start, fails or is stopped leaves behind.


@pytest.mark.parametrize(
    ("monitor", "loops", "known"),
    [
        (
            "val_auc",
            1,
            "val_loss, val_loop_0_auc, val_loop_1_auc, val_loop_0_loss, val_loop_1_loss",
        ),
        ("val_loop_1_auc", 0, "val_loss, val_loop_0_auc, val_loop_0_loss"),
    ],
)
def test_an_unknown_monitor_is_told_before_anything_is_written(
    prepared, tmp_path, monitor, loops, known
):
    config = RunConfig(tiny_config(loops=loops), TrainingConfig(monitor=monitor))
    with pytest.raises(UsageError) as error:
        training.train(prepared, tmp_path / "run", config)
    assert str(error.value) == f"monitor is {monitor!r}; choose one of {known}"
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_refused_and_kept(prepared, run):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    with pytest.raises(UsageError, match=r"run' exists; remove it or name another"):
        training.train(prepared, run)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_what_is_not_prepared_is_told_before_anything_is_written(tmp_path):
    with pytest.raises(UsageError, match=r"is not a prepared folder: no stats\.json in it"):
        training.train(tmp_path, tmp_path / "run")
    assert not list(tmp_path.iterdir())


class FakeModel:
    """What `train` asks of a model; ``fit`` gives a history that is made up, or raises it."""

    heads, served = ("loop_0", "loop_1"), "loop_0"

    def __init__(self, outcome):
        self.outcome = outcome

    def compile(self, optimizer):
        pass

    def count_params(self):
        return 7

    def fit(self, *_, **__):
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return SimpleNamespace(history=self.outcome)

    def load_weights(self, path):
        self.loaded = path


@pytest.fixture
def train_fake(prepared, tmp_path, monkeypatch):
    """A call of `train` with a FakeModel of the given outcome; the run is tmp_path / "run"."""

    def call(outcome, config=None, **arguments):
        model = FakeModel(outcome)

        def build(config, schema):
            model.schema = schema
            return model

        monkeypatch.setattr(RunConfig, "build_model", build)
        monkeypatch.setattr(training, "evaluate_run", lambda *_, **__: ([], None))
        lines = []
        call.say = lines
        results = training.train(prepared, tmp_path / "run", config, log=lines.append, **arguments)
        return model, results

    return call


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of memory")], ids=repr)
def test_a_run_that_did_not_end_is_not_taken_for_one_that_did(train_fake, tmp_path, error):
    with pytest.raises(type(error)):
        train_fake(error)
    run = tmp_path / "run"
    assert (run / "config.yaml").exists()
    assert not (run / "metrics.json").exists()
    with pytest.raises(UsageError) as refused:
        runs.load_run(run)
    assert str(refused.value) == (
        f"run {str(run)!r} did not end: no metrics.json in it; train again into a new folder"
    )


def test_a_run_over_bad_rows_makes_way_for_the_next_attempt(train_fake, tmp_path):
    with pytest.raises(UsageError, match="a shard is damaged: corrupted record at 12; prepare the"):
        train_fake(tf.errors.DataLossError(None, None, "corrupted record at 12"))
    assert not list(tmp_path.iterdir())


def test_the_best_epoch_is_the_first_with_the_best_figure(train_fake, tmp_path):
    history = {"val_loss": [0.7, 0.5, 0.5, 0.6], "val_loop_1_auc": [0.5, 0.6, 0.8, 0.8]}
    config = RunConfig(training=TrainingConfig(monitor="val_loop_1_auc"))
    model, results = train_fake(history, config)
    assert (results["best_epoch"], results["monitor"]) == (3, "val_loop_1_auc")
    assert model.loaded == tmp_path / "run" / "weights/best.weights.h5"
    assert train_fake.say == ["FakeModel: 7 parameters"]
    shutil.rmtree(tmp_path / "run")
    _, results = train_fake(history, RunConfig(training=TrainingConfig(monitor="val_loss")))
    assert results["best_epoch"] == 2


def test_figures_that_are_not_finite_are_null_in_json_and_never_the_best(train_fake, tmp_path):
    history = {"val_loss": [0.5, float("nan")], "val_loop_0_auc": [0.6, 0.9]}
    _, results = train_fake(history)
    assert results["best_epoch"] == 1
    written = strict_json(tmp_path / "run" / "metrics.json")["history"]
    assert written == {"val_loss": [0.5, None], "val_loop_0_auc": [0.6, 0.9]}


def test_a_training_that_diverges_is_told(train_fake, tmp_path):
    history = {"val_loss": [float("nan")], "val_loop_0_auc": [0.0]}
    config = RunConfig(training=TrainingConfig(learning_rate=100.0))
    with pytest.raises(UsageError) as error:
        train_fake(history, config)
    assert str(error.value) == (
        "training diverged: val_loss is nan after epoch 1; give a lower learning_rate (it is 100.0)"
    )
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_another_schema_takes_the_place_of_the_prepared_one(train_fake, tmp_path):
    values = small_schema().to_dict()
    values["sequences"][1]["max_length"] = 4
    shorter = Schema.from_dict(values)
    model, _ = train_fake({"val_loss": [0.5], "val_loop_0_auc": [0.5]}, schema=shorter)
    assert model.schema == shorter
    assert Schema.load(tmp_path / "run") == shorter


@pytest.mark.parametrize("clicks", [0, 60])
def test_a_validation_split_of_one_label_chooses_no_epoch_by_auc(prepared, tmp_path, clicks):
    shutil.copytree(prepared, tmp_path / "prepared")
    stats = json.loads((tmp_path / "prepared/stats.json").read_text())
    stats["clicks"]["valid"] = clicks
    (tmp_path / "prepared/stats.json").write_text(json.dumps(stats))
    with pytest.raises(UsageError, match=rf"valid has {clicks} positive rows of 60, by which val_"):
        training.train(tmp_path / "prepared", tmp_path / "run", RunConfig(tiny_config()))
    assert not (tmp_path / "run").exists()
