"""The synthetic recipe: the truth and its figures, histories, split, bytes, memory, command line."""

import json
import math
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from recipes import read_rows, same_files
from sklearn.metrics import log_loss, roc_auc_score
from synthetic_files import BLOCKS, FOLDER, LONG, Options, recipe, users, world

from loopctr_tf.features.prepared import SPLITS
from loopctr_tf.features.schema import Schema
from loopctr_tf.prepare.prepare import prepare_events

DAY = 24 * 60 * 60 * 1000


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    """Three blocks."""
    folder = tmp_path_factory.mktemp("synthetic") / "blocks"
    stats = recipe.prepare(folder, BLOCKS, workers=1)
    assert stats == json.loads((folder / "stats.json").read_text())
    return folder


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """One block, both sequences full for many."""
    folder = tmp_path_factory.mktemp("synthetic") / "long"
    recipe.prepare(folder, LONG, workers=1)
    return folder


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """The same as an event log."""
    folder = tmp_path_factory.mktemp("synthetic") / "log"
    recipe.write_events(folder, LONG, workers=1)
    return folder


@pytest.fixture(scope="module")
def block():
    """Ten thousand rows, as they were simulated."""
    options = Options(rows=10_000, users=500, items=1000, short=10, long=30, seed=7)
    return users.simulate(world.World(options), options, 0)


def judged(folder, split):
    """(probabilities, labels, users) of a split."""
    rows = read_rows(folder, split)
    probability = np.load(folder / "truth" / f"{split}.npy")
    label = np.array([row["label"][0] for row in rows])
    assert probability.dtype == np.float32
    assert probability.shape == label.shape
    return probability.astype(np.float64), label, np.array([row["user_id"][0] for row in rows])


@pytest.mark.parametrize("split", ["valid", "test"])
def test_best_figures_equal_an_independent_computation(blocks, split):
    promised, label, user = judged(blocks, split)
    best = json.loads((blocks / "stats.json").read_text())["best"][split]
    assert best["rows"] == len(label)
    assert best["auc"] == pytest.approx(roc_auc_score(label, promised), abs=1e-12)
    loss, rate = log_loss(label, promised), label.mean()
    assert best["log_loss"] == pytest.approx(loss, rel=1e-9)
    entropy = -rate * math.log(rate) - (1 - rate) * math.log(1 - rate)
    assert best["ne"] == pytest.approx(loss / entropy, rel=1e-9)
    assert best["calibration"] == pytest.approx(promised.sum() / label.sum(), rel=1e-9)
    areas = []
    for one in np.unique(user):
        own = user == one
        if 0 < label[own].mean() < 1:
            areas.append(roc_auc_score(label[own], promised[own]))
    assert best["groups_used"] == len(areas) > 10
    assert best["groups_skipped"] == len(np.unique(user)) - len(areas)
    assert best["gauc"] == pytest.approx(np.mean(areas), abs=1e-12)


def expected_probability(row, short):
    """The formula once more, over one row's plain values."""

    def value(name):
        return row[name][0]

    weight = {1: 1.0, 2: 1.5, 3: -1.0}
    recent = list(zip(row["history_category"], row["history_action"], strict=True))[::-1]
    speaks = total = 0.0
    for age, (category, action) in enumerate(recent):
        fades = 0.5 ** (age / (short / 5))
        total += fades
        alike = (category == value("category")) + (category % 8 == value("category") % 8)
        speaks += fades * weight[action] * alike / 2
    older = [
        weight[action] * (category % 8 == value("category") % 8)
        for category, action in zip(
            row["long_history_category"], row["long_history_action"], strict=True
        )
    ]
    department = int(value("department")[1:])
    assert department == value("category") % 8
    by_gender = {
        "f": [1, -1, 0.5, 0, -0.5, 1, -1, 0],
        "m": [-1, 1, 0, 0.5, 0, -0.5, 1, -1],
        "": [0] * 8,
    }
    logit = (
        -3.0
        + 5.0 * (speaks / total if recent else 0)
        + 1.5 * (sum(older) / len(older) if older else 0)
        + {"home": 0, "search": 0.5, "cart": -0.4, "detail": 0.1}[value("page")]
        + {"free": 0.2, "paid": 0, "pickup": -0.2}[value("shipping")]
        + 0.25 * math.sin((value("hour") - 14) / 24 * 2 * math.pi)
        + 0.35 * by_gender[value("gender")][department]
        + 0.5 * (value("rating") - 4)
        + value("discount")
        - 0.5 * abs(math.log(value("price_to_budget")))
        + 0.4 * (value("department") in row["favourite_departments"])
        + 0.2 * value("same_region")
    )
    return 1 / (1 + math.exp(-logit))


def test_the_truth_is_a_function_of_the_row_alone(long):
    """So that a model which reads all columns can reach the best figures."""
    for split in ("valid", "test"):
        expected = [expected_probability(row, LONG.short) for row in read_rows(long, split)]
        found = np.load(long / "truth" / f"{split}.npy")
        np.testing.assert_allclose(found, expected, atol=2e-6)
        assert found.std() > 0.1


def test_labels_are_drawn_from_the_truth(block):
    """In ten bins of the probability clicks are as many as promised, within four deviations."""
    promise, label = block.rows["probability"], block.rows["label"]
    for some in np.array_split(np.argsort(promise), 10):
        promised, variance = promise[some].sum(), (promise[some] * (1 - promise[some])).sum()
        assert abs(label[some].sum() - promised) < 4 * math.sqrt(variance)
    # Draws do not follow each other either.
    rest = (label - promise) / np.sqrt(promise * (1 - promise))
    assert abs(np.mean(rest[1:] * rest[:-1])) < 4 / math.sqrt(len(rest))
    assert abs(rest.var() - 1) < 0.1


def test_loopctr_prepare_makes_the_same_rows_of_the_event_log(long, log, tmp_path):
    """Two ways that share no code for histories; only what stands for a missing number differs."""
    schema = yaml.safe_load((FOLDER / "schema.yaml").read_text())
    for sequence, length in zip(schema["sequences"], (LONG.short, LONG.long), strict=True):
        sequence["max_length"] = length
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump(schema))
    tables = {"items": log / "items.parquet", "users": log / "users"}
    built = tmp_path / "built"
    prepare_events(tmp_path / "schema.yaml", log / "events", built, **tables, workers=1)
    missing = {"age": 38, "budget": 33, "rating": 4, "discount": 0, "price_to_budget": 1.5}

    def known(row):
        return tuple((name, tuple(row[name])) for name in sorted({*row} - {*missing}))

    for split in SPLITS:
        theirs = {known(row): row for row in read_rows(built, split)}
        ours = read_rows(long, split)
        assert len(theirs) == len(ours)
        for row in ours:
            other = theirs[known(row)]
            assert all(row[name] in (other[name], [missing[name]]) for name in missing)


def test_vocabularies_and_statistics_are_of_train_only(blocks):
    schema, rows = Schema.load(blocks), read_rows(blocks, "train")
    known = set(schema.table("category").vocabulary)
    names = ("category", "history_category", "long_history_category")
    assert known == {value for row in rows for name in names for value in row[name]}
    ages = [row["age"][0] for row in rows if row["age"][0] != 38]
    age = next(feature for feature in schema.features if feature.name == "age")
    # Somebody may be 38, so that only nearly all of them are looked at here.
    assert age.mean == pytest.approx(np.mean(ages), abs=0.05)
    assert age.std == pytest.approx(np.std(ages), rel=0.05)
    assert age.default == 38
    activity = next(feature for feature in schema.features if feature.name == "activity")
    logs = np.log1p([row["activity"][0] for row in rows])
    assert (activity.mean, activity.std) == pytest.approx((logs.mean(), logs.std()))
    assert schema.table("item").hash_buckets == 300


def run(*arguments):
    return subprocess.run(
        [sys.executable, str(FOLDER / "prepare.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
    )


def test_two_workers_give_the_same_bytes(blocks, tmp_path):
    numbers = ["--rows", 5000, "--users", 2001, "--items", 300, "--short", 4, "--long", 10]
    result = run("--out", tmp_path / "out", *numbers, "--seed", 3, "--workers", 2)
    assert result.returncode == 0, result.stderr
    assert "rows/s" in result.stderr
    assert "best possible on test: AUC 0." in result.stdout
    same_files(blocks, tmp_path / "out")


def test_events_command(tmp_path, log):
    numbers = ["--rows", 1500, "--users", 90, "--items", 400, "--short", 8, "--long", 40]
    result = run("--events", tmp_path / "log", *numbers, "--seed", 5, "--workers", 2)
    assert result.returncode == 0, result.stderr
    same_files(log, tmp_path / "log")
    events = pq.read_table(log / "events").to_pandas()
    assert f"{len(events):,} events, 1,500 impressions" in result.stdout
    assert "probability" not in events.columns
    shown = events["event"] == "impression"
    assert (events["action"][~shown] > 0).all()
    assert events["page"][~shown].isna().all()
    assert not events["page"][shown].isna().any()
