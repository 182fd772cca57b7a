"""The MovieLens recipe on tiny data: histories, features, split, vocabularies, command line."""

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from movielens_files import (
    FOLDER,
    WRITERS,
    random_data,
    recipe,
    write_1m,
    write_100k,
)
from recipes import read_rows, same_files

from loopctr_tf.features.prepared import SPLITS
from loopctr_tf.features.schema import Schema
from loopctr_tf.prepare.prepare import prepare_events


@pytest.fixture(scope="module")
def data():
    return random_data(seed=1)


@pytest.fixture(scope="module")
def prepared(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("movielens")
    stats = recipe.prepare(
        write_100k(folder / "raw", data), folder / "out", short=4, long=6, shard_rows=50
    )
    assert stats == json.loads((folder / "out" / "stats.json").read_text())
    return folder / "out"


def test_every_row_equals_a_slow_reference(data, prepared):
    """Every list of every row, rebuilt by search through the raw ratings; nothing is from later."""
    _, movies, ratings = data
    genres = {movie: own for movie, _, _, own in movies}
    time = {(user, movie): at for user, movie, _, at in ratings}
    seen = 0
    for split in SPLITS:
        for row in read_rows(prepared, split):
            (user,), (movie,) = row["user_id"], row["movie_id"]
            now = time[user, movie]
            ids = row["long_history_movie_id"] + row["history_movie_id"]
            assert all(time[user, other] < now for other in ids)

            past = [r for r in ratings if r[0] == user and r[3] < now]
            past.sort(key=lambda rating: rating[3])
            short, long = past[-4:], past[:-4][-6:]
            assert row["history_movie_id"] == [r[1] for r in short]
            assert row["history_rating"] == [str(r[2]) for r in short]
            assert row["long_history_movie_id"] == [r[1] for r in long]
            assert row["long_history_rating"] == [str(r[2]) for r in long]
            assert row["history_genres"] == [g for r in short for g in genres[r[1]]]
            assert row["history_genres_counts"] == [len(genres[r[1]]) for r in short]
            likes = [genres[r[1]] for r in past if r[2] >= 4]
            alike = [own for own in likes if set(own) & set(genres[movie])]
            share = len(alike) / len(likes) if likes else 0
            assert row["genre_like_share"] == pytest.approx([share])
            assert row["label"] == [
                float(next(r[2] for r in ratings if r[:2] == (user, movie)) >= 4)
            ]
            seen += 1
    assert seen == len(ratings)


def test_split_is_by_time_per_user(data, prepared):
    users, _, ratings = data
    rows = {split: read_rows(prepared, split) for split in SPLITS}
    for user, *_ in users:
        own = sorted((r for r in ratings if r[0] == user), key=lambda rating: rating[3])
        expected = {"train": own[:-15], "valid": own[-15:-10], "test": own[-10:]}
        for split in SPLITS:
            found = [row["movie_id"][0] for row in rows[split] if row["user_id"] == [user]]
            assert found == [rating[1] for rating in expected[split]]


@pytest.mark.parametrize("layout", ["ml-1m", "recbole"])
def test_layouts_agree(layout, data, prepared, tmp_path):
    raw = WRITERS[layout](tmp_path / "raw", data)
    stats = recipe.prepare(raw, tmp_path / "out", short=4, long=6, shard_rows=50)
    same_files(prepared, tmp_path / "out", but=["stats.json"])
    assert stats["source"] == f"MovieLens ({layout} layout)"
    expected = json.loads((prepared / "stats.json").read_text())
    assert {**stats, "source": ""} == {**expected, "source": ""}


def test_command_line(data, tmp_path):
    raw = write_1m(tmp_path / "raw", data)
    arguments = ["--raw", str(raw), "--out", str(tmp_path / "out"), "--short", "2", "--long", "0"]
    result = CliRunner().invoke(recipe.main, arguments)
    assert result.exit_code == 0, result.output
    assert "6 users" in result.stdout
    assert "rows/s" in result.stderr
    (sequence,) = Schema.load(tmp_path / "out").sequences
    assert (sequence.name, sequence.max_length) == ("history", 2)
    assert "long_history_movie_id" not in read_rows(tmp_path / "out", "test")[0]


def test_a_movie_without_year_and_a_user_of_no_occupation(data, prepared):
    _, movies, _ = data
    schema = Schema.load(prepared)
    assert set(schema.table("occupation").vocabulary) == {"writer", "no occupation"}
    (year,) = (feature for feature in schema.features if feature.name == "year")
    undated = {movie for movie, _, at, _ in movies if at is None}
    rows = [r for s in SPLITS for r in read_rows(prepared, s) if r["movie_id"][0] in undated]
    assert rows
    assert all(row["year"] == [pytest.approx(year.mean)] for row in rows)


def test_one_table_of_ordered_events_needs_no_script(tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "user_id": np.repeat([7, 9], 60),
            "movie_id": rng.integers(1, 30, 120),
            "pos": np.tile(np.arange(60), 2),
            "label": rng.integers(0, 2, 120),
            "gender": "F",
            "age": 25,
            "occupation": 3,
            "zip_code": "48067",
            "genres": rng.choice(["Drama", "Comedy|Sci-Fi"], 120),
            "year": 1999.0,
        }
    )
    # In any order of the rows: `pos` tells.
    table.sample(frac=1, random_state=1).to_parquet(tmp_path / "events.parquet")
    schema = FOLDER / "ctr_table.yaml"
    stats = prepare_events(schema, tmp_path / "events.parquet", tmp_path / "out", workers=1)
    assert stats["rows"] == {"train": 90, "valid": 10, "test": 20}
    last = read_rows(tmp_path / "out", "test")
    for user, of_user in table.groupby("user_id"):
        (row,) = [
            r
            for r in last
            if r["user_id"] == [str(user)]
            and r["movie_id"] == [of_user["movie_id"].iloc[-1]]
            and len(r["long_history_movie_id"]) == 9
        ]
        assert row["history_movie_id"] == of_user["movie_id"].iloc[9:59].tolist()
        assert row["history_liked"] == of_user["label"].iloc[9:59].tolist()
        assert row["long_history_movie_id"] == of_user["movie_id"].iloc[:9].tolist()
        assert row["label"] == [of_user["label"].iloc[-1]]
