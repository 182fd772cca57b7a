import numpy as np
import pandas as pd
import pytest

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.loading import load_table
from loopctr_tf.prepare.rejects import Problem, Rejects
from loopctr_tf.prepare.wanted import WantedColumn

WANTED = [WantedColumn("user", "string", required=True), WantedColumn("price", "float32")]
ODD = Problem("odd", "make it even")


@pytest.fixture
def files(tmp_path):
    """Rows 1-5 with row 2 and 4 bad, rows 1-3 with row 1 bad."""
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    paths[0].write_text("user,price\na,1\n,2\nb,3\nc,four\nd,5\n")
    paths[1].write_text("user,price\n,6\ne,7\na,\n")
    return paths


def load(paths, rejects, progress=lambda rows: None):
    return load_table(paths, WANTED, rejects, "--events", progress)


def test_files_become_one_table(files, tmp_path):
    seen = []
    with Rejects(tmp_path / "rejected.csv") as rejects:
        table = load(files, rejects, seen.append)
    users = table.columns["user"]
    assert [users.values[code].as_py() for code in users.codes] == ["a", "b", "d", "e", "a"]
    assert table.columns["price"].values.tolist()[:4] == [1, 3, 5, 7]
    assert (table.rows, table.read) == (5, 8)
    assert sum(seen) == 5


def test_rows_that_are_rejected_later_keep_their_place_in_the_file(files, tmp_path):
    with Rejects(tmp_path / "rejected.csv") as rejects:
        table = load(files, rejects)
        table.reject(np.arange(5), "user", ODD, "vwxyz")
    rejected = pd.read_csv(tmp_path / "rejected.csv").tail(5)
    places = [(str(files[0]), row) for row in (1, 3, 5)] + [(str(files[1]), row) for row in (2, 3)]
    assert list(zip(rejected["file"], rejected["row"], strict=True)) == places
    assert list(rejected["value"]) == list("vwxyz")
    assert rejects.counts["odd"] == 5


def test_without_a_file_for_them_the_first_rejected_row_is_an_error(tmp_path):
    (tmp_path / "a.csv").write_text("user,price\na,1\nb,2\n")
    table = load([tmp_path / "a.csv"], Rejects())
    with pytest.raises(UsageError, match=r"a\.csv', row 2, column 'user': odd, 'v'; make it even"):
        table.reject(np.array([1]), "user", ODD, ["v"])


def test_nothing_to_use_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("user,price\n,1\n,2\n")
    with (
        Rejects(tmp_path / "rejected.csv") as rejects,
        pytest.raises(UsageError, match=r"--events .*a\.csv has no usable row \(2 rows are bad\)"),
    ):
        load([tmp_path / "a.csv"], rejects)


def test_files_that_differ_are_found_before_any_is_read(tmp_path):
    (tmp_path / "a.csv").write_text("user,price\n,1\n")
    (tmp_path / "b.csv").write_text("user,cost\na,1\n")
    with pytest.raises(UsageError, match=r"b\.csv' has no column 'price'"):
        load([tmp_path / "a.csv", tmp_path / "b.csv"], Rejects())
