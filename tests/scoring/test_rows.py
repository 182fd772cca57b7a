"""Files of rows scored into a CSV: every format alike, whole or not at all."""

import json

import numpy as np
import pandas as pd
import pytest

from loopctr_tf.errors import UsageError
from loopctr_tf.scoring import PredictionServer
from loopctr_tf.scoring.rows import score_rows
from tests.scoring import scoring_model


@pytest.fixture
def seven_rows(rows) -> dict:
    """Seven rows, with a column that no signature knows."""
    found = {name: (values * 3)[:7] for name, values in rows.items()}
    return {**found, "price": [1.0, 2.5, -1.0, 0.0, 10.0, -10.0, 0.5], "label": [0, 1] * 3 + [0]}


def write(rows: dict, path):
    frame = pd.DataFrame(rows)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=True)
    return path


@pytest.mark.parametrize(("suffix", "batch_size"), [(".parquet", 3), (".jsonl", 7), (".jsonl", 99)])
def test_rows_are_scored_in_their_order_whatever_the_format(
    server, seven_rows, tmp_path, suffix, batch_size
):
    source = write(seven_rows, tmp_path / f"rows{suffix}")
    out = tmp_path / "scores.csv"
    assert score_rows(source, out, server.target, "m", batch_size=batch_size) == 7
    scores = pd.read_csv(out)
    assert list(scores) == ["row", "probability"]
    assert scores["row"].tolist() == [0, 1, 2, 3, 4, 5, 6]
    expected = scoring_model.probability(seven_rows)
    np.testing.assert_allclose(scores["probability"], expected, rtol=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"rows{suffix}", "scores.csv"]


def test_ids_that_look_like_numbers_stay_text(server, rows, tmp_path):
    source = tmp_path / "rows.jsonl"
    odd = {**rows, "user_id": ["007", "2020-01-01", "1e5"]}
    with open(source, "w") as file:
        for values in zip(*odd.values(), strict=True):
            file.write(json.dumps(dict(zip(odd, values, strict=True))) + "\n")
    score_rows(source, tmp_path / "scores.csv", server.target, "m")
    scores = pd.read_csv(tmp_path / "scores.csv")
    expected = scoring_model.probability({**rows, "user_id": ["unknown"] * 3})
    np.testing.assert_allclose(scores["probability"], expected, rtol=1e-6)


def test_a_label_chooses_the_version(saved, seven_rows, tmp_path):
    for version in (1, 2):
        scoring_model.copy(saved[version], tmp_path / "models" / str(version))
    source, out = write(seven_rows, tmp_path / "rows.parquet"), tmp_path / "scores.csv"
    labels = {"stable": 1, "canary": 2}
    with PredictionServer(
        tmp_path / "models", model_name="m", poll_seconds=0, version_labels=labels
    ) as server:
        for label, bias in (("stable", 0.0), ("canary", 1.0)):
            score_rows(source, out, server.target, "m", version_label=label)
            expected = scoring_model.probability(seven_rows, bias)
            np.testing.assert_allclose(pd.read_csv(out)["probability"], expected, rtol=1e-6)


def refused(rows, out, target, *arguments, **settings) -> str:
    with pytest.raises(UsageError) as error:
        score_rows(rows, out, target, "m", *arguments, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_rows_that_cannot_be_read(tmp_path):
    out, target = tmp_path / "scores.csv", "127.0.0.1:1"
    for name, content, words in (
        ("rows.csv", "a,b\n", "rows.csv' is neither a folder, .parquet nor .jsonl; convert it to"),
        ("rows.parquet", "PAR", "rows.parquet' cannot be read: "),
        ("rows.jsonl", '{"a": ', "rows.jsonl' cannot be read: "),
        ("none.jsonl", "", "none.jsonl' has no rows; nothing to score"),
        ("none", None, "none' does not exist; name the rows to score"),
    ):
        if content is not None:
            (tmp_path / name).write_text(content)
        assert words in refused(tmp_path / name, out, target)
    (tmp_path / "folder").mkdir()
    message = refused(tmp_path / "folder", out, target)
    assert "folder' is not a split of a prepared folder" in message
    assert not out.exists()


def test_signatures_and_columns_that_do_not_fit(server, seven_rows, tmp_path):
    source, out = write(seven_rows, tmp_path / "rows.parquet"), tmp_path / "scores.csv"
    message = refused(source, out, server.target, "loop_9")
    assert message.startswith("signature 'loop_9' is not served; choose cascade, classify, ")
    seven_rows.pop("price")
    source = write(seven_rows, tmp_path / "rows.parquet")
    assert "feature 'price' is missing" in refused(source, out, server.target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.parquet"]


def test_a_request_that_fails_half_way_leaves_what_was_there(server, seven_rows, tmp_path):
    seven_rows["history_length"] = [0, 0, 0, 0, 0, 99, 0]
    source, out = write(seven_rows, tmp_path / "rows.parquet"), tmp_path / "scores.csv"
    out.write_text("probability\n0.5\n")
    message = refused(source, out, server.target, batch_size=2)
    assert message.startswith("INVALID_ARGUMENT from ")
    assert "history_length is beyond the data" in message
    assert out.read_text() == "probability\n0.5\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.parquet", "scores.csv"]


@pytest.mark.parametrize(
    ("out", "problem"),
    [
        ("nowhere/scores.csv", "No such file or directory"),
        ("rows.parquet/scores.csv", "Not a directory"),
        ("folder", "Is a directory"),
    ],
)
def test_places_that_cannot_be_written_are_told_before_the_server_is_asked(
    seven_rows, tmp_path, out, problem
):
    source = write(seven_rows, tmp_path / "rows.parquet")
    (tmp_path / "folder").mkdir()
    message = refused(source, tmp_path / out, "127.0.0.1:1")
    assert message == (
        f"{str(tmp_path / out)!r} cannot be written: {problem}; name a CSV file in a folder that "
        "exists"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "rows.parquet"]


def test_a_server_that_is_not_there(seven_rows, tmp_path):
    source, out = write(seven_rows, tmp_path / "rows.parquet"), tmp_path / "scores.csv"
    message = refused(source, out, "127.0.0.1:1")
    assert message.startswith("UNAVAILABLE from 127.0.0.1:1")
    assert "is the server up, and is 127.0.0.1:1 its gRPC port?" in message
    assert "timeout_s is 0; give seconds above 0" in refused(source, out, "x:1", timeout_s=0)
    assert not out.exists()
