"""The Amazon Electronics recipe: the publisher's reviews, and BARS's rows under both protocols."""

import csv
import json
import random
import subprocess
import sys

import pytest
from amazon_files import REVIEWS, insert_line, write_json
from recipes import DATA, load_script, read_rows

from loopctr_tf.errors import UsageError
from loopctr_tf.features.prepared import SPLITS

recipe = load_script("amazon_electronics")

COLUMNS = ("label", "user_id", "item_id", "cate_id", "item_history", "cate_history")
CATES = {item: str(900 + item % 3) for item in range(2000)}


def x1_rows(events):
    """The rows of a user's events as x1 has them: event k >= 1 with all before it, and a negative."""
    train, test = [], []
    for user, items in events.items():
        for k in range(1, len(items)):
            history = items[:k]
            lists = ("^".join(map(str, history)), "^".join(CATES[item] for item in history))
            pair = [
                (label, user, item, CATES[item], *lists) for label, item in ((1, items[k]), (0, 7))
            ]
            (test if k == len(items) - 1 else train).extend(pair)
    random.Random(0).shuffle(train)
    return train, test


# u1's training events are 11, 12 and 13 (histories of 1, 2 and 3); u2's single one is 21.
EVENTS = {"1": [10, 11, 12, 13, 14], "2": [20, 21, 22]}


def write_x1(folder, train, test):
    folder.mkdir()
    for name, rows in (("train", train), ("test", test)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *rows])
    return folder


@pytest.fixture(scope="module")
def x1(tmp_path_factory):
    return write_x1(tmp_path_factory.mktemp("x1") / "raw", *x1_rows(EVENTS))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("json")
    recipe.prepare(write_json(folder / "raw"), folder / "out", workers=1)
    return folder / "out"


def triples(folder, split):
    """(user, item, label) of all rows, sorted."""
    return sorted(
        (*r["user_id"], *r["item_id"], int(r["label"][0])) for r in read_rows(folder, split)
    )


def test_honest_x1_validates_on_each_users_last_training_event(x1, tmp_path):
    stats = recipe.prepare(x1, tmp_path / "out", workers=1)
    assert triples(tmp_path / "out", "valid") == [("1", "13", 1), ("1", "7", 0)]
    # User 2 has no other event left to train on.
    assert triples(tmp_path / "out", "train") == [
        ("1", "11", 1),
        ("1", "12", 1),
        ("1", "7", 0),
        ("1", "7", 0),
        ("2", "21", 1),
        ("2", "7", 0),
    ]
    expected = [("1", "14", 1), ("1", "7", 0), ("2", "22", 1), ("2", "7", 0)]
    assert triples(tmp_path / "out", "test") == expected
    assert (stats["protocol"], stats["source"]) == ("honest", "BARS AmazonElectronics_x1")
    assert stats["rows"] == {"train": 6, "valid": 2, "test": 4}


def test_bars_x1_validates_on_test(x1, tmp_path):
    stats = recipe.prepare(x1, tmp_path / "out", "bars", workers=1)
    assert stats["rows"] == {"train": 8, "valid": 4, "test": 4}
    assert read_rows(tmp_path / "out", "valid") == read_rows(tmp_path / "out", "test")
    assert stats["protocol"] == "bars"
    assert "selecting on test" in stats["split"]
    assert json.loads((tmp_path / "out" / "stats.json").read_text()) == stats


@pytest.mark.parametrize(("protocol", "kept"), [("honest", slice(3, None)), ("bars", slice(100))])
def test_x1_histories_keep_the_end_or_the_beginning(protocol, kept, tmp_path):
    items = list(range(1000, 1104))  # The last one has 103 before it.
    raw = write_x1(tmp_path / "raw", *x1_rows({"1": items}))
    stats = recipe.prepare(raw, tmp_path / "out", protocol, workers=1)
    row = read_rows(tmp_path / "out", "test")[0]
    assert row["item_history"] == [str(item) for item in items[:-1][kept]]
    assert row["cate_history"] == [CATES[item] for item in items[:-1][kept]]
    assert stats["history"] == f"the {'first' if protocol == 'bars' else 'most recent'} 100 events"


def test_reviews_are_split_by_time_per_user(prepared):
    positives = {
        split: [(u, i) for u, i, label in triples(prepared, split) if label] for split in SPLITS
    }
    # U3 has two events and stays in train; of U1's two events of day 2, B is first in the file.
    assert positives == {
        "train": [("U1", "A"), ("U1", "B"), ("U1", "C"), ("U2", "C"), ("U3", "G"), ("U3", "H")],
        "valid": [("U1", "D"), ("U2", "E")],
        "test": [("U1", "E"), ("U2", "F")],
    }


def test_reviews_histories_are_strictly_earlier(prepared):
    rows = {
        (*r["user_id"], *r["item_id"]): r
        for split in SPLITS
        for r in read_rows(prepared, split)
        if r["label"] == [1]
    }
    assert rows["U1", "A"]["item_history"] == []
    assert rows["U1", "B"]["item_history"] == rows["U1", "C"]["item_history"] == ["A"]
    assert rows["U1", "E"]["item_history"] == ["A", "B", "C", "D"]
    # The last name of the last path, as DIN takes it.
    assert rows["U1", "E"]["cate_history"] == ["Film", 'Wire 5"', "Film", "Top"]
    assert rows["U1", "A"]["cate_id"] == ["Film"]
    assert rows["U2", "F"]["cate_id"] == ["Cameras"]
    # E has none in the metadata, G an empty list, and H no line.
    assert [rows[k]["cate_id"] for k in (("U1", "E"), ("U3", "G"), ("U3", "H"))] == [[""]] * 3


def test_a_review_that_comes_twice_is_named_in_the_publishers_file(tmp_path):
    raw = write_json(tmp_path / "raw", reviews=[*REVIEWS, REVIEWS[2]])
    message = r"raw/reviews_Electronics_5\.json\.gz', row 11: duplicate event"
    with pytest.raises(UsageError, match=message):
        recipe.prepare(raw, tmp_path / "out")
    stats = recipe.prepare(raw, tmp_path / "out", skip_bad=True, workers=1)
    assert stats["rejected"] == {"duplicate event": 1}
    assert stats["events"]["used"] == 10
    assert "raw/reviews_Electronics_5.json.gz,11" in (tmp_path / "out/rejected.csv").read_text()


def test_bad_lines_are_left_out_and_counted(prepared, tmp_path):
    raw = write_json(tmp_path / "raw")
    bad = (
        b"print('run')",
        b"\0",
        b"[1, 2]",
        b'{"asin": "A", "unixReviewTime": 1, "reviewerID": 9}',
    )
    for line in bad:
        insert_line(raw / "reviews_Electronics_5.json.gz", line, at=4)
    with pytest.raises(UsageError, match=r"_5\.json\.gz', row 4, line 4.*'reviewerID': no text"):
        recipe.prepare(raw, tmp_path / "out")
    stats = recipe.prepare(raw, tmp_path / "out", skip_bad=True, workers=1)
    assert stats["rejected_lines"] == {
        "neither a JSON object nor a Python dictionary": 3,
        "no text": 1,
    }
    for split in SPLITS:
        assert read_rows(tmp_path / "out", split) == read_rows(prepared, split)


def test_the_bars_protocol_is_refused_for_reviews(tmp_path):
    raw = write_json(tmp_path / "raw")
    with pytest.raises(UsageError, match="or take protocol honest"):
        recipe.prepare(raw, tmp_path / "out", "bars")
    assert not (tmp_path / "out").exists()


def test_command_line_from_another_folder(x1, tmp_path):
    script = DATA / "amazon_electronics" / "prepare.py"
    command = [sys.executable, script, "--raw", x1, "--out", "out", "--protocol", "bars"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "out: rows train 8, valid 4, test 4; protocol bars\n"
    assert "WARNING: 8 rows of train.csv were found" in result.stderr
