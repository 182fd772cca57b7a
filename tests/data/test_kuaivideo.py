"""The KuaiVideo recipe on tiny files in the publisher's layout."""

import importlib.util
import json
import random
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

import loopctr_tf as lc
from loopctr_tf.errors import UsageError
from tests.prepare.logs import stored_rows

FOLDER = Path(__file__).parents[2] / "data" / "kuaivideo"


def load_script():
    """``prepare.py`` under a name of its own; its folder is importable, as when it is run."""
    sys.path.insert(0, str(FOLDER))
    spec = importlib.util.spec_from_file_location("kuaivideo_prepare", FOLDER / "prepare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


recipe = load_script()
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
    said = []
    settings = {"min_count": 1, "workers": 1, "say": said.append, **settings}
    stats = recipe.prepare(raw, raw.parent / out, **settings)
    return raw.parent / out, stats, said


def test_the_latest_rows_of_train_are_validation(raw):
    out, stats, said = prepared(raw)
    assert stats["rows"] == {"train": 36, "valid": 4, "test": 8}
    assert stats["protocol"] == "honest"
    assert stats["validation"] == "the most recent 10% of the rows of train.csv by timestamp"
    assert [row["user_id"] for row in stored_rows(out, "valid")] == [["0"], ["1"], ["2"], ["0"]]
    # Tiny files are not the publisher's, and that is said.
    assert stats["row_counts"] == {
        "train": {"found": 40, "published": 10_931_092},
        "test": {"found": 8, "published": 2_730_291},
    }
    assert [line.split(";")[0] for line in said] == [
        f"WARNING: '{raw / 'train.csv'}' gave 40 rows and its publisher counts 10,931,092",
        f"WARNING: '{raw / 'test.csv'}' gave 8 rows and its publisher counts 2,730,291",
    ]
    assert json.loads((out / "stats.json").read_text()) == stats


def test_ids_and_looks_are_features_of_the_video_and_of_the_histories(raw):
    out, _, _ = prepared(raw)
    first, second = stored_rows(out, "test")[:2]
    assert first["is_click"] == [1]
    assert first["item_id"] == first["item_visual"] == ["15"]
    assert first["pos_items"] == first["pos_visual"] == ["1", "2", "15"]
    assert first["neg_items"] == first["neg_visual"] == []
    assert second["pos_items"] == []
    assert second["neg_items"] == ["3"]


@pytest.mark.parametrize(
    ("ids", "names"),
    [
        (list(range(VIDEOS)), ("key", "value")),
        ([str(video).encode() for video in range(VIDEOS)], ("the_ids", "emb")),
    ],
)
def test_every_video_has_its_own_vector_in_any_order_of_the_file(raw, ids, names):
    write_vectors(raw, ids, names)
    out, stats, _ = prepared(raw)
    table = lc.Schema.load(out).table("visual")
    assert (table.trainable, table.dim) == (False, 64)
    assert set(table.vocabulary) == {str(video) for video in range(VIDEOS)}
    for value, found in zip(table.vocabulary, table.vectors, strict=True):
        assert found.tolist() == pytest.approx(vector(int(value)))
    assert stats["visual_vectors"] == {"videos": VIDEOS, "width": 64}


def test_vocabularies_of_ids_are_those_of_training_rows(raw):
    out, _, _ = prepared(raw)
    items = set()
    for row in stored_rows(out, "train"):
        items |= {*row["item_id"], *row["pos_items"], *row["neg_items"]}
    assert set(lc.Schema.load(out).table("item").vocabulary) == items
    assert "15" not in items
    out, _, _ = prepared(raw, "rare", min_count=10)
    assert 0 < len(lc.Schema.load(out).table("item").vocabulary) < len(items)
    assert set(lc.Schema.load(out).table("user").vocabulary) == {"0", "1", "2"}


def test_a_model_starts_from_the_vectors(raw):
    out, _, _ = prepared(raw)
    schema = lc.Schema.load(out)
    model = lc.LoopCTR(schema, dim=8, heads=2, ffn_dim=8, loops=1)
    (rows,) = model.encoder.embeddings["visual"].get_weights()
    assert rows[schema.table("visual").vocabulary.index("7")].tolist() == pytest.approx(vector(7))
    features, _ = next(iter(lc.read_dataset(out / "test", batch_size=8)))
    assert np.isfinite(model.score(features)).all()


def test_bars_validates_on_test(raw):
    out, stats, _ = prepared(raw, protocol="bars")
    assert stats["rows"] == {"train": 40, "valid": 8, "test": 8}
    assert stats["protocol"] == "bars"
    assert stored_rows(out, "valid") == stored_rows(out, "test")


@pytest.mark.parametrize(("protocol", "kept"), [("honest", range(20, 120)), ("bars", range(100))])
def test_a_long_history_is_cut_by_the_protocol(raw, protocol, kept):
    write_csv(raw, "test.csv", [f"41,1,7,0,0,0,{'^'.join(map(str, range(120)))},3"])
    out, _, _ = prepared(raw, protocol=protocol)
    assert stored_rows(out, "test")[0]["pos_items"] == list(map(str, kept))


def test_without_times_the_end_of_the_file_is_validation(raw):
    rows = [f"{row},{row % 4},{row % 2},1^2," for row in range(20)]
    write_csv(raw, "train.csv", rows, "user_id,item_id,is_click,pos_items,neg_items")
    write_csv(raw, "test.csv", rows[:3], "user_id,item_id,is_click,pos_items,neg_items")
    out, stats, _ = prepared(raw)
    assert [row["user_id"] for row in stored_rows(out, "valid")] == [["18"], ["19"]]
    assert "in the order of the file" in stats["validation"]


@pytest.mark.parametrize(
    ("datasets", "expected"),
    [
        ({"key": np.arange(3)}, r"holds key \[3\]; it should hold ids \[n\] and vectors"),
        ({"key": np.arange(3), "value": np.ones((2, 64))}, r"key \[3\], value \[2, 64\]"),
        ({"key": np.ones(3), "value": np.ones((3, 64))}, "the ids are of type float64"),
        ({}, "holds nothing"),
    ],
)
def test_a_strange_file_of_vectors_is_told(raw, datasets, expected):
    with h5py.File(raw / recipe.VECTORS, "w") as file:
        for name, values in datasets.items():
            file.create_dataset(name, data=values)
    with pytest.raises(UsageError, match=expected):
        prepared(raw)
    assert not (raw.parent / "out").exists()


def test_the_command(raw):
    arguments = ["--raw", str(raw), "--out", str(raw.parent / "out"), "--workers", "1"]
    result = CliRunner().invoke(recipe.main, [*arguments, "--protocol", "bars"])
    assert result.exit_code == 0
    assert "protocol bars, rows train 40, valid 8, test 8" in result.stdout
    assert "WARNING" in result.stderr
    again = CliRunner().invoke(recipe.main, arguments)
    assert again.exit_code == 2
    assert again.stderr.count("\n") == 1
    assert again.stderr.startswith("Error: ")


def test_bad_rows_are_errors_or_counted(raw):
    with (raw / "train.csv").open("a") as file:
        file.write("40,1,3,yes,0,0,1,2\n")
    with pytest.raises(UsageError, match=r"train.csv', row 41 .*'is_click'.*'yes'"):
        prepared(raw)
    out, stats, _ = prepared(raw, skip_bad=True)
    assert stats["rejected"] == {"label other than 0 and 1": 1}
    assert "yes" in (out / "rejected.csv").read_text()
