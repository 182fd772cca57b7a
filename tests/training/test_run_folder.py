"""A model out of a run folder again, and what is said of a folder that holds none."""

import json
import shutil

import h5py
import numpy as np
import pytest

from loopctr_tf.errors import UsageError
from loopctr_tf.features.schema import Schema
from loopctr_tf.models import LoopCTR, StackCTR
from loopctr_tf.models.settings import ExecutionConfig
from loopctr_tf.training import run_folder as runs
from loopctr_tf.training.settings import RunConfig
from tests.factories import compact_schema, random_batch, small_schema, tiny_config


def test_the_best_epochs_weights_are_the_ones_loaded(run, trained):
    model = RunConfig.load(run / "config.yaml").build_model(Schema.load(run))
    best = json.loads((run / "metrics.json").read_text())["best_epoch"]
    model.load_weights(run / "checkpoints" / f"epoch-{best:03d}.weights.h5")
    for weight, expected in zip(trained.weights, model.weights, strict=True):
        np.testing.assert_array_equal(weight, expected)
    model.load_weights(run / "checkpoints" / f"epoch-{3 - best:03d}.weights.h5")
    assert any(
        not np.array_equal(weight, other)
        for weight, other in zip(trained.weights, model.weights, strict=True)
    )


def test_the_model_is_that_of_the_settings():
    execution = ExecutionConfig(recompute=True)
    for name, cls in (("loopctr", LoopCTR), ("stackctr", StackCTR)):
        config = RunConfig(tiny_config(dim=4, loops=1), execution=execution, name=name)
        model = config.build_model(compact_schema())
        assert type(model) is cls
        assert (model.config, model.execution.recompute) == (config.model, True)


@pytest.fixture
def copied_run(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


def cut_short(weights):
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])


def empty_hdf5(weights):
    weights.unlink()
    h5py.File(weights, "w").close()


def other_weights(weights):
    config = tiny_config(dim=4)
    LoopCTR(small_schema(), config).save_weights(weights)


@pytest.mark.parametrize("damage", [cut_short, empty_hdf5, other_weights])
def test_damaged_weights_are_told(copied_run, damage):
    weights = copied_run / "weights" / "best.weights.h5"
    damage(weights)
    with pytest.raises(UsageError) as error:
        runs.load_run(copied_run)
    message = str(error.value)
    assert message.startswith(f"weights {str(weights)!r} cannot be read: ")
    assert "\n" not in message


def test_missing_weights_are_told(copied_run):
    (copied_run / "weights" / "best.weights.h5").unlink()
    with pytest.raises(UsageError, match=r"run' has no weights/best.weights.h5; train again"):
        runs.load_run(copied_run)


def test_what_is_no_run_is_told(copied_run, tmp_path):
    with pytest.raises(
        UsageError, match=r"is not a run folder: it has no config.yaml; make one with"
    ):
        runs.read_metrics(tmp_path)
    (copied_run / "metrics.json").write_text("{")
    with pytest.raises(UsageError, match=r"metrics.json' is not JSON \(.*\); train again"):
        runs.read_metrics(copied_run)


def test_a_loaded_model_scores_as_the_one_that_was_saved(run, trained):
    features, _ = random_batch(5, seed=3)
    again, config = runs.load_run(run)
    assert (config.model.loops, config.training.epochs) == (1, 2)
    np.testing.assert_array_equal(again(features), trained(features))
