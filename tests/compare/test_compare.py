"""A comparison from the command to the report, interrupted and resumed; figures of made-up scores."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from loopctr_tf.compare import compare as comparing
from loopctr_tf.compare import report, runs
from loopctr_tf.compare.protocol import Comparison
from loopctr_tf.compare.results import gather, scored
from loopctr_tf.compare.runs import chosen, row_folder, seed_folder, train_row
from loopctr_tf.compare.search import LOG
from loopctr_tf.errors import UsageError
from loopctr_tf.evaluation import exact
from loopctr_tf.files import write_json
from tests.session import command

SETTINGS = [
    "training.epochs=1",
    "training.batch_size=100",
    "protocol.dims=[4]",
    "dlrm.tower_units=[4]",
]


def comparison(**settings):
    return Comparison.load(None, ["dlrm"], SETTINGS, **{"seeds": 1, "trials": 2, **settings})


@pytest.fixture(scope="module")
def compared(prepared, tmp_path_factory):
    """(folder, JSON that the command printed) of DLRM alone."""
    out = tmp_path_factory.mktemp("compare") / "out"
    pairs = [part for pair in SETTINGS for part in ("--set", pair)]
    arguments = ("--out", out, "--models", "dlrm", "--seeds", 1, "--trials", 2, *pairs)
    return out, json.loads(command("compare", prepared, *arguments, "--json"))


@pytest.mark.slow
def test_the_command_searches_trains_measures_and_reports(compared, prepared):
    out, results = compared
    head, *references = results["heads"]
    assert [reference["row"] for reference in references] == [
        "item_mean_ctr",
        "user_item_logistic_regression",
    ]
    assert all(reference["against"] == "DLRM" for reference in references)
    assert (head["label"], results["base"], results["failed"]) == ("DLRM", "DLRM", {})
    test = scored(out / "runs/dlrm/seed-1", "test")
    assert head["auc"]["values"] == [exact.auc(test.labels, test.probabilities[:, 0])]
    assert results["search"]["dlrm"]["trials"] == 2
    assert head["flops"] > 0
    assert head["p50_ms"] > 0
    assert head["dense_parameters"] < head["parameters"]
    text = (out / report.REPORT).read_text()
    assert f"| {head['auc']['mean']:.4f} " in text
    assert "item mean ctr" in text
    for name in ("auc_by_flops.png", "auc_by_latency.png", report.RESULTS, comparing.SETTINGS):
        assert (out / name).stat().st_size > 0
    assert not (out / "runs/dlrm/trial").exists()


@pytest.mark.slow
def test_what_is_finished_is_not_done_again_and_a_killed_trial_is(compared, prepared):
    out, _ = compared
    (row,) = comparison().rows()
    weights = seed_folder(out, row, 1) / "weights/best.weights.h5"
    before = weights.stat().st_mtime_ns
    train_row(out, prepared, comparison(), row)
    storage = JournalStorage(JournalFileBackend(str(row_folder(out, row) / LOG)))
    study = optuna.load_study(storage=storage, study_name="search")
    assert (weights.stat().st_mtime_ns, len(study.trials)) == (before, 2)
    # A trial that was under way when the process died, and a run whose scores were not written yet.
    trial = study.ask()
    rate = trial.suggest_float("learning_rate", 3e-4, 1e-2, log=True)
    (seed_folder(out, row, 1) / "test.npz").unlink()
    train_row(out, prepared, comparison(trials=3), row)
    assert chosen(out, row)["trials"] == 3
    study = optuna.load_study(storage=storage, study_name="search")
    assert [t.state for t in study.trials].count(TrialState.FAIL) == 1
    assert study.trials[-1].params["learning_rate"] == rate
    assert scored(seed_folder(out, row, 1), "test").probabilities.shape == (60, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"overrides": [*SETTINGS, "training.epochs=2"]}, "training.epochs is 2, and 1 in"),
        ({"overrides": [*SETTINGS, "dlrm.tower_units=[5]"]}, "models.dlrm is"),
        ({"trials": 1}, "protocol.trials is 1, and 2 in"),
    ],
)
def test_a_folder_takes_no_other_comparison(tmp_path, monkeypatch, settings, message):
    facts = {"sha256": "a", "prepared": "somewhere"}
    comparing._claim(tmp_path / "out", comparison(), facts)
    comparing._claim(tmp_path / "out", comparison(trials=3), facts)
    comparing._claim(tmp_path / "new", comparison(), facts)
    settings = {"seeds": 1, "trials": 2, "overrides": SETTINGS, **settings}
    with pytest.raises(UsageError, match=message):
        comparing._claim(tmp_path / "new", Comparison.load(None, ["dlrm"], **settings), facts)
    with pytest.raises(UsageError, match="holds other data"):
        comparing._claim(tmp_path / "new", comparison(), {**facts, "sha256": "b"})
    monkeypatch.setattr(comparing, "__version__", "9.9")
    with pytest.raises(UsageError, match="begun by version"):
        comparing._claim(tmp_path / "new", comparison(), facts)
    (tmp_path / "other").mkdir()
    with pytest.raises(UsageError, match="holds no comparison"):
        comparing._claim(tmp_path / "other", comparison(), facts)


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    """(folder, comparison): scores of two seeds of a LoopCTR with two depths, and a worse DLRM."""
    out = tmp_path_factory.mktemp("made-up")
    found = Comparison.load(None, ["loopctr", "dlrm"], seeds=2, trials=1)
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 2, 400), rng.integers(0, 40, 400).astype("U")
    for row in found.rows():
        noise, heads = (
            ((0.5, 0.6), ("loop_0", "loop_1")) if row.name == "loopctr" else ((2.0,), ("",))
        )
        row_folder(out, row).mkdir(parents=True)
        choice = {
            "choice": found.default_choice(),
            "value": 0.7,
            "trials": 1,
            "pruned": 0,
            "seconds": 1,
        }
        write_json(row_folder(out, row) / "choice.json", choice)
        for seed in (1, 2):
            seed_folder(out, row, seed).mkdir()
            for split in ("valid", "test"):
                logits = np.stack([labels + rng.normal(scale=s, size=400) for s in noise], axis=1)
                np.savez(
                    seed_folder(out, row, seed) / f"{split}.npz",
                    labels=labels,
                    groups=groups,
                    probabilities=1 / (1 + np.exp(-logits)),
                    heads=np.array(heads),
                    history=rng.integers(0, 9, 400),
                )
    return out, found


def test_figures_differences_ratios_and_the_oracle(made_up):
    out, found = made_up
    cost = {"dense_parameters": 10, "flops": 4.0, "p50_ms": 2.0, "peak_memory_bytes": 8}
    costs = [
        {"row": "loopctr", "head": "loop_0", **cost},
        {"row": "loopctr", "head": "loop_1", **cost, "flops": 6.0},
        {"row": "dlrm", "head": "", **cost, "p50_ms": 1.0},
    ]
    chance = {"coin": np.random.default_rng(5).random(400)}
    results = gather(out, found, found.rows(), costs, chance)
    zero, one, dlrm, coin = results["heads"]
    labels = ["LoopCTR(0/1)", "LoopCTR(1/1)", "DLRM", "coin"]
    assert [h["label"] for h in results["heads"]] == labels
    assert coin["auc_difference"]["high"] < dlrm["auc_difference"]["value"]
    assert results["base"] == "LoopCTR(0/1)"
    assert "auc_difference" not in zero
    assert (one["ratios"]["flops"], dlrm["ratios"]["p50_ms"]) == (1.5, 0.5)
    values = dlrm["auc"]["values"]
    assert dlrm["auc"]["mean"] == pytest.approx(np.mean(values))
    assert dlrm["auc"]["deviation"] == pytest.approx(np.std(values, ddof=1))
    difference = dlrm["auc_difference"]
    assert difference["value"] == pytest.approx(dlrm["auc"]["mean"] - zero["auc"]["mean"])
    assert difference["high"] < 0
    assert difference["p"] < 1e-3
    assert dlrm["gauc_difference"]["value"] == pytest.approx(
        dlrm["gauc"]["mean"] - zero["gauc"]["mean"]
    )
    oracle = results["oracle"]["loopctr"]
    assert oracle["loop_0"]["auc"] == pytest.approx(zero["auc"]["mean"])
    assert oracle["oracle"]["auc"] > oracle["loop_0"]["auc"]
    assert set(oracle) == {
        "oracle", "honest selector", "mean of depths", "null control", "loop_0", "loop_1",
    }  # fmt: skip


def test_a_report_says_what_did_not_finish(made_up, tmp_path):
    out, found = made_up
    rows = [row for row in found.rows() if row.name == "dlrm"]
    cost = {"row": "dlrm", "head": "", "dense_parameters": 10, "flops": 4.0, "p50_ms": 2.0}
    gathered = gather(out, found, rows, [{**cost, "peak_memory_bytes": 0}])
    results = {
        **found.to_dict(),
        "made": {"date": "2026-01-01", "version": "9"},
        "data": {"prepared": "somewhere", "rows": {"train": 3}},
        "failed": {"loopctr": "ResourceExhaustedError: out of memory"},
        "missing": {"references": "no item"},
        "machine": {"cores": 2, "processor": "p", "tensorflow": "t"},
        "batch_size": 2048,
        **gathered,
    }
    text = report.write(tmp_path, results)
    assert "Not finished, and absent below: loopctr: ResourceExhaustedError: out of memory" in text
    assert "Missing below: references: no item" in text
    assert json.loads((tmp_path / report.RESULTS).read_text())["base"] == "DLRM"


def test_an_ablation_is_compared_with_the_same_depth_of_the_full_model(made_up):
    out, found = made_up
    rows = Comparison.load(None, ["loopctr", "dlrm"], seeds=2, trials=1, ablations=True).rows()
    (ablation,) = (row for row in rows if row.name == "without sink")
    for seed in (1, 2):
        seed_folder(out, ablation, seed).mkdir(parents=True, exist_ok=True)
        for split in ("valid", "test"):
            source = seed_folder(out, rows[0], seed) / f"{split}.npz"
            (seed_folder(out, ablation, seed) / source.name).write_bytes(source.read_bytes())
    heads = gather(out, found, [*rows[:2], ablation])["heads"]
    against = {head["label"]: head.get("against") for head in heads}
    assert against["without sink(1/1)"] == "LoopCTR(1/1)"
    assert against["LoopCTR(1/1)"] == "LoopCTR(0/1)"
    (last,) = (head for head in heads if head["label"] == "without sink(1/1)")
    assert last["auc_difference"]["value"] == 0


def test_runs_on_other_rows_are_refused(made_up):
    out, found = made_up
    path = seed_folder(out, found.rows()[1], 2) / "test.npz"
    whole = path.read_bytes()
    with np.load(path) as arrays:
        np.savez(path, **{**arrays, "labels": 1 - arrays["labels"]})
    with pytest.raises(UsageError, match="dlrm was scored on other test rows than loopctr"):
        gather(out, found, found.rows())
    path.write_bytes(whole)


def test_a_row_that_fails_takes_no_other_along(tmp_path, monkeypatch):
    """Processes are threads here: what is tested is who waits for whom, and which device is given."""
    seen = []

    def train(out, prepared, comparison, row, jobs, device):
        seen.append((row.name, jobs, device))
        if row.name in ("din", "loopctr"):
            raise MemoryError(f"{row.name} is too large")
        return 1.0

    class Threads(ThreadPoolExecutor):
        def __init__(self, workers, context):
            super().__init__(workers)

    monkeypatch.setattr(runs, "ProcessPoolExecutor", Threads)
    monkeypatch.setattr(runs, "train_row", train)
    found = Comparison.load(None, ["loopctr", "dlrm", "din"], ablations=True)
    lines = []
    failed = runs.train_rows(tmp_path, tmp_path, found, 2, ("5", "7"), lines.append)
    assert failed["din"] == "MemoryError: din is too large"
    assert failed["without sink"] == "the search of 'loopctr' failed"
    assert "dlrm" not in failed
    assert {name for name, _, _ in seen} == {"loopctr", "dlrm", "din"}
    assert {(jobs, device) for _, jobs, device in seen} <= {(2, "5"), (2, "7")}
    assert "dlrm: done (1 s in this call)" in lines


def test_a_figure_that_validation_does_not_define_is_an_error(prepared, tmp_path, monkeypatch):
    found = comparison()
    (row,) = found.rows()
    results = {"valid": [{"head": "", "auc": float("nan")}], "served": ""}
    monkeypatch.setattr("loopctr_tf.compare.search.train", lambda *_, **__: results)
    with pytest.raises(UsageError, match="auc is nan on the validation split"):
        train_row(tmp_path, prepared, found, row)
