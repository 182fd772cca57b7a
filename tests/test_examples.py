"""The examples run as they stand, and the make targets plan what they promise."""

import contextlib
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import loopctr_tf as lc
from tests.exported import DEPTHS
from tests.factories import rewriting_off, small_schema

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"


def test_a_keras_script_is_short():
    assert len((EXAMPLES / "train.py").read_text().splitlines()) <= 40


@pytest.mark.filterwarnings("ignore:Even though the `tf.config")
def test_train_from_a_prepared_folder(prepared, tmp_path, monkeypatch, capsys):
    exports = []
    monkeypatch.setattr(lc, "export_saved_model", lambda *arguments: exports.append(arguments))
    target = tmp_path / "models" / "1"
    monkeypatch.setattr(sys, "argv", ["train.py", str(prepared), str(target), "1"])
    # One step of training, as it is written: tracing it takes far longer.
    tf.config.run_functions_eagerly(True)
    try:
        found = runpy.run_path(str(EXAMPLES / "train.py"), run_name="__main__")
    finally:
        tf.config.run_functions_eagerly(False)
    assert exports == [(found["model"], str(target))]
    printed = capsys.readouterr().out
    for depth in range(4):
        auc = found["history"].history[f"val_loop_{depth}_auc"][-1]
        assert f"validation AUC at {depth} loops: {auc:.4f}\n" in printed
    assert printed.endswith(f"exported to {target}; next: loopctr serve {target}/..\n")


def test_train_from_pandas(capsys):
    with rewriting_off():
        found = runpy.run_path(str(EXAMPLES / "train_from_pandas.py"), run_name="__main__")
    history = found["history"]
    assert len(found["frame"]) == 2000
    # The topics clicked on before tell the next click; nothing else does.
    assert history["loop_0_auc"][-1] > 0.8 > history["loop_0_auc"][0]
    printed = re.search(r"training AUC by depth: \[(.*)\]\n$", capsys.readouterr().out)
    figures = [float(figure) for figure in printed[1].split(", ")]
    assert figures == [round(history[f"loop_{depth}_auc"][-1], 3) for depth in range(3)]


@pytest.fixture(scope="module")
def demo():
    return runpy.run_path(str(EXAMPLES / "demo.py"), run_name="demo")


def test_the_demo_shortens_histories_that_are_longer(demo):
    schema = lc.Schema.load(ROOT / "data/movielens/schema.yaml")
    shorter = demo["shortened"](schema)
    assert [s.max_length for s in schema.sequences] == [50, 500]
    assert [s.max_length for s in shorter.sequences] == [demo["RECENT"], demo["LONG"]]
    assert shorter.features == schema.features
    assert [s.fields for s in shorter.sequences] == [s.fields for s in schema.sequences]


def test_the_demo_scores_the_test_split_over_grpc(
    demo, work, prediction_server, tested, monkeypatch
):
    def shared(path, model_name):
        assert (path, model_name) == (work / "models" / "loopctr", prediction_server.model_name)
        return contextlib.nullcontext(prediction_server)

    # A server of its own would load the same model once more.
    monkeypatch.setattr("loopctr_tf.scoring.PredictionServer", shared)
    served, serving = demo["score_test"](work, small_schema(), rows_per_call=25)
    assert served.shape == (60, len(DEPTHS))
    np.testing.assert_allclose(served, tested[1].probabilities, atol=1e-5)
    assert serving["rows_per_call"] == 25
    assert 0 < serving["p50_ms"] <= serving["p99_ms"]
    assert serving["rows_per_s"] > 0


def test_the_demo_names_commands_that_exist(demo):
    from loopctr_tf.cli import cli

    commands = re.findall(r"bin/loopctr (\w+)", demo["NEXT"])
    assert commands
    assert set(commands) <= set(cli.commands)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("target", "last"),
    [
        ("demo", ".venv/bin/python examples/demo.py --out build/demo"),
        ("test", ".venv/bin/python -m pytest -n 2 --dist loadscope"),
    ],
)
def test_make_sets_up_all_that_a_target_needs(tmp_path, target, last):
    for name in ("Makefile", "requirements.lock", "setup.cfg"):
        shutil.copy(ROOT / name, tmp_path)

    def plan(*arguments) -> list[str]:
        command = ["make", "--dry-run", target, "PYTHON=python3", *arguments]
        # `make test` runs this very test: what it hands down to a further make must not count.
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
        result = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return [line.rstrip() for line in result.stdout.splitlines()]

    first = plan()
    assert first[0] == "python3 -m venv .venv"
    assert "--requirement requirements.lock" in first[1]
    assert first[-1] == last
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".ready").touch()
    assert plan() == [last]


def test_the_lock_pins_what_the_package_needs():
    lock = (ROOT / "requirements.lock").read_text()
    pins = dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)", lock, re.MULTILINE))
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    section = (ROOT / "setup.cfg").read_text().split("install_requires =")[1]
    needed = re.findall(r"^    ([A-Za-z0-9_-]+)[><=]", section.split("[options.")[0], re.MULTILINE)
    assert "tensorflow" in needed
    assert {name.lower().replace("_", "-") for name in needed} <= set(pins)
    assert tf.__version__.startswith("2.21.")
