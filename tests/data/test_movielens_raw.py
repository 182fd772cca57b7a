"""Reading MovieLens: layouts, files that are wrong, and the wheel that brings it."""

import subprocess
import zipfile

import pytest
from movielens_files import WRITERS, random_data, recipe, write_recbole

from loopctr_tf.errors import UsageError


def make_wheel(cache, data):
    cache.mkdir()
    folder = write_recbole(cache.parent / "source", data)
    with zipfile.ZipFile(cache / "recbole-1.2.1-py3-none-any.whl", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"recbole/dataset_example/ml-100k/{path.name}")


def no_pip(command, **_):
    raise AssertionError(f"pip was started: {command}")


def test_files_come_out_of_a_wheel_in_the_cache(tmp_path, monkeypatch):
    data = random_data(seed=2, users=1, movies=60)
    make_wheel(tmp_path / "cache", data)
    monkeypatch.setattr(subprocess, "run", no_pip)
    folder = recipe.fetch_raw(tmp_path / "cache")
    assert recipe.read_raw(folder).movie_ids == [movie[0] for movie in data[1]]
    assert recipe.fetch_raw(tmp_path / "cache") == folder


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("3\t2\t6\t20", r"u\.data' line \d+: rating is '6', not stars"),
        ("3\t2\t4", r"line \d+: 3 fields where 4 are expected"),
        ("3\tm9\t4\t20", r"line \d+: movie_id 'm9' is not in u\.item"),
    ],
)
def test_a_bad_line_is_named(line, message, tmp_path):
    raw = WRITERS["ml-100k"](tmp_path / "raw", random_data(seed=2, users=1, movies=60))
    with (raw / "u.data").open("a") as file:
        file.write(line)
    with pytest.raises(UsageError, match=message):
        recipe.read_raw(raw)
