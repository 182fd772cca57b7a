"""The `loopctr` command: what each subcommand prints and leaves, and one line for every mistake."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import yaml
from click.testing import CliRunner

from loopctr_tf import cli
from loopctr_tf.models.loopctr.settings import LoopCTRConfig
from loopctr_tf.models.settings import ExecutionConfig
from loopctr_tf.scoring import PredictionServer
from loopctr_tf.training.settings import RunConfig, TrainingConfig
from loopctr_tf.version import __version__
from tests.exported import DEPTHS
from tests.prepare.logs import schema_dict, write_log
from tests.session import command

IDS = ("user_id", "movie_id")


@pytest.fixture
def loopctr(monkeypatch, capsys):
    """A call of the command in this process: (exit code, stdout, stderr)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["loopctr", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        return SimpleNamespace(
            code=code, **dict(zip(("out", "err"), capsys.readouterr(), strict=True))
        )

    return call


def fresh_python(code: str, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


# Help.

HELP = {
    "": ["train", "evaluate", "export", "serve", "score", "Exit codes: 0 done, 2", "A first tour"],
    "prepare": [
        "--events EVENTS...",
        "--rows ROWS...",
        "--items",
        "--skip-bad",
        "--workers",
        "--help-build",
    ],
    "schema": ["init", "how rows are made of events"],
    "schema json": ["JSON schema", "--of", "config.yaml"],
    "schema init": [
        *("EVENTS...", "--items", "--out", "--rows", "a comment explains every guess"),
        *("--delimiter", "--no-header", "--names", "--no-quoting"),
    ],
    "data": ["describe", "Statistics of prepared data"],
    "data describe": ["PREPARED", "--plots", "--json", "CTR by day, history lengths"],
    "train": ["PREPARED", "RUN", "--config", "--set", "dim=32", "--schema", "--help-config"],
    "evaluate": ["RUN PREPARED", "--split", "--loops", "--json", "Exact AUC, GAUC, NE"],
    "export": [
        "RUN PATH",
        "--signatures",
        "--loops",
        "--bad-input",
        "reject|repair",
        "--precision",
    ],
    "inspect": ["MODEL", "--signature", "--json", "newest version", ":predict"],
    "serve": ["BASE_PATH", "--host", "0 takes a free port", "--label LABEL=VERSION", "SIGTERM"],
    "score": [
        "ROWS",
        "--target",
        "--label",
        "--signature",
        "--out",
        "Parquet",
        "JSON lines",
        "CSV",
    ],
    "bench": ["serve", "train", "tables", "score", "input", "matrix-product rate"],
    "bench train": ["--prepared", "--history", "--batch-size", "--set", "--json", "examples/s"],
    "bench tables": ["--rows", "--seconds", "--set", "--json", "table_optimizer=lazy_adamw"],
    "bench score": ["--batch-size", "--loops", "--set", "--json", "graph session", "A quick look"],
    "bench input": ["PREPARED", "--batch-size", "--json", "without a model"],
    "bench load": ["--target", "--signature", "--rate", "--clients", "--schema", "--json"],
    "bench hostile": ["--target", "--repairs", "--json", "malformed"],
    "compare": ["PREPARED", "--models", "--seeds", "--trials", "--ablations", "--help-protocol"],
    "bench soak": ["EXPORT_A", "--minutes", "--clients", "--json", "Exit code 1"],
    "bench serve": ["--history", "--candidates", "--clients", "--set", "--json", "callers"],
}


def test_every_subcommand_has_its_help_checked():
    groups = {name: c for name, c in cli.cli.commands.items() if hasattr(c, "commands")}
    nested = {f"{name} {part}" for name, group in groups.items() for part in group.commands}
    assert set(cli.cli.commands) | nested <= set(HELP)


@pytest.mark.parametrize("subcommand", list(HELP))
def test_help_names_what_matters(subcommand):
    result = CliRunner().invoke(cli.cli, [*subcommand.split(), "--help"])
    assert result.exit_code == 0
    text = " ".join(result.output.split())
    assert [words for words in HELP[subcommand] if words not in text] == []


def test_help_config_lists_every_setting_with_its_default():
    text = command("train", "--help-config")
    defaults, *meanings = re.split(r"\n\n+", text.replace("\r", ""), maxsplit=1)
    assert yaml.safe_load(defaults) == RunConfig().to_dict()
    for cls in (LoopCTRConfig, ExecutionConfig, TrainingConfig):
        for name in cls.model_fields:
            assert re.search(rf"^  {name}: \w", meanings[0], re.MULTILINE), name


def test_help_config_of_another_model():
    text = command("train", "--help-config", "din")
    assert yaml.safe_load(text.partition("\n\n")[0])["model"]["name"] == "din"
    assert "  attention_units: Hidden widths" in text


def test_version(loopctr):
    assert loopctr("--version").out.strip().endswith(__version__)


def test_help_does_not_wait_for_tensorflow():
    code = (
        "import sys; sys.argv = ['loopctr', '--help']; from loopctr_tf.cli import main; main(); "
        "print('tensorflow' in sys.modules)"
    )
    result = fresh_python(code)
    assert result.returncode == 0
    assert result.stdout.startswith("Usage: loopctr [OPTIONS] COMMAND")
    assert result.stdout.endswith("\nFalse\n")


# The way from events to scores.


def test_prepare_prints_what_was_written_and_skipped(loopctr, tmp_path):
    arguments = write_log(tmp_path, schema_dict())
    good, spoilt = arguments["events"]
    bad = pd.read_parquet(spoilt).assign(user_id=lambda log: log["user_id"].mask(log.index < 2))
    bad.to_parquet(spoilt)
    out = tmp_path / "prepared"
    command_line = ("prepare", "--schema", arguments["schema_path"], "--out", out)
    command_line += ("--items", arguments["items"], "--users", arguments["users"], "--quiet")
    refused = loopctr(*command_line, "--events", good, spoilt)
    assert refused.code == 2
    assert f"'{spoilt}', row 1, column 'user_id': missing; " in refused.err
    assert not out.exists()
    result = loopctr(*command_line, "--events", good, spoilt, "--skip-bad", "--workers", 1)
    stats = json.loads((out / "stats.json").read_text())
    rows = ", ".join(f"{split} {count}" for split, count in stats["rows"].items())
    assert result.code == 0
    assert result.err.splitlines() == [f"note: {line}" for line in stats["warnings"]]
    assert "have a value of user_id without a row in --users" in result.err
    assert result.out == (
        f"{out}: rows {rows}; 9 users\nskipped: 2 rows, missing (see {out / 'rejected.csv'})\n"
        f"next: loopctr train {out} run\n"
    )
    rejected = pd.read_csv(out / "rejected.csv")
    assert rejected["row"].tolist() == [1, 2]


def test_prepare_prints_what_the_rules_may_contain(loopctr):
    result = loopctr("prepare", "--help-build")
    assert result.code == 0
    assert "negatives: {per_positive: 4, by: popularity, seed: 1}" in result.out


def test_schema_init_proposes_a_schema_that_prepare_takes(loopctr, tmp_path):
    rng = np.random.default_rng(0)
    events = {"user": rng.integers(9, size=300), "item": rng.integers(9, size=300)}
    events |= {"ts": 1_700_000_000 + np.arange(300), "click": rng.integers(2, size=300)}
    log, schema, out = tmp_path / "log.csv", tmp_path / "schema.yaml", tmp_path / "prepared"
    pd.DataFrame(events).to_csv(log, index=False)
    result = loopctr("schema", "init", log, "--out", schema, "--rows", 100)
    prepare = f"loopctr prepare --schema {schema} --events {log} --out prepared"
    assert (result.code, result.out.splitlines()[-1]) == (0, f"next: {prepare}")
    assert "from the first 100 rows" in schema.read_text()
    assert loopctr("schema", "init", log, "--rows", 100).out == schema.read_text()
    done = loopctr("prepare", "--schema", schema, "--events", log, "--out", out, "--quiet")
    assert (done.code, done.err) == (0, "")
    assert f"{out}: rows train 240, valid 30, test 30; 9 users" in done.out


def test_data_describe_prints_tables_or_json_and_draws(loopctr, prepared, tmp_path, monkeypatch):
    result = loopctr("data", "describe", prepared, "--plots", tmp_path / "plots", "--json")
    assert (result.code, result.err) == (0, "")
    found = json.loads(result.out)
    assert found["splits"]["test"]["rows"] == 60
    pictures = sorted((tmp_path / "plots").iterdir())
    assert [path.name for path in pictures] == ["history_lengths.png", "unknown_values.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    monkeypatch.setattr("loopctr_tf.evaluation.describe.describe", lambda *_, **__: found)
    text = loopctr("data", "describe", prepared).out
    assert re.search(r"\| rows +\| +300 \| +60 \| +60 \|\n", text)


def test_train_prints_the_size_the_best_epoch_and_every_depth(training, prepared):
    run, printed = training
    metrics = json.loads((run / "metrics.json").read_text())
    assert f"LoopCTR: {metrics['parameters']:,} parameters\n" in printed
    assert f"best epoch {metrics['best_epoch']} of 2 by val_loop_0_auc, " in printed
    for row in metrics["valid"]:
        figures = r" \| +".join(f"{row[key]:.4f}" for key in ("auc", "gauc", "ne", "calibration"))
        assert re.search(rf"\| LoopCTR\({row['loops']}/1\) \| +{figures} \|\n", printed)
    assert printed.endswith(f"\nnext: loopctr evaluate {run} {prepared}\n")


def test_evaluate_gives_the_exact_figures_as_json(loopctr, run, prepared, tested):
    depths, _ = tested
    result = loopctr("evaluate", run, prepared, "--loops", 0, "--batch-size", 25, "--json")
    assert (result.code, result.err) == (0, "")
    found = json.loads(result.out)
    assert found["split"] == "test"
    (row,) = found["depths"]
    named = ("model", "head")
    assert [row.pop(key) for key in named] == [depths[0][key] for key in named]
    expected = {key: value for key, value in depths[0].items() if key not in named}
    assert row == pytest.approx(expected, rel=1e-5)


def test_evaluate_prints_a_table_or_json_without_nan(loopctr, run, prepared, monkeypatch):
    depths = [{"loops": 0, "auc": 0.75, "gauc": float("nan"), "ne": 0.5, "calibration": 1.0}]
    seen = []

    def evaluate_run(model, *arguments):
        seen.append(arguments)
        return depths, None

    monkeypatch.setattr("loopctr_tf.evaluation.predict.evaluate_run", evaluate_run)
    arguments = ("evaluate", run, prepared, "--split", "valid", "--loops", "4")
    result = loopctr(*arguments)
    assert result.out == (
        "protocol: honest\n"
        "|              |    AUC |   GAUC |     NE |   calibration |\n"
        "|:-------------|-------:|-------:|-------:|--------------:|\n"
        "| LoopCTR(0/1) | 0.7500 |        | 0.5000 |        1.0000 |\n"
    )
    found = json.loads(loopctr(*arguments, "--json").out)
    depths = [{**depths[0], "gauc": None}]
    assert found == {"split": "valid", "protocol": "honest", "depths": depths}
    assert seen == [(prepared, "valid", 4, 1024)] * 2


def test_export_prints_the_path_and_the_next_command(exporting):
    path, printed = exporting
    assert printed == f"exported to {path}\nnext: loopctr serve {path.parent} --port 8500\n"


def test_export_passes_its_options_on(loopctr, run, trained, tmp_path, monkeypatch):
    exports = []
    monkeypatch.setattr(
        "loopctr_tf.export.export.export_saved_model",
        lambda model, path, **options: exports.append((model, path, options)),
    )
    arguments = "--signatures loop_0,rank_loop_1 --loops 1 --bad-input repair --state-dtype float16"
    arguments += " --weights bfloat16 --precision mixed_bfloat16 --warmup-batch-sizes 1,8"
    assert loopctr("export", run, tmp_path / "1", *arguments.split()).code == 0
    ((model, path, options),) = exports
    assert model.execution.precision == "mixed_bfloat16"
    for weight, expected in zip(model.weights, trained.weights, strict=True):
        np.testing.assert_array_equal(weight, expected)
    assert path == tmp_path / "1"
    assert options.pop("metrics") == json.loads((run / "metrics.json").read_text())
    assert options == {
        "loops": 1,
        "signatures": ["loop_0", "rank_loop_1"],
        "bad_input": "repair",
        "state_dtype": "float16",
        "weights": "bfloat16",
        "warmup_batch_sizes": [1, 8],
    }


def test_score_writes_the_probabilities_of_keras(
    loopctr, prediction_server, prepared, tested, tmp_path
):
    out = tmp_path / "scores.csv"
    arguments = ("--target", prediction_server.target, "--batch-size", 25, "--timeout", 60)
    arguments = (*arguments, "--out", out)
    result = loopctr("score", prepared / "test", *arguments)
    assert (result.code, result.out, result.err) == (0, f"60 rows scored to {out}\n", "")
    probabilities = tested[1].probabilities
    scores = pd.read_csv(out)
    assert list(scores) == ["row", *IDS, "probability"]
    assert scores["row"].tolist() == list(range(60))
    np.testing.assert_allclose(scores["probability"], probabilities[:, 0], atol=1e-5)
    arguments = [*arguments, "--signature", "all_depths"]
    assert (
        "exists; name another file, or give --overwrite"
        in loopctr("score", prepared / "test", *arguments).err
    )
    assert loopctr("score", prepared / "test", *arguments, "--overwrite").code == 0
    depths = [f"probability_{depth}" for depth in DEPTHS]
    scores = pd.read_csv(out)
    assert list(scores) == ["row", *IDS, *depths]
    np.testing.assert_allclose(scores[depths], probabilities, atol=1e-5)


def test_serve_starts_a_server_and_says_where(loopctr, repairing_model, monkeypatch):
    served = []

    def serve_forever(server):
        served.append((server.store.version, server.store.labels))
        server.stop()

    monkeypatch.setattr(PredictionServer, "serve_forever", serve_forever)
    arguments = ("--port", 0, "--name", "ctr", "--label", "stable=1", "--label", "canary=1")
    result = loopctr("serve", repairing_model.parent, *arguments)
    assert result.code == 0
    place = re.escape(str(repairing_model.parent))
    assert re.fullmatch(
        rf"serving 'ctr' from {place} at 127\.0\.0\.1:\d+; Ctrl-C stops\n", result.out
    )
    assert served == [(1, {"stable": 1, "canary": 1})]


# One line and exit code 2 for what the caller got wrong.


@pytest.fixture(scope="module")
def places(prepared, run, saved_model, tmp_path_factory):
    """Good folders and bad ones, by the names that MISTAKES give them."""
    folder = tmp_path_factory.mktemp("places")
    (folder / "empty").mkdir()
    shutil.copytree(run, folder / "unfinished", ignore=lambda *_: ["metrics.json"])
    shutil.copytree(prepared, folder / "cut")
    shard = folder / "cut" / "train" / "part-00001.tfrecord"
    shard.write_bytes(shard.read_bytes()[:-1])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {
        "prepared": prepared,
        "run": run,
        "model": saved_model,
        "port": port,
        **{path.name: path for path in folder.iterdir()},
    }


MISTAKES = [
    ("data describe {empty}", "empty' is not a prepared folder: no stats.json in it; make one"),
    ("data describe {prepared} --plots {run}", "run' exists; remove it or name another"),
    ("data describe {cut}", "part-00001.tfrecord' has"),
    ("schema init {empty}/e.csv", "e.csv' does not exist; name a Parquet, CSV or JSON lines file"),
    ("schema init e.csv --out {prepared}", "prepared' exists; remove it or name another"),
    (
        "prepare --schema {empty}/s.yaml --events e.csv --out {new}",
        "s.yaml' cannot be read: No such",
    ),
    (
        "prepare --schema {prepared}/schema.yaml --events e.csv --out {new}",
        "schema.yaml' has no section `build`, which defines how events become rows; add it",
    ),
    ("prepare --schema {prepared} --out {new}", "name the files: --events of a log, or --rows of"),
    ("train {prepared} {new} --set dims=3", "--set 'dims' is not a setting; did you mean 'dim'?"),
    ("train {prepared} {new} --set dim=wide", "dim is 'wide', a str; give a"),
    ("train {prepared} {new} --config {empty}/c.yaml", "c.yaml' cannot be read: No such file"),
    ("train {empty} {new}", "empty' is not a prepared folder: no stats.json in it; make one"),
    ("train {prepared} {run}", "run' exists; remove it or name another"),
    ("train {prepared}", "Missing argument 'RUN'; see `loopctr train --help`"),
    (
        "evaluate {empty} {prepared}",
        "empty' is not a run folder: it has no config.yaml; make one with",
    ),
    ("evaluate {unfinished} {prepared}", "unfinished' did not end: no metrics.json in it; train"),
    ("evaluate {run} {empty}", "empty' is not a prepared folder"),
    ("evaluate {run} {prepared} --split last", "name one of its folders train, valid, test"),
    ("evaluate {run} {prepared} --loops 7", "loops is 7; this model runs at 0 to 6 loops"),
    ("export {run} {model}", "1' exists; remove it or name another"),
    ("export {run} {new} --signatures loop_0,nope", "signature 'nope' cannot be exported; choose"),
    (
        "export {run} {new} --bad-input ignore",
        "'ignore' is not one of 'reject', 'repair'; see `loopctr export --help`",
    ),
    ("serve {empty}", "empty' holds no version; put the SavedModel into a subfolder"),
    ("serve {empty} --label a=1 --label a=2", "--label a is given twice; give it one version"),
    ("serve {empty} --label stable", "--label is 'stable'; give LABEL=VERSION such as stable=1"),
    (
        "score {prepared}/test --target 127.0.0.1:{port} --out {new}",
        "UNAVAILABLE from 127.0.0.1:{port}",
    ),
    ("score {empty}/rows.jsonl --out {new}", "rows.jsonl' does not exist; name the rows to score"),
    (
        "score {prepared}/test --out {new} --separator history",
        "--separator is 'history'; give COLUMN=CHARACTER such as history=|",
    ),
    (
        "score {prepared}/test --out {new} --delimiter ab",
        "--delimiter is 'ab'; give one character, such as ';'",
    ),
    ("score {prepared}/test --out {new} --ids nobody", "--ids names column 'nobody', which"),
    ("score {prepared}/test --out {empty}", "empty' cannot be written: Is a directory; name a"),
    ("bake {run}", "No such command 'bake'; see `loopctr --help`"),
]


@pytest.mark.parametrize(("line", "words"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_one_line_and_leaves_nothing(loopctr, places, tmp_path, line, words):
    result = loopctr(*shlex.split(line.format(**places, new=tmp_path / "new")))
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("loopctr: ")
    assert result.err.count("\n") == 1
    assert result.err.endswith("\n")
    assert words.format(**places) in result.err
    assert not list(tmp_path.iterdir())


def test_no_arguments_show_the_help(loopctr):
    result = loopctr()
    assert result.code == 2
    assert "Usage: loopctr [OPTIONS] COMMAND" in result.out + result.err


def test_the_commonest_mistakes_do_not_wait_for_tensorflow(places, tmp_path):
    code = (
        "import json, sys; from loopctr_tf.cli import main\n"
        "for line in json.loads(sys.argv[1]):\n"
        "    sys.argv = ['loopctr', *line]\n"
        "    try: main()\n"
        "    except SystemExit as end: code = end.code\n"
        "    print(code, 'tensorflow' in sys.modules)\n"
        "sys.exit(code)"
    )
    lines = (
        ("train", places["empty"], tmp_path / "new"),
        ("train", places["prepared"], places["run"]),
        ("train", places["prepared"], tmp_path / "new", "--set", "dims=3"),
        ("export", places["run"], places["model"]),
    )
    result = fresh_python(code, json.dumps([list(map(str, line)) for line in lines]))
    assert (result.returncode, result.stdout) == (2, "2 False\n" * 4)
    assert re.fullmatch(r"(loopctr: .*\n){4}", result.stderr)


def spoil_a_label(folder, value: float) -> None:
    """Gives one training row another label; the shard keeps its size."""
    shard = folder / "train" / "part-00000.tfrecord"
    size = shard.stat().st_size
    rows = list(tf.data.TFRecordDataset(str(shard)).as_numpy_iterator())
    example = tf.train.Example.FromString(rows[7])
    example.features.feature["label"].float_list.value[0] = value
    rows[7] = example.SerializeToString(deterministic=True)
    with tf.io.TFRecordWriter(str(shard)) as writer:
        for row in rows:
            writer.write(row)
    assert shard.stat().st_size == size


@pytest.mark.filterwarnings("ignore:Even though the `tf.config")
def test_a_bad_label_is_reported_and_leaves_no_run(loopctr, prepared, tmp_path):
    folder = shutil.copytree(prepared, tmp_path / "prepared")
    spoil_a_label(folder, 2.0)
    # The smallest model there is: what is tested is how the error leaves `fit`.
    settings = "dim=4 heads=1 ffn_dim=4 experts=1 active_experts=1 streams=1 loops=0 sink=false"
    settings += " recency_embedding=false global_norm=false tower_units=[]"
    arguments = [part for setting in settings.split() for part in ("--set", setting)]
    run = tmp_path / "run"
    # Eager: the training ends in its first step, and tracing that takes far longer.
    tf.config.run_functions_eagerly(True)
    try:
        result = loopctr("train", folder, run, "--quiet", *arguments)
    finally:
        tf.config.run_functions_eagerly(False)
    assert result.code == 2
    assert result.err == (
        "loopctr: labels must be 0 or 1; found, in column 'label': 2; "
        "prepare the data again with labels 0 and 1\n"
    )
    assert not run.exists()


def test_inspect_prints_signatures_sizes_and_a_ready_request(loopctr, saved_model):
    result = loopctr("inspect", saved_model.parent)
    assert result.code == 0
    # signatures with equal inputs and outputs share one entry
    assert f"\nloop_{DEPTHS[-1]}, serving_default  (predict)\n" in result.out
    # the second entry with row features is all_depths
    assert result.out.count("  <- history_length: int32 [?]\n") == 2
    assert "of those in the Loop Block" in result.out
    request = json.loads(loopctr("inspect", saved_model, "--signature", "loop_2").out)
    assert request["signature_name"] == "loop_2"
    wrong = loopctr("inspect", saved_model, "--signature", "loop_99")
    assert wrong.code == 2
    assert wrong.err.startswith("loopctr: signature 'loop_99' is not in ")


# Exit code 1 for what we got wrong.


def test_a_bug_shows_its_traceback(loopctr, run, tmp_path, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("one over nought")

    monkeypatch.setattr("loopctr_tf.training.run_folder.load_run", fail)
    result = loopctr("export", run, tmp_path / "1")
    assert result.code == 1
    assert result.err.startswith("Traceback (most recent call last):\n")
    assert result.err.endswith("ZeroDivisionError: one over nought\n")
    assert not list(tmp_path.iterdir())


def test_a_comparison_with_a_system_that_failed_ends_with_1(
    loopctr, prepared, tmp_path, monkeypatch
):
    def compared(prepared, out, comparison, jobs, devices, log):
        assert (comparison.names, jobs, devices) == (("dlrm", "din"), 2, ("0", "1"))
        (out / "results.md").write_text("the report\n")
        return {"failed": {"din": "MemoryError"}}

    monkeypatch.setattr("loopctr_tf.compare.compare.compare", compared)
    arguments = ("--out", tmp_path, "--models", "dlrm,din", "--devices", "0,1")
    result = loopctr("compare", prepared, *arguments)
    assert (result.code, result.out) == (1, "the report\n")


def test_an_interrupt_is_one_line(loopctr, run, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("loopctr_tf.training.run_folder.load_run", interrupt)
    result = loopctr("export", run, tmp_path / "1")
    # A new line first: the terminal shows ^C on the one before it.
    assert (result.code, result.err) == (130, "\nloopctr: interrupted\n")


def test_the_console_script_is_this_command():
    script = os.path.join(os.path.dirname(sys.executable), "loopctr")
    if not os.path.exists(script):
        pytest.skip("loopctr_tf is not installed into this Python")
    result = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert result.stdout.strip().endswith(__version__)
