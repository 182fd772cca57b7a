"""Pretrained vectors in the order of a fitted vocabulary, and rejects of rows with histories."""

import numpy as np
import pyarrow as pa
import pytest

import loopctr_tf as lc
from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.prepare import prepare_events
from loopctr_tf.prepare.rejects import BadRow, Problem, Rejects
from loopctr_tf.prepare.rows import prepare_rows
from loopctr_tf.prepare.vectors import Pretrained

IDS = ["m9", "m1", "m4", "m2"]
ARRAY = np.array([[9.0, 90.0], [1.0, 10.0], [4.0, 40.0], [2.0, 20.0]])


def schema(vocabulary=(), dtype="string") -> lc.Schema:
    return lc.Schema.from_dict(
        {
            "label": "y",
            "group": "user",
            "tables": {
                "movie": {"vocabulary": list(vocabulary), "dtype": dtype, "trainable": False},
                "place": {"hash_buckets": 3},
            },
            "features": [
                {"name": "movie", "type": "categorical", "side": "item", "table": "movie"},
                {"name": "place", "type": "categorical", "side": "user", "table": "place"},
            ],
            "sequences": [
                {
                    "name": "seen",
                    "max_length": 5,
                    "fields": [{"name": "seen_movie", "type": "categorical", "table": "movie"}],
                }
            ],
        }
    )


class Rows:
    """Training rows in which m2 is there three times, m1 twice, m3 and m4 once."""

    def batches(self, split):
        yield pa.table(
            {
                "y": [1, 0],
                "user": ["a", "b"],
                "movie": ["m1", "m2"],
                "place": ["x", "y"],
                "seen_movie": [["m2", "m3"], ["m2", "m1", "m4"]],
            }
        )


def test_rows_get_vectors_in_the_order_of_their_vocabulary(tmp_path):
    vectors = {"movie": (IDS, ARRAY)}
    stats = prepare_rows(schema(), Rows(), tmp_path / "out", vectors=vectors, workers=1)
    table = lc.Schema.load(tmp_path / "out").table("movie")
    # m3 has no vector, and m9 is in no training row.
    assert table.vocabulary == ("m2", "m1", "m4")
    assert table.vectors.tolist() == [[2, 20], [1, 10], [4, 40]]
    assert (table.dim, table.trainable) == (2, False)
    assert stats["vectors"] == {"movie": {"values": 3, "left_out": 1}}


def test_events_get_vectors_too(tmp_path):
    (tmp_path / "schema.yaml").write_text(
        """
label: y
group: user
tables: {movie: {vocabulary: []}}
features: [{name: movie, type: categorical, side: item, table: movie}]
sequences: [{name: seen, max_length: 5,
  fields: [{name: seen_movie, type: categorical, table: movie}]}]
build:
  user: user
  time: time
  sequences: {seen: {fields: {seen_movie: movie}}}
  split: {by: last, valid: 1, test: 1}
"""
    )
    lines = ["user,time,movie,y", "a,1,m4,1", "a,2,m4,0", "a,3,m2,1", "a,4,m3,1", "a,5,m1,1"]
    (tmp_path / "events.csv").write_text("\n".join([*lines, "a,6,m1,1\n"]))
    stats = prepare_events(
        tmp_path / "schema.yaml",
        tmp_path / "events.csv",
        tmp_path / "out",
        vectors={"movie": (IDS, ARRAY)},
        workers=1,
    )
    table = lc.Schema.load(tmp_path / "out").table("movie")
    assert table.vocabulary == ("m4", "m2")
    assert table.vectors.tolist() == [[4, 40], [2, 20]]
    assert stats["vectors"] == {"movie": {"values": 2, "left_out": 1}}


def test_whole_numbers_have_vectors(tmp_path):
    draft = schema(dtype="int64")
    pretrained = Pretrained(draft, {"movie": ([7, 5], np.eye(2))})
    tables = [draft.tables[0].replace(vocabulary=(5, 6)), draft.tables[1]]
    table = pretrained.into(draft.replace(tables=tables)).table("movie")
    assert table.vocabulary == (5,)
    assert table.vectors.tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("vectors", "expected"),
    [
        (
            {"film": (IDS, ARRAY)},
            "vectors of table 'film' need a table with a vocabulary; these .*",
        ),
        ({"place": (IDS, ARRAY)}, "vectors of table 'place' need a table .* these are movie"),
        (
            {"movie": ([*IDS[:3], "m9"], ARRAY)},
            ".*'movie': repeated value; keep one row .*",
        ),
        ({"movie": ([1, 2, 3, 4], ARRAY)}, ".*'movie': the values are not string .*"),
        (
            {"movie": (IDS[:3], ARRAY)},
            r".*'movie' have the shape \[4, 2\]; give one row for .* 3 .*",
        ),
    ],
)
def test_wrong_vectors_are_told_before_anything_is_read(vectors, expected, tmp_path):
    with pytest.raises(UsageError, match=expected):
        prepare_rows(schema(), None, tmp_path / "out", vectors=vectors)
    assert not (tmp_path / "out").exists()


def test_rejects_of_rows_move_into_the_folder(tmp_path):
    rejects = Rejects(tmp_path / "bad.csv")

    class WithBad(Rows):
        def batches(self, split):
            if split == "valid":
                rejects.add("valid.csv", BadRow(3, "y", Problem("strange", "mend it"), "?"))
            return super().batches(split)

    stats = prepare_rows(schema(), WithBad(), tmp_path / "out", rejects=rejects, workers=1)
    assert stats["rejected"] == {"strange": 1}
    assert "valid.csv,3,y,strange,?" in (tmp_path / "out" / "rejected.csv").read_text()
    assert not (tmp_path / "bad.csv").exists()


def test_without_bad_rows_there_is_no_file_of_them(tmp_path):
    rejects = Rejects(tmp_path / "bad.csv")
    stats = prepare_rows(schema(), Rows(), tmp_path / "out", rejects=rejects, workers=1)
    assert stats["rejected"] == {}
    assert not (tmp_path / "out" / "rejected.csv").exists()
