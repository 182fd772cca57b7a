"""Training into a run folder with plain ``model.fit``: callbacks, best weights, strategies."""

import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.errors import UsageError
from loopctr_tf.evaluation.predict import evaluate_run
from loopctr_tf.features.dataset import data_errors, read_dataset
from loopctr_tf.features.prepared import read_stats
from loopctr_tf.features.schema import Schema
from loopctr_tf.files import require_new, write_json
from loopctr_tf.models.objective import metric_name
from loopctr_tf.training.optimizers import CatchUp, adamw
from loopctr_tf.training.run_folder import BEST_WEIGHTS, CONFIG, METRICS
from loopctr_tf.training.settings import RunConfig, TrainingConfig


class AveragedWeights(keras.callbacks.Callback):
    """Validates and saves the optimizer's moving average of weights; training goes on with its own.

    Must stand last in the list of callbacks, and needs an optimizer with ``use_ema=True``.
    """

    def __init__(self):
        super().__init__()
        self._own: list[Any] | None = None

    def on_test_begin(self, logs=None):
        """Puts the average in place."""
        optimizer = self.model.optimizer
        if self._own is None and optimizer.iterations > 0:
            variables = self.model.trainable_variables
            self._own = [tf.identity(variable) for variable in variables]
            averages = optimizer._model_variables_moving_average
            for variable, average in zip(variables, averages, strict=True):
                variable.assign(average)

    def on_epoch_end(self, epoch, logs=None):
        """Puts the weights of training back."""
        if self._own is not None:
            for variable, value in zip(self.model.trainable_variables, self._own, strict=True):
                variable.assign(value)
            self._own = None


def make_strategy(name: str) -> tf.distribute.Strategy:
    """The strategy of that name: "none" or "mirrored"."""
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def compile_model(model, training: TrainingConfig) -> None:
    """Compiles ``model`` with AdamW, and the rule for its tables, as ``training`` says."""
    model.compile(
        adamw(
            training.learning_rate,
            training.weight_decay,
            training.clip_norm,
            training.ema_momentum,
            training.table_optimizer,
            training.table_learning_rate,
            training.table_weight_decay,
        )
    )


def train(
    prepared: str | Path,
    run: str | Path,
    config: RunConfig | None = None,
    schema: Schema | None = None,
    verbose: int | str = "auto",
    log: Callable[[str], None] = print,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> dict[str, Any]:
    """Trains on a prepared folder and leaves a run folder, as ``training.run_folder`` describes it.

    Validation follows every epoch; the epoch with the best ``config.training.monitor`` gives the
    weights; training stops early when ``patience`` epochs were no better. The test split is not read.

    Args:
      prepared: prepared folder.
      run: folder to make.
      config: settings; the defaults by default.
      schema: another schema for the same rows, e.g. with shorter histories or fewer features.
      verbose: as in ``model.fit``.
      log: takes lines for people.
      callbacks: further ones, after those of the run folder.

    Returns:
      What ``metrics.json`` holds: ``history`` (epoch -> figure lists), ``best_epoch``, ``monitor``,
      ``valid`` (exact metrics by head), ``served`` (the served head), ``protocol`` (of the prepared
      data, None where it names none), ``parameters``, ``seconds``.

    Raises:
      UsageError: for bad settings, data or an existing run folder.
    """
    config, prepared, run = config or RunConfig(), Path(prepared), require_new(run)
    settings = config.training
    stats = read_stats(prepared)
    rows = stats["rows"]
    schema = schema or Schema.load(prepared)
    schema.require_vectors()
    keras.utils.set_random_seed(settings.seed)
    datasets = {
        split: read_dataset(
            prepared / split,
            schema,
            batch_size=settings.batch_size,
            shuffle=split == "train",
            seed=settings.seed,
            shuffle_buffer=settings.shuffle_buffer,
        )
        for split in ("train", "valid")
    }
    # Lets the first epoch's progress bar know its end.
    datasets = {
        split: dataset.apply(
            tf.data.experimental.assert_cardinality(math.ceil(rows[split] / settings.batch_size))
        )
        for split, dataset in datasets.items()
    }
    with make_strategy(settings.strategy).scope():
        model = config.build_model(schema)
        compile_model(model, settings)
    monitor = _checked_monitor(settings.monitor, model)
    _check_labels(stats, monitor)
    log(f"{type(model).__name__}: {model.count_params():,} parameters")

    run.mkdir(parents=True)
    schema.save(run)
    config.save(run / CONFIG)
    (run / "checkpoints").mkdir()
    (run / BEST_WEIGHTS).parent.mkdir()
    started = time.perf_counter()
    try:
        with data_errors():
            history = model.fit(
                datasets["train"],
                validation_data=datasets["valid"],
                epochs=settings.epochs,
                callbacks=[*_callbacks(run, settings, monitor), *callbacks],
                verbose=verbose,
            ).history
    except UsageError:
        # Whoever mends the data runs the same command again.
        shutil.rmtree(run)
        raise
    seconds = time.perf_counter() - started
    best = _best_epoch(history, monitor, settings.learning_rate)
    model.load_weights(run / BEST_WEIGHTS)
    validated, _ = evaluate_run(model, prepared, "valid", batch_size=settings.batch_size)
    results = {
        "best_epoch": best + 1,
        "monitor": monitor,
        "parameters": model.count_params(),
        "seconds": seconds,
        "valid": validated,
        "served": model.served,
        "protocol": stats.get("protocol"),
        "history": history,
    }
    write_json(run / METRICS, results)
    return results


def _check_labels(stats: dict[str, Any], monitor: str) -> None:
    """UsageError where an AUC is to choose by a validation split whose labels are all the same."""
    clicks, rows = stats.get("clicks", {}).get("valid"), stats["rows"]["valid"]
    if clicks in (0, rows) and _best(monitor) is max:
        raise UsageError(
            f"valid has {clicks:,} positive rows of {rows:,}, by which {monitor} cannot choose an "
            "epoch; change build: split, or choose by --set monitor=val_loss"
        )


def _callbacks(run: Path, settings: TrainingConfig, monitor: str) -> list[keras.callbacks.Callback]:
    mode = "max" if _best(monitor) is max else "min"
    callbacks = [
        keras.callbacks.TerminateOnNaN(),
        keras.callbacks.ModelCheckpoint(
            str(run / "checkpoints" / "epoch-{epoch:03d}.weights.h5"), save_weights_only=True
        ),
        keras.callbacks.ModelCheckpoint(
            str(run / BEST_WEIGHTS),
            monitor=monitor,
            mode=mode,
            save_best_only=True,
            save_weights_only=True,
        ),
        keras.callbacks.EarlyStopping(monitor, mode=mode, patience=settings.patience),
        keras.callbacks.TensorBoard(str(run / "logs"), write_graph=False),
    ]
    if settings.table_weight_decay:
        callbacks.insert(0, CatchUp())
    if settings.ema_momentum:
        callbacks.append(AveragedWeights())
    return callbacks


def _best(monitor: str):
    return max if monitor.endswith("auc") else min


def _best_epoch(history: dict[str, list[float]], monitor: str, learning_rate: float) -> int:
    """The first epoch with the best figure, counted from 0; UsageError when no epoch was finite."""
    finite = [epoch for epoch, loss in enumerate(history["val_loss"]) if math.isfinite(loss)]
    if not finite:
        raise UsageError(
            f"training diverged: val_loss is {history['val_loss'][0]} after epoch 1; give a lower "
            f"learning_rate (it is {learning_rate})"
        )
    return _best(monitor)(finite, key=history[monitor].__getitem__)


def _checked_monitor(monitor: str | None, model) -> str:
    """``monitor``, or the AUC of the served head; UsageError for a figure that is not measured."""
    if monitor is None:
        return f"val_{metric_name(model.served, 'auc')}"
    known = ["val_loss"]
    known += [f"val_{metric_name(head, m)}" for m in ("auc", "loss") for head in model.heads]
    if monitor not in known:
        raise UsageError(f"monitor is {monitor!r}; choose one of {', '.join(known)}")
    return monitor
