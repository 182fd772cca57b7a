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
    small_data,
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
            assert [g for g in row["history_genres"] if g] == [
                g for r in short for g in genres[r[1]]
            ]
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


def test_rows_are_written_in_time_order_over_all_users(data, prepared):
    time = {(user, movie): at for user, movie, _, at in data[2]}
    times = [time[r["user_id"][0], r["movie_id"][0]] for r in read_rows(prepared, "train")]
    assert times == sorted(times)
    assert len({row["user_id"][0] for row in read_rows(prepared, "train")[:20]}) > 1


def test_users_with_fifteen_events_or_fewer_are_all_train(tmp_path):
    raw = write_1m(tmp_path / "raw", small_data([15, 16]))
    stats = recipe.prepare(raw, tmp_path / "out")
    assert stats["rows"] == {"train": 16, "valid": 5, "test": 10}
    assert stats["users_all_train"] == 1
    users = [row["user_id"][0] for row in read_rows(tmp_path / "out", "train")]
    assert sorted(users) == ["0"] * 15 + ["1"]


def test_vocabularies_and_statistics_are_of_train_only(tmp_path):
    # Two and one training rows: movies 0 and 1 of user 0, movie 100 of user 1.
    raw = write_1m(tmp_path / "raw", small_data([17, 16]))
    recipe.prepare(raw, tmp_path / "out")
    schema = Schema.load(tmp_path / "out")
    assert schema.table("movie").vocabulary == ("0", "1", "100")
    assert schema.table("genre").vocabulary == ("Drama",)  # "War" comes later
    assert schema.table("rating").vocabulary == ("1", "2")
    features = {feature.name: feature for feature in schema.features}
    age = features["age"]
    assert (age.mean, age.std, age.default) == pytest.approx((30, 200**0.5, 30))
    # Movie 1 has no year: the mean is of 1900 and 2000, and stands in for it.
    year = features["year"]
    assert (year.mean, year.std, year.default) == pytest.approx((1950, 50, 1950))
    assert read_rows(tmp_path / "out", "train")[2]["year"] == [1950]
    # No training row has an earlier like: a constant keeps its scale.
    share = features["genre_like_share"]
    assert (share.mean, share.std) == (0, 1)


@pytest.mark.parametrize("layout", ["ml-1m", "recbole"])
def test_layouts_agree(layout, data, prepared, tmp_path):
    raw = WRITERS[layout](tmp_path / "raw", data)
    stats = recipe.prepare(raw, tmp_path / "out", short=4, long=6, shard_rows=50)
    same_files(prepared, tmp_path / "out", but=["stats.json"])
    assert stats["source"] == f"MovieLens ({layout} layout)"
    expected = json.loads((prepared / "stats.json").read_text())
    assert {**stats, "source": ""} == {**expected, "source": ""}


def test_no_long_history(tmp_path):
    raw = write_1m(tmp_path / "raw", small_data([17]))
    recipe.prepare(raw, tmp_path / "out", short=3, long=0)
    assert [s.name for s in Schema.load(tmp_path / "out").sequences] == ["history"]
    assert "long_history_movie_id" not in read_rows(tmp_path / "out", "test")[0]


def run(*arguments):
    return CliRunner().invoke(recipe.main, [str(argument) for argument in arguments])


def test_command_line(data, tmp_path):
    raw = write_1m(tmp_path / "raw", data)
    result = run("--raw", raw, "--out", tmp_path / "out", "--short", 2)
    assert result.exit_code == 0, result.output
    assert "6 users" in result.stdout
    assert "rows/s" in result.stderr
    assert Schema.load(tmp_path / "out").sequences[0].max_length == 2


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
