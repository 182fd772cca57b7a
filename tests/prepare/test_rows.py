import math
from collections import Counter

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import loopctr_tf as lc
from loopctr_tf.errors import UsageError
from loopctr_tf.features.frame import frame_columns
from loopctr_tf.features.prepared import SPLITS, PreparedWriter
from loopctr_tf.prepare.rows import prepare_rows, row_tables
from loopctr_tf.prepare.rule_parts import TableRule
from tests.factories import HISTORY, LONG, random_frame, schema_dict
from tests.prepare.logs import stored_rows

ROWS = {"train": 90, "valid": 20, "test": 31}


def draft() -> lc.Schema:
    """The schema of the factories before it is fitted."""
    values = schema_dict()
    for table in values["tables"].values():
        if "vocabulary" in table:
            table["vocabulary"] = []
    return lc.Schema.from_dict(values)


class Frames:
    """Random rows in batches of any size."""

    def __init__(self, batch_rows=17, change=None):
        self.frames = {
            split: random_frame(rows, seed) for seed, (split, rows) in enumerate(ROWS.items())
        }
        self.frames["train"].loc[3, "age"] = None
        if change is not None:
            change(self.frames)
        self._batch_rows = batch_rows

    def batches(self, split):
        table = pa.Table.from_pandas(self.frames[split], preserve_index=False)
        for start in range(0, len(table), self._batch_rows):
            yield table.slice(start, self._batch_rows)


def folder_bytes(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_rows_are_those_of_the_frame_and_in_its_order(tmp_path):
    rows = Frames()
    stats = prepare_rows(
        draft(), rows, tmp_path / "out", workers=1, shard_rows=25, facts={"by": "me"}
    )
    fitted = lc.Schema.load(tmp_path / "out")
    (tmp_path / "plain").mkdir()
    writer = PreparedWriter(tmp_path / "plain", fitted)
    for split in SPLITS:
        writer.write(split, rows.frames[split])
    writer.finish()
    for split in SPLITS:
        found = stored_rows(tmp_path / "out", split)
        assert found == stored_rows(tmp_path / "plain", split)
        assert len(found) == stats["rows"][split] == ROWS[split]
        assert stats["clicks"][split] == rows.frames[split]["label"].sum()
    assert [shard["rows"] for shard in stats["shards"]["train"]] == [25, 25, 25, 15]
    assert stats["by"] == "me"
    lengths = np.concatenate([frame["history_movie"].map(len) for frame in rows.frames.values()])
    assert stats["histories"]["history"] == {
        "mean_events": pytest.approx(np.minimum(lengths, HISTORY).mean()),
        "rows_without": (lengths == 0).sum(),
    }


def test_the_schema_is_fitted_to_training_rows_as_they_are_written(tmp_path):
    """Values count each time they are in a list, after it was cut to its most recent events."""
    rows = Frames()
    rules = {"movie": {"min_count": 55}, "genre": TableRule(max_size=2)}
    prepare_rows(
        draft(),
        rows,
        tmp_path / "out",
        tables=rules,
        fixed=["long_rating"],
        workers=1,
        shard_rows=25,
    )
    fitted = lc.Schema.load(tmp_path / "out")
    movies, genres, gaps, ages = Counter(), Counter(), [], []
    for row in rows.frames["train"].to_dict("records"):
        movies.update(
            [row["movie_id"], *row["history_movie"][-HISTORY:], *row["long_movie"][-LONG:]]
        )
        genres.update(row["genres"])
        genres.update(name for names in row["history_genres"][-HISTORY:] for name in names)
        gaps += [math.log1p(gap) for gap in row["history_gap"][-HISTORY:]]
        ages += [] if math.isnan(row["age"]) else [row["age"]]
    kept = [name for name in movies if movies[name] >= 55]
    assert list(fitted.table("movie").vocabulary) == sorted(kept, key=lambda n: (-movies[n], n))
    assert 0 < len(kept) < len(movies)
    assert list(fitted.table("genre").vocabulary) == [n for n, _ in genres.most_common(2)]
    by_name = {feature.name: feature for feature in fitted.all_fields()}
    assert by_name["history_gap"].mean == pytest.approx(np.mean(gaps))
    assert by_name["history_gap"].std == pytest.approx(np.std(gaps))
    assert by_name["age"].mean == by_name["age"].default == pytest.approx(np.mean(ages))
    assert len(ages) == ROWS["train"] - 1
    before = {feature.name: feature for feature in draft().all_fields()}
    assert by_name["long_rating"] == before["long_rating"]


def test_the_bytes_depend_neither_on_workers_nor_on_batches(tmp_path):
    folders = []
    for number, (workers, batch_rows) in enumerate([(1, 17), (2, 17), (2, 64)]):
        out = tmp_path / str(number)
        prepare_rows(draft(), Frames(batch_rows), out, workers=workers, shard_rows=20)
        folders.append(folder_bytes(out))
    assert folders[0] == folders[1] == folders[2]


def test_large_rows_make_small_tables(monkeypatch):
    """Rows that are together more than the bytes allowed are parted; none is lost."""
    monkeypatch.setattr("loopctr_tf.prepare.rows._BYTES", 4000)
    rows = Frames(batch_rows=40)
    found = list(row_tables(rows, "train", 30))
    assert len(found) > 4
    assert all(len(table) == 1 or table.nbytes < 8000 for _, table in found)
    assert [first for first, _ in found] == np.cumsum(
        [1, *(len(t) for _, t in found[:-1])]
    ).tolist()
    together = pa.concat_tables([table for _, table in found])
    assert together["zip_code"].to_pylist() == rows.frames["train"]["zip_code"].tolist()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_row_is_named_by_split_and_number(tmp_path, workers):
    def spoil(frames):
        frames["test"].loc[29, "label"] = 7

    with pytest.raises(
        UsageError, match=r"^test: label 'label' is 7 in row 30; labels must be 0 or 1"
    ):
        prepare_rows(
            draft(), Frames(change=spoil), tmp_path / "out", workers=workers, shard_rows=20
        )
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_fitted_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"^tables: 'zip' is not a table to be fitted"):
        prepare_rows(draft(), Frames(), tmp_path / "out", tables={"zip": {}}, workers=1)
    with pytest.raises(UsageError, match=r"^fixed: 'movie_id' is not a numeric feature or field"):
        prepare_rows(draft(), Frames(), tmp_path / "out", fixed=["movie_id"], workers=1)


def test_no_training_rows_are_refused(tmp_path):
    def empty(frames):
        frames["train"] = frames["train"].iloc[:0]

    with pytest.raises(UsageError, match="train has no rows; give at least one"):
        prepare_rows(draft(), Frames(change=empty), tmp_path / "out", workers=1)


def test_frames_of_arrow_are_what_frames_of_pandas_are():
    """`batches` are Arrow: their way through `frame_columns` changes nothing."""
    frame = random_frame(9)
    arrow = pa.Table.from_pandas(frame).to_pandas(types_mapper=pd.ArrowDtype)
    schema = lc.Schema.from_dict(schema_dict())
    one, two = frame_columns(frame, schema), frame_columns(arrow, schema)
    for name, column in one.items():
        np.testing.assert_array_equal(column.values, two[name].values)
