"""The search over settings, a study a system: seeded, pruned by the median, resumed."""

import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import tf_keras as keras
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from loopctr_tf.bench.report import silent
from loopctr_tf.compare.protocol import Comparison, Row
from loopctr_tf.errors import UsageError
from loopctr_tf.models.objective import metric_name
from loopctr_tf.training.train import train

LOG = "search.log"
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


class Pruned(keras.callbacks.Callback):
    """Reports the served head's AUC after every epoch, and ends a trial that is behind the median."""

    def __init__(self, trial: Trial):
        super().__init__()
        self.trial = trial

    def on_epoch_end(self, epoch: int, logs: dict | None = None):
        """Raises ``optuna.TrialPruned`` where the trial is to end."""
        self.trial.report(logs[f"val_{metric_name(self.model.served, 'auc')}"], epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned


def search(
    folder: Path, prepared: Path, comparison: Comparison, row: Row, log: Callable[[str], None]
) -> dict[str, Any]:
    """Runs the trials that are missing; returns the best one's choice and what the search cost.

    Trials that an earlier call left unfinished are run again with the same settings.

    Args:
      folder: of the row; the study lies in it.
      prepared: prepared folder.
      comparison: gives the space and the number of trials.
      row: the system.
      log: takes lines for people.

    Returns:
      ``choice`` (name -> value), ``value`` (the exact validation figure), ``trials`` that finished,
      ``pruned`` ones among them, their ``seconds``.

    Raises:
      UsageError: where the validation split does not define the figure, or no trial gave one.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    protocol = comparison.protocol
    study = _study(folder)
    _take_up(study, comparison)
    while (done := _count(study)) < protocol.trials:
        # A sampler of its own for each trial, so that a resumed search draws what it would have drawn.
        study.sampler = optuna.samplers.TPESampler(
            seed=protocol.search_seed * 1000 + done, n_startup_trials=min(4, protocol.trials)
        )
        trial = study.ask()
        start = time.perf_counter()
        choice = suggested(trial, comparison)
        try:
            value = _trained(trial, folder, prepared, comparison, row, choice)
            study.tell(trial, value if protocol.select != "ne" else -value)
            outcome = f"validation {protocol.select} {value:.4f}"
        except optuna.TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)
            outcome = "pruned"
        except UsageError as error:
            if "diverged" not in str(error):
                raise
            study.tell(trial, state=TrialState.PRUNED)
            outcome = f"pruned: {error}"
        log(f"{row.name}: trial {done + 1}/{protocol.trials} {_text(choice)}: {outcome} "
            f"({time.perf_counter() - start:.0f} s)")  # fmt: skip
    complete = [t for t in study.trials if t.state == TrialState.COMPLETE]
    if not complete:
        raise UsageError(
            f"{row.name}: none of {protocol.trials} trials ended with a figure; give lower "
            "protocol.learning_rates"
        )
    best: FrozenTrial = max(complete, key=lambda t: t.value)
    return {
        "choice": {name: best.params[name] for name in comparison.default_choice()},
        "value": best.value if protocol.select != "ne" else -best.value,
        "trials": _count(study),
        "pruned": sum(t.state == TrialState.PRUNED for t in study.trials),
        "seconds": sum(t.duration.total_seconds() for t in study.get_trials(states=_FINISHED)),
    }


def suggested(trial: Trial, comparison: Comparison) -> dict[str, Any]:
    """The settings of a trial; those of tables only where the optimizer treats tables apart."""
    protocol = comparison.protocol
    ranges = {
        "learning_rate": protocol.learning_rates,
        "table_learning_rate": protocol.table_learning_rates,
    }
    choices = {
        "dim": protocol.dims,
        "dropout": protocol.dropouts,
        "table_weight_decay": protocol.table_decays,
    }
    return {
        name: trial.suggest_float(name, *ranges[name], log=True)
        if name in ranges
        else trial.suggest_categorical(name, choices[name])
        for name in comparison.default_choice()
    }


def _study(folder: Path) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(folder / LOG)))
    return optuna.create_study(
        storage=storage,
        study_name="search",
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=0),
    )


def _take_up(study: optuna.Study, comparison: Comparison) -> None:
    """Queues the default settings at the beginning, and unfinished trials once more."""
    if not study.trials:
        study.enqueue_trial(comparison.default_choice())
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        study.tell(trial.number, state=TrialState.FAIL)
        if trial.params:
            study.enqueue_trial(trial.params)


def _count(study: optuna.Study) -> int:
    return len(study.get_trials(states=_FINISHED))


def _trained(trial, folder, prepared, comparison, row, choice) -> float:
    """The exact validation figure of the served head after training; the run is removed."""
    run = folder / "trial"
    shutil.rmtree(run, ignore_errors=True)
    config = comparison.config(row, choice)
    try:
        results = train(prepared, run, config, verbose=0, log=silent, callbacks=[Pruned(trial)])
    finally:
        shutil.rmtree(run, ignore_errors=True)
        keras.backend.clear_session()
    (served,) = (figures for figures in results["valid"] if figures["head"] == results["served"])
    value = served[comparison.protocol.select]
    if not math.isfinite(value):
        raise UsageError(
            f"{comparison.protocol.select} is {value} on the validation split, which does not define "
            "it; choose another figure with protocol.select"
        )
    return value


def _text(choice: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.2g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in choice.items()
    )
