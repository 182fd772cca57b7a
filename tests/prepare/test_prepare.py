"""Whole prepared folders against rows that plain loops make of the same log."""

import json
import math
import subprocess
import sys

import duckdb
import numpy as np
import pytest

import loopctr_tf as lc
from loopctr_tf.errors import UsageError
from loopctr_tf.prepare import statements
from loopctr_tf.prepare.files import MixedFiles
from loopctr_tf.prepare.plan import make_plan
from loopctr_tf.prepare.prepare import prepare_events
from loopctr_tf.prepare.rules import load_rules
from tests.prepare.logs import (
    START,
    TIE,
    negatives_dict,
    random_log,
    schema_dict,
    stored_rows,
    write_log,
)
from tests.reference.event_rows import PADDING, EventRows

SPLITS = ("train", "valid", "test")
SPLIT_RULES = {
    "shares": {"by": "time", "valid": 0.2, "test": 0.2},
    "numbers": {"by": "time", "valid_from": START + 15 * TIE, "test_from": START + 22 * TIE},
    "last": {"by": "last", "valid": 2, "test": 3},
    "column": {"by": "column", "column": "split", "train": ["a"], "valid": ["b"], "test": ["c"]},
}


def expected_row(row: dict, schema: lc.Schema) -> dict:
    """A row of the reference as it is stored: missing values filled, lists flat."""

    def stored(feature, value):
        if feature.table is None:
            return np.float32(feature.default if value is None else value)
        dtype = schema.table(feature.table).dtype
        if value is None:
            return PADDING[dtype]
        return str(value) if dtype == "string" else value

    found = {schema.label: [row[schema.label]], schema.group: [row[schema.group]]}
    for feature in schema.features:
        value = row[feature.name]
        many = feature.type == "multi_categorical"
        found[feature.name] = (value or []) if many else [stored(feature, value)]
    for sequence in schema.sequences:
        for field in sequence.fields:
            values = row[field.name]
            if field.type == "multi_categorical":
                found[field.name] = [one for value in values for one in value or []]
                found[f"{field.name}_counts"] = [len(value or []) for value in values]
            else:
                found[field.name] = [stored(field, value) for value in values]
    return found


def same(found: dict, expected: dict) -> bool:
    """Whether rows are equal, numbers but for the last digits of float32."""
    return set(found) == set(expected) and all(
        len(found[name]) == len(values)
        and all(
            a == b if isinstance(b, (str, int)) else math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-6)
            for a, b in zip(found[name], values, strict=True)
        )
        for name, values in expected.items()
    )


@pytest.mark.parametrize("exact_order", [False, True])
@pytest.mark.parametrize("split", SPLIT_RULES)
def test_every_row_is_that_of_the_reference(tmp_path, split, exact_order):
    schema = schema_dict(split=SPLIT_RULES[split], exact_order=exact_order)
    log = random_log()
    reference = EventRows(log[0], schema, schema["build"], *log[1:])
    out = tmp_path / "out"
    stats = prepare_events(**write_log(tmp_path, schema, log), out=out, workers=1, shard_rows=50)
    fitted = lc.Schema.load(out)
    for name in SPLITS:
        rows = stored_rows(out, name)
        assert len(rows) == stats["rows"][name] == len(reference.rows[name]) > 0
        for row, expected in zip(rows, reference.rows[name], strict=True):
            expected = expected_row(expected, fitted)
            assert same(row, expected), (row, expected)
    # Some histories are empty, some longer than the sequence, and some rows have ties.
    lengths = [len(row["clicks_item"]) for row in stored_rows(out, "train")]
    assert min(lengths) == 0
    assert max(lengths) == 3


@pytest.mark.parametrize("split", SPLIT_RULES)
def test_the_schema_is_fitted_to_training_rows_alone(tmp_path, split):
    schema = schema_dict(split=SPLIT_RULES[split])
    log = random_log()
    reference = EventRows(log[0], schema, schema["build"], *log[1:])
    out = tmp_path / "out"
    prepare_events(**write_log(tmp_path, schema, log), out=out, workers=1)
    fitted = lc.Schema.load(out)
    for table in fitted.tables:
        if table.vocabulary is not None:
            assert list(table.vocabulary) == reference.vocabulary(table.name)
    plain = {f["name"]: f for f in [*schema["features"], *reference.fields.values()]}
    for feature in fitted.all_fields():
        if feature.table is None:
            mean, std = reference.statistics(plain[feature.name])
            assert feature.mean == pytest.approx(mean, rel=1e-6)
            assert feature.std == pytest.approx(std, rel=1e-6)
            default = math.expm1(mean) if feature.transform == "log1p" else mean
            assert feature.default == pytest.approx(default, rel=1e-6)


def folder_bytes(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("make", [schema_dict, negatives_dict])
def test_the_bytes_depend_on_nothing_but_the_input(tmp_path, make):
    """One worker or two, once or again."""
    arguments = write_log(tmp_path, make())
    folders = []
    for number, workers in enumerate((1, 1, 2)):
        out = tmp_path / f"out{number}"
        prepare_events(**arguments, out=out, workers=workers, shard_rows=20)
        folders.append(folder_bytes(out))
    assert len([name for name in folders[0] if name.startswith("train/")]) > 4
    assert folders[0] == folders[1] == folders[2]


def test_csv_gives_the_same_rows_as_parquet(tmp_path):
    folders = []
    for kind in ("parquet", "csv"):
        (tmp_path / kind).mkdir()
        arguments = write_log(tmp_path / kind, schema_dict(), kind=kind)
        prepare_events(**arguments, out=tmp_path / kind / "out", workers=1)
        folders.append(folder_bytes(tmp_path / kind / "out"))
        del folders[-1]["stats.json"]  # It holds the rules, of which one is the separator.
    assert folders[0] == folders[1]


def test_what_happens_later_changes_no_earlier_row(tmp_path):
    """Leakage: with another future, training rows, vocabularies and statistics are the same bytes."""
    begin = START + 15 * TIE
    split = {"by": "time", "valid_from": begin, "test_from": begin + 6 * TIE}
    schema = schema_dict(split=split, duplicates="keep")
    log, items, users = random_log()
    other = [
        {**event, "item_id": "new", "rating": 1, "kind": "click", "device": 99}
        if event["time"] >= begin
        else event
        for event in log
    ]
    folders = []
    for number, events in enumerate((log, other)):
        (tmp_path / str(number)).mkdir()
        arguments = write_log(tmp_path / str(number), schema, (events, items, users))
        prepare_events(**arguments, out=tmp_path / str(number) / "out", workers=1)
        folders.append(folder_bytes(tmp_path / str(number) / "out"))
    same = [name for name in folders[0] if folders[0][name] == folders[1].get(name)]
    assert sorted(same) == sorted(
        name for name in folders[0] if name.startswith(("train/", "vocab/", "schema.yaml"))
    )


def test_no_history_holds_the_row_or_anything_as_late(tmp_path):
    """Leakage, seen from the rows: every event has an id of its own, and times are looked up by it."""
    schema = schema_dict(rows=None, tables=None)
    log = random_log()
    for event in log[0]:
        name = f"e{event['place']}"
        log[1][name] = log[1].get(event["item_id"], {"price": None, "tags": []})
        event["item_id"] = name
    out = tmp_path / "out"
    prepare_events(**write_log(tmp_path, schema, log), out=out, workers=1)
    event = {event["item_id"]: event for event in log[0]}
    checked = 0
    for split in SPLITS:
        for row in stored_rows(out, split):
            own = event[row["item_id"][0]]
            for past in (event[name] for name in row["older_item"] + row["clicks_item"]):
                assert past["time"] < own["time"]
                assert past["user_id"] == own["user_id"]
                checked += 1
    assert checked > 300


# Sampled negatives.


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """(log, rows of all splits, the fitted schema, stats) with four negatives each."""
    folder = tmp_path_factory.mktemp("sampled")
    log, schema = random_log(600), negatives_dict(duplicates="keep")
    out = folder / "out"
    stats = prepare_events(**write_log(folder, schema, log), out=out, workers=1)
    return log, {split: stored_rows(out, split) for split in SPLITS}, lc.Schema.load(out), stats


def test_positives_are_those_of_the_reference(sampled):
    log, rows, fitted, _ = sampled
    schema = negatives_dict()
    reference = EventRows(log[0], schema, schema["build"], *log[1:])
    for split in SPLITS:
        assert len(rows[split]) == 5 * len(reference.rows[split])
        for row, expected in zip(rows[split][::5], reference.rows[split], strict=True):
            assert same(row, expected_row(expected, fitted))


def test_negatives_share_all_but_the_item_with_their_positive(sampled):
    log, rows, fitted, stats = sampled
    met = {(event["user_id"], event["item_id"]) for event in log[0]}
    for split in SPLITS:
        for place, row in enumerate(rows[split]):
            positive = rows[split][place - place % 5]
            assert row["label"] == [float(place % 5 == 0)]
            for name in set(row) - {"label", "item_id", "price", "tags"}:
                assert row[name] == positive[name]
            if place % 5:
                (item,) = row["item_id"]
                assert (row["user_id"][0], item) not in met
                known = log[1].get(item, {"price": None, "tags": []})
                price = fitted.features[1].default if known["price"] is None else known["price"]
                assert row["price"] == [np.float32(price)]
                assert row["tags"] == known["tags"]
        assert stats["clicks"][split] * 5 == stats["rows"][split] == len(rows[split])


def test_vocabularies_count_events_and_statistics_all_rows(sampled):
    log, rows, fitted, _ = sampled
    schema = negatives_dict()
    reference = EventRows(log[0], schema, schema["build"], *log[1:])
    for table in fitted.tables:
        if table.vocabulary is not None:
            assert list(table.vocabulary) == reference.vocabulary(table.name)
    prices = [log[1].get(row["item_id"][0], {}).get("price") for row in rows["train"]]
    logs = [math.log1p(price) for price in prices if price is not None]
    assert fitted.features[1].mean == pytest.approx(np.mean(logs))
    assert fitted.features[1].std == pytest.approx(np.std(logs))


# What is told, and what is refused.


def test_the_facts_are_counted(tmp_path):
    log, items, users = random_log()
    reference = EventRows(log, schema_dict(), schema_dict()["build"], items, users)
    stats = prepare_events(**write_log(tmp_path, schema_dict()), out=tmp_path / "out", workers=1)
    rows = [row for split in SPLITS for row in reference.rows[split]]
    assert stats["events"] == {"read": 260, "used": 260, "bad": 0, "duplicates": 0}
    assert stats["users"] == len({event["user_id"] for event in log})
    assert stats["items"] == len({event["item_id"] for event in log})
    assert stats["items_without_row"] == len({e["item_id"] for e in log} - set(items)) == 2
    assert stats["users_without_row"] == 1
    assert stats["rejected"] == {}
    assert stats["clicks"]["test"] == sum(row["label"] for row in reference.rows["test"])
    assert stats["histories"]["clicks"] == {
        "mean_events": pytest.approx(sum(len(row["_clicks"]) for row in rows) / len(rows)),
        "rows_without": sum(not row["_clicks"] for row in rows),
    }
    assert stats["build"] == schema_dict()["build"]
    assert json.loads((tmp_path / "out" / "stats.json").read_text()) == stats


@pytest.mark.parametrize("make", [schema_dict, negatives_dict])
def test_rows_have_the_weight_of_their_event(tmp_path, make):
    schema = {**make(), "weight": "importance"}
    log, items, users = random_log()
    log = [{**event, "importance": event["place"] / 4} for event in log]
    out = tmp_path / "out"
    prepare_events(**write_log(tmp_path, schema, (log, items, users)), out=out, workers=1)
    weights = {}
    for split in SPLITS:
        for row in stored_rows(out, split):
            (weight,) = row["importance"]
            weights[weight] = weights.get(weight, 0) + 1
    used = [e for e in log if e["kind"] != "search" or make is negatives_dict]
    per_event = 5 if make is negatives_dict else 1
    assert weights == {event["importance"]: per_event for event in used}
    log[7]["importance"] = -1.0
    paths = write_log(tmp_path, schema, (log, items, users))
    with pytest.raises(UsageError, match=r"weight 'importance' is -1.0 in an event; weights must"):
        prepare_events(**paths, out=tmp_path / "other", workers=1)
    assert not (tmp_path / "other").exists()


def test_tensorflow_is_not_needed(tmp_path):
    """Workers are forked, which a process with TensorFlow's threads should better not be."""
    arguments = {name: str(value) for name, value in write_log(tmp_path, schema_dict()).items()}
    code = (
        "import sys; from loopctr_tf.prepare.prepare import prepare_events\n"
        f"prepare_events(**{arguments}, out={str(tmp_path / 'out')!r}, workers=2)\n"
        "print('tensorflow' in sys.modules)"
    ).replace(repr(arguments["events"]), arguments["events"])
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


def test_a_prepared_folder_can_be_trained_on(tmp_path):
    out = tmp_path / "out"
    prepare_events(**write_log(tmp_path, schema_dict()), out=out, workers=1)
    features, label = next(iter(lc.read_dataset(out / "train", batch_size=8)))
    assert set(features) == set(lc.Schema.load(out).inputs)
    assert label.shape == (8,)


def test_reading_needs_no_operator_that_loses_the_order_of_rows(tmp_path):
    """DuckDB makes a join of `x IN (many words)`, after which rows come in any order."""
    arguments = write_log(tmp_path, schema_dict(), kind="csv")
    schema, rules = load_rules(arguments["schema_path"])
    files = {
        name: MixedFiles(arguments[name], f"--{name}") for name in ("events", "items", "users")
    }
    plan = make_plan(schema, rules, {name: each.columns for name, each in files.items()})
    group = files["events"].groups[0]
    select = statements.typed_columns(group.scan(), plan.wanted["events"], group.columns)
    plan_text = duckdb.connect().execute(f"EXPLAIN {select}").fetchall()[0][1]
    assert "PROJECTION" in plan_text
    assert "JOIN" not in plan_text
