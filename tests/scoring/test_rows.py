"""Files of rows scored into a CSV: every format alike, whole or not at all."""

import gzip
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
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
    elif path.suffix in (".csv", ".tsv"):
        lists = frame.select_dtypes(object).columns.intersection(["history"])
        frame[lists] = frame[lists].map(json.dumps)
        frame.to_csv(path, index=False, sep="," if path.suffix == ".csv" else "\t")
    else:
        frame.to_json(path, orient="records", lines=True)
    return path


@pytest.mark.parametrize(
    ("suffix", "batch_size"),
    [(".parquet", 3), (".jsonl", 7), (".jsonl", 99), (".csv", 3), (".tsv", 7)],
)
def test_rows_are_scored_in_their_order_whatever_the_format(
    server, seven_rows, tmp_path, suffix, batch_size
):
    source = write(seven_rows, tmp_path / f"rows{suffix}")
    out = tmp_path / "scores.csv"
    assert score_rows(source, out, server.target, "m", batch_size=batch_size) == 7
    scores = pd.read_csv(out)
    assert list(scores) == ["row", "user_id", "item_id", "probability"]
    assert scores["row"].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert scores["item_id"].tolist() == seven_rows["item_id"]
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
            score_rows(source, out, server.target, "m", version_label=label, overwrite=True)
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
        (
            "rows.txt",
            "a,b\n",
            "rows.txt' is neither a folder, .parquet, .jsonl, .csv nor .tsv; convert",
        ),
        ("rows.csv", "a,b\n", "rows.csv' has no rows; nothing to score"),
        ("none.csv", "", "none.csv' has no rows; nothing to score"),
        ("odd.csv", "a,b\n1,2,3\n", "Expected 2 columns, got 3: 1,2,3"),
        ("rows.csv.gz", "a,b\n", "rows.csv.gz' cannot be read: "),
        ("rows.jsonl.gz", "{}", "rows.jsonl.gz' cannot be read: "),
        ("twice.csv", "a,b,a\n1,2,3\n", "twice.csv' has two columns 'a'; keep one, or rename it"),
        ("list.jsonl", "[1]\n", "list.jsonl' cannot be read: line 1 is no JSON object"),
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
    message = refused(source, out, server.target, batch_size=2, overwrite=True)
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


def digits(source, tmp_path, server, **settings) -> list[float]:
    """The answers of signature ``numbered``: sums of the last three digits of a row's ids."""
    out = tmp_path / "scores.csv"
    score_rows(source, out, server.target, "m", "numbered", overwrite=True, **settings)
    return pd.read_csv(out)["probability"].tolist()


BIG = 2**53 + 1  # 9007199254740993, which no double holds


def test_one_missing_id_makes_doubles_of_none_in_any_format(server, tmp_path):
    ids, lists = [BIG, None, BIG + 2], [[BIG, None], [1], None]
    table = {"item_id": pa.array(ids), "hist": pa.array(lists)}
    pa.parquet.write_table(pa.table(table), tmp_path / "rows.parquet")
    lines = [json.dumps({"item_id": i, "hist": h}) for i, h in zip(ids, lists, strict=True)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n\n")
    with gzip.open(tmp_path / "rows.jsonl.gz", "wt") as file:
        file.write("\n".join(lines))
    text = f"item_id,hist\n{BIG},{BIG}|NA\nnull,1\n{BIG + 2},\n"
    (tmp_path / "rows.csv").write_text(text)
    with gzip.open(tmp_path / "rows.tsv.gz", "wt") as file:
        file.write(text.replace(",", "\t"))
    # a missing id is -1, whose last digits are 999
    expected = [993 + 993 + 999, 999 + 1, 995]
    for name in ("rows.parquet", "rows.jsonl", "rows.jsonl.gz", "rows.csv", "rows.tsv.gz"):
        separators = {"hist": "|"} if "sv" in name else None
        for batch_size in (2, 512):
            found = digits(
                *(tmp_path / name, tmp_path, server), separators=separators, batch_size=batch_size
            )
            assert found == expected, name
    shown = pd.read_csv(tmp_path / "scores.csv", dtype=str, keep_default_na=False)
    assert shown["item_id"].tolist() == [str(BIG), "", str(BIG + 2)]


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (
            [1.0, float(BIG)],
            "column 'item_id' holds 9007199254740992.0 in row 1, beyond 2^53 and not",
        ),
        ([1.0, 2.5], "column 'item_id' holds 2.5 in row 1, not a whole number"),
        ([1, 2**64 - 1], "column 'item_id' holds 18446744073709551615 in row 1, beyond int64"),
        (["1", "x"], "column 'item_id' holds 'x' in row 1, not a whole number"),
    ],
)
def test_ids_are_never_rounded(server, tmp_path, ids, words):
    kind = pa.uint64() if ids[1] == 2**64 - 1 else None
    table = {"item_id": pa.array(ids, kind), "hist": pa.array([[1], [2]])}
    pa.parquet.write_table(pa.table(table), tmp_path / "rows.parquet")
    lines = [json.dumps({"item_id": each, "hist": [1]}) for each in ids]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    for name in ("rows.parquet", "rows.jsonl"):
        for batch_size in (1, 512):
            message = refused(
                *(tmp_path / name, tmp_path / "scores.csv", server.target, "numbered", batch_size)
            )
            assert message.startswith(words), name
    assert not (tmp_path / "scores.csv").exists()


def test_whole_doubles_and_lists_of_them(server, tmp_path):
    table = {"item_id": pa.array([117.0, None]), "hist": pa.array([[1.0, 2.0], [3.0]])}
    pa.parquet.write_table(pa.table(table), tmp_path / "rows.parquet")
    assert digits(tmp_path / "rows.parquet", tmp_path, server) == [120, 999 + 3]
    table["hist"] = pa.array([[1.0], [3.0, float(BIG)]])
    pa.parquet.write_table(pa.table(table), tmp_path / "rows.parquet")
    message = refused(tmp_path / "rows.parquet", tmp_path / "s.csv", server.target, "numbered")
    assert message.startswith("column 'hist' holds 9007199254740992.0 in row 1, beyond 2^53")


def test_text_is_spelt_as_prepare_spells_it(server, rows, tmp_path):
    spelt = {**rows, "user_id": [" a", "NA", "b "], "history": [["a", "b", "\\N"], [], ["c"] * 3]}
    expected = scoring_model.probability({**rows, "user_id": ["a", "", "b"]})
    for suffix in (".parquet", ".jsonl", ".csv"):
        source, out = write(spelt, tmp_path / f"rows{suffix}"), tmp_path / "scores.csv"
        score_rows(source, out, server.target, "m", overwrite=True)
        scores = pd.read_csv(out)
        np.testing.assert_allclose(scores["probability"], expected, rtol=1e-6)
        assert scores["user_id"].tolist()[::2] == ["a", "b"]


def test_lists_in_cells_of_text(server, tmp_path):
    source = tmp_path / "rows.csv"
    source.write_text("item_id;hist\n1;[2, 3]\n1;['4']\n1;\n1; [] \n1;(5,)\n")
    assert digits(source, tmp_path, server, delimiter=";") == [6, 5, 1, 1, 6]
    source.write_text("item_id,hist\n1,2 3\n1,7\n")
    assert digits(source, tmp_path, server, separators={"hist": " "}) == [6, 8]
    out = tmp_path / "s.csv"
    assert refused(source, out, server.target, "numbered") == (
        "column 'hist' holds '2 3' in row 0, where a list belongs; give --separator hist=CHARACTER, or "
        "write [1, 2]"
    )
    message = refused(source, out, server.target, "numbered", separators={"history": "|"})
    assert "--separator names column 'history', which" in message
    assert message.endswith("lacks; it has item_id, hist")
    pa.parquet.write_table(pa.table({"item_id": [[1]], "hist": [2]}), tmp_path / "r.parquet")
    message = refused(tmp_path / "r.parquet", out, server.target, "numbered")
    assert message == "column 'hist' is int64, where lists belong; the model takes int64 [?,?]"
    (tmp_path / "r.jsonl").write_text('{"item_id": [1], "hist": [2]}')
    message = refused(tmp_path / "r.jsonl", out, server.target, "numbered")
    assert message.startswith("column 'item_id' holds [1] in row 0, where one value belongs")


def test_a_quote_left_open_loses_no_rows_in_silence(server, tmp_path):
    source, out = tmp_path / "rows.csv", tmp_path / "s.csv"
    source.write_text('item_id,title,hist\n1,a,[]\n2,"lone,[]\n3,c,[]\n4,5" disc,[]\n')
    message = refused(source, out, server.target, "numbered")
    assert "column 'title' holds 'lone,[]\\n3,c,[]\\n4,5 disc' in row 1" in message
    assert digits(source, tmp_path, server, quoting=False) == [1, 2, 3, 4]


def test_the_ids_that_the_answer_repeats(server, seven_rows, tmp_path):
    seven_rows["odd"] = ["1,5", None, 'a"b', *"defg"]
    source, out = write(seven_rows, tmp_path / "rows.parquet"), tmp_path / "scores.csv"
    score_rows(source, out, server.target, "m", ids=["odd", "label"], batch_size=2)
    scores = pd.read_csv(out)
    assert list(scores) == ["row", "odd", "label", "probability"]
    assert scores["odd"].fillna("").tolist() == ["1,5", "", 'a"b', *"defg"]
    out.unlink()
    message = refused(source, out, server.target, ids=["other"])
    assert "--ids names column 'other', which" in message
    message = refused(source, out, server.target, ids=["history"])
    assert message.startswith("column 'history' holds ['a', 'b'] in row 0, where one value belongs")


def test_an_answer_that_exists_is_replaced_only_when_asked(server, seven_rows, tmp_path):
    source, out = write(seven_rows, tmp_path / "rows.parquet"), tmp_path / "scores.csv"
    out.write_text("mine")
    assert refused(source, out, server.target) == (
        f"{str(out)!r} exists; name another file, or give --overwrite"
    )
    assert out.read_text() == "mine"
    assert score_rows(source, out, server.target, "m", overwrite=True) == 7
    assert len(pd.read_csv(out)) == 7
