"""The KuaiVideo recipe on tiny files in the publisher's layout."""

import json
import random

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from recipes import load_script

import loopctr_tf as lc
from tests.prepare.logs import stored_rows

recipe = load_script("kuaivideo")
HEADER = "timestamp,user_id,item_id,is_click,is_like,is_follow,pos_items,neg_items"
VIDEOS = 20


def vector(video):
    return [video + axis / 100 for axis in range(64)]


def csv_row(draw, time):
    pos, neg = ("^".join(str(draw.randrange(8)) for _ in range(n)) for n in (time % 4, time % 3))
    return f"{time},{time % 3},{draw.randrange(10)},{time % 2},0,0,{pos},{neg}"


def write_csv(folder, name, rows, header=HEADER):
    (folder / name).write_text("\n".join([header, *rows]) + "\n")


def write_vectors(folder, ids, names=("key", "value")):
    with h5py.File(folder / recipe.VECTORS, "w") as file:
        order = range(len(ids))[::-1]
        file.create_dataset(names[0], data=np.array(ids)[order])
        file.create_dataset(names[1], data=np.array([vector(video) for video in order]))


@pytest.fixture
def raw(tmp_path):
    """40 training rows of times 0 to 39, 8 test rows; video 19 has a vector and is in no row."""
    folder, draw = tmp_path / "raw", random.Random(1)
    folder.mkdir()
    write_csv(folder, "train.csv", [csv_row(draw, time) for time in range(40)])
    # A video of the test rows alone, one without a vector, an empty history, a quoted cell.
    test = [
        '40,0,15,1,0,0,"1^2^15",',
        "41,1,77,0,0,0,,3",
        *(csv_row(draw, t) for t in range(42, 48)),
    ]
    write_csv(folder, "test.csv", test)
    write_vectors(folder, list(range(VIDEOS)))
    return folder


def prepared(raw, out="out", **settings):
    stats = recipe.prepare(raw, raw.parent / out, **{"min_count": 1, "workers": 1, **settings})
    return raw.parent / out, stats


def test_the_latest_rows_of_train_are_validation(raw):
    out, stats = prepared(raw)
    assert stats["rows"] == {"train": 36, "valid": 4, "test": 8}
    assert stats["protocol"] == "honest"
    assert stats["validation"] == "the most recent 10% of the rows of train.csv by timestamp"
    assert [row["user_id"] for row in stored_rows(out, "valid")] == [["0"], ["1"], ["2"], ["0"]]
    assert json.loads((out / "stats.json").read_text()) == stats
    first, second = stored_rows(out, "test")[:2]
    assert first["is_click"] == [1]
    assert first["item_id"] == first["item_visual"] == ["15"]
    assert first["pos_items"] == first["pos_visual"] == ["1", "2", "15"]
    assert first["neg_items"] == first["neg_visual"] == second["pos_items"] == []
    assert second["neg_items"] == ["3"]
    # Video 15 is in no training row.
    items = set()
    for row in stored_rows(out, "train"):
        items |= {*row["item_id"], *row["pos_items"], *row["neg_items"]}
    assert set(lc.Schema.load(out).table("item").vocabulary) == items
    assert "15" not in items


@pytest.mark.parametrize(
    ("ids", "names"),
    [
        (list(range(VIDEOS)), ("key", "value")),
        ([str(video).encode() for video in range(VIDEOS)], ("the_ids", "emb")),
    ],
)
def test_every_video_has_its_own_vector_in_any_order_of_the_file(raw, ids, names):
    write_vectors(raw, ids, names)
    out, stats = prepared(raw)
    table = lc.Schema.load(out).table("visual")
    assert (table.trainable, table.dim) == (False, 64)
    assert set(table.vocabulary) == {str(video) for video in range(VIDEOS)}
    for value, found in zip(table.vocabulary, table.vectors, strict=True):
        assert found.tolist() == pytest.approx(vector(int(value)))
    assert stats["visual_vectors"] == {"videos": VIDEOS, "width": 64}


def test_bars_validates_on_test(raw):
    out, stats = prepared(raw, protocol="bars")
    assert stats["rows"] == {"train": 40, "valid": 8, "test": 8}
    assert stats["protocol"] == "bars"
    assert stored_rows(out, "valid") == stored_rows(out, "test")


@pytest.mark.parametrize(("protocol", "kept"), [("honest", range(20, 120)), ("bars", range(100))])
def test_a_long_history_is_cut_by_the_protocol(raw, protocol, kept):
    write_csv(raw, "test.csv", [f"41,1,7,0,0,0,{'^'.join(map(str, range(120)))},3"])
    out, _ = prepared(raw, protocol=protocol)
    assert stored_rows(out, "test")[0]["pos_items"] == list(map(str, kept))


def test_the_command(raw):
    arguments = ["--raw", str(raw), "--out", str(raw.parent / "out"), "--workers", "1"]
    result = CliRunner().invoke(recipe.main, [*arguments, "--protocol", "bars"])
    assert result.exit_code == 0
    assert "rows train 40, valid 8, test 8; protocol bars" in result.stdout
    assert "WARNING: 40 rows of train.csv were found" in result.stderr
    again = CliRunner().invoke(recipe.main, arguments)
    assert again.exit_code == 2
    assert again.stderr.count("\n") == 1
    assert again.stderr.startswith("Error: ")
