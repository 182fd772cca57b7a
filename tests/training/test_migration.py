"""A run folder of release 0.1 (``config.yaml`` of version 1) loads and scores as it did."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from loopctr_tf.errors import UsageError
from loopctr_tf.models.settings import ExecutionConfig
from loopctr_tf.training.run_folder import load_run
from loopctr_tf.training.settings import RunConfig
from tests.factories import random_batch

RUN = Path(__file__).parent / "run_of_version_1"
"""``scores.npy``: probabilities [16, 3] of ``random_frame(16, 5)`` by depth, from that release."""


def test_a_run_of_version_1_scores_as_it_did():
    model, config = load_run(RUN)
    assert (config.name, config.model.loops) == ("loopctr", 2)
    assert config.execution == ExecutionConfig(loop_execution="unrolled")
    assert config.training.monitor == "val_loop_0_auc"
    features, _ = random_batch(16, seed=5)
    expected = np.load(RUN / "scores.npy")
    for loops, column in enumerate(expected.T):
        np.testing.assert_allclose(model.score(features, loops), column, atol=1e-6)


def test_saved_again_it_has_version_2(tmp_path):
    config = RunConfig.load(RUN / "config.yaml")
    config.save(tmp_path / "config.yaml")
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert list(saved) == ["version", "model", "execution", "training"]
    assert (saved["version"], saved["model"]["name"]) == (2, "loopctr")
    assert saved["execution"]["loop_execution"] == "unrolled"
    assert not set(ExecutionConfig.model_fields) & set(saved["model"])
    assert RunConfig.load(tmp_path / "config.yaml").to_dict() == config.to_dict()


def test_the_architecture_becomes_the_models_name():
    config = RunConfig.load(RUN / "stackctr.yaml")
    assert (config.name, config.model.loops) == ("stackctr", 1)
    assert "architecture" not in config.to_dict()["training"]


def test_overrides_meet_the_migrated_settings():
    config = RunConfig.load(RUN / "stackctr.yaml", ["recompute=true", "execution.xla=true"])
    assert (config.execution.recompute, config.execution.xla) == (True, True)
    _, config = load_run(RUN, precision="mixed_bfloat16")
    assert config.execution.precision == "mixed_bfloat16"


def test_versions_to_come_are_refused(tmp_path):
    run = shutil.copytree(RUN, tmp_path / "run")
    (run / "config.yaml").write_text("version: 3\nmodel: {}\n")
    with pytest.raises(UsageError, match=r"has version 3; this release reads 1 and 2$"):
        load_run(run)
