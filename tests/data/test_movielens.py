"""The MovieLens recipe on tiny data: histories, features, split, vocabularies, command line."""

import json

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from click.testing import CliRunner
from movielens_files import (
    FOLDER,
    ONE_USER,
    WRITERS,
    random_data,
    recipe,
    small_data,
    write_1m,
    write_100k,
)

from loopctr_tf.errors import UsageError
from loopctr_tf.features.dataset import read_dataset
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


def records(folder, split):
    """Serialized rows of a split in the order in which they were written."""
    paths = sorted(str(path) for path in (folder / split).iterdir())
    return [record.numpy() for record in tf.data.TFRecordDataset(paths)]


def read_rows(folder, split):
    """Rows of a split as a name -> list of plain values."""
    rows = []
    for record in records(folder, split):
        features = tf.train.Example.FromString(record).features.feature
        row = {}
        for name, feature in features.items():
            kind = feature.WhichOneof("kind")
            values = list(getattr(feature, kind).value) if kind else []
            row[name] = [v.decode() if isinstance(v, bytes) else v for v in values]
        rows.append(row)
    return rows


def same_files(first, second, but=()):
    names = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert names == sorted(p.relative_to(second) for p in second.rglob("*") if p.is_file())
    for name in names:
        if name.name not in but:
            assert (first / name).read_bytes() == (second / name).read_bytes(), name


def one_user_frame(tmp_path, short=3, long=2):
    events = recipe.Events(recipe.read_raw(write_100k(tmp_path / "raw", ONE_USER)))
    return events.frame(events.by_time, short, long)


def test_history_is_strictly_earlier_and_oldest_first(tmp_path):
    frame = one_user_frame(tmp_path)
    assert list(frame["movie_id"]) == ["m1", "m3", "m2", "m5", "m4", "m6", "m7"]
    assert [list(events) for events in frame["history_movie_id"]] == [
        [],
        ["m1"],
        ["m1"],
        ["m1", "m3", "m2"],
        ["m1", "m3", "m2"],
        ["m1", "m3", "m2"],
        ["m5", "m4", "m6"],
    ]
    # Of the three events before the last row's short history, the oldest no longer fits.
    assert [list(events) for events in frame["long_history_movie_id"]] == [[]] * 6 + [["m3", "m2"]]
    assert list(frame["history_rating"].iloc[6]) == ["2", "5", "4"]
    assert list(frame["long_history_rating"].iloc[6]) == ["4", "3"]
    genres = [list(event) for event in frame["history_genres"].iloc[6]]
    assert genres == [["Action", "Comedy"], ["Action"], ["Drama"]]


def test_global_features_of_a_row(tmp_path):
    frame = one_user_frame(tmp_path)
    assert list(frame["label"]) == [1, 1, 0, 0, 1, 1, 1]
    row = frame.iloc[3]
    assert list(row["genres"]) == ["Action", "Comedy"]
    names = ["user_id", "age", "gender", "occupation", "zip_prefix", "year"]
    assert [row[name] for name in names] == ["7", 30, "F", "writer", "940", 1994]
    assert np.isnan(frame["year"].iloc[5])


def test_genre_like_share_by_hand(tmp_path):
    """Likes are m1 (Comedy), m3 (Comedy, Drama), m4 (Action), m6 (Drama)."""
    frame = one_user_frame(tmp_path)
    # m1: no likes yet; m3: m1 of m1; m2: none of m1; m5: m1, m3 of both; m4: none of both;
    # m6: m3 of m1, m3; m7: m1, m3 of all four.
    assert list(frame["genre_like_share"]) == [0, 1, 0, 1, 0, 0.5, 0.5]


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


def test_min_count_leaves_rare_values_out(tmp_path):
    raw = write_1m(tmp_path / "raw", small_data([17, 16]))
    recipe.prepare(raw, tmp_path / "out", min_count=2)
    schema = Schema.load(tmp_path / "out")
    assert schema.table("movie").vocabulary == ()
    assert schema.table("rating").vocabulary == ("1",)


@pytest.mark.parametrize("layout", ["ml-1m", "recbole"])
def test_layouts_agree(layout, data, prepared, tmp_path):
    raw = WRITERS[layout](tmp_path / "raw", data)
    stats = recipe.prepare(raw, tmp_path / "out", short=4, long=6, shard_rows=50)
    same_files(prepared, tmp_path / "out", but=["stats.json"])
    assert stats["source"] == f"MovieLens ({layout} layout)"
    expected = json.loads((prepared / "stats.json").read_text())
    assert {**stats, "source": ""} == {**expected, "source": ""}


def test_two_runs_give_the_same_bytes(data, prepared, tmp_path):
    raw = write_100k(tmp_path / "raw", data)
    recipe.prepare(raw, tmp_path / "out", short=4, long=6, shard_rows=50)
    same_files(prepared, tmp_path / "out")
    # Another process may order a map otherwise, unless it is told not to.
    record = records(prepared, "test")[0]
    assert tf.train.Example.FromString(record).SerializeToString(deterministic=True) == record


def test_stats_tell_what_was_prepared(data, prepared):
    users, _, ratings = data
    stats = json.loads((prepared / "stats.json").read_text())
    assert stats["users"] == len(users)
    assert stats["items"] == len({movie for _, movie, _, _ in ratings})
    assert sum(stats["rows"].values()) == len(ratings)
    rows = [row for split in SPLITS for row in read_rows(prepared, split)]
    for name in ("history", "long_history"):
        lengths = [len(row[f"{name}_movie_id"]) for row in rows]
        assert stats["history_length"][name]["mean"] == pytest.approx(np.mean(lengths))
        assert stats["history_length"][name]["max"] == max(lengths)
    labels = [row["label"][0] for row in read_rows(prepared, "test")]
    assert stats["ctr"]["test"] == pytest.approx(np.mean(labels))
    assert "last 10 events are test" in stats["split"]


def test_the_library_reads_it(prepared):
    features, label = next(iter(read_dataset(prepared / "test", batch_size=8)))
    assert label.shape == (8,)
    assert features["history_genres"].shape[2] == 6
    assert int(tf.reduce_max(features["history_length"])) == 4


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


def fails_without_output(tmp_path, message, *arguments):
    before = sorted(tmp_path.iterdir())
    result = run("--out", tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_mistakes_exit_with_2_one_line_and_no_output(tmp_path):
    raw = write_1m(tmp_path / "raw", small_data([16]))
    few = write_1m(tmp_path / "few", small_data([15]))
    fails_without_output(tmp_path, "'nowhere' does not exist", "--raw", "nowhere")
    fails_without_output(tmp_path, "short is 0; give 1 or more", "--raw", raw, "--short", 0)
    fails_without_output(tmp_path, "long is -1; give 0 or more", "--raw", raw, "--long", -1)
    fails_without_output(tmp_path, "has more than 15 ratings", "--raw", few)


def test_nothing_is_left_when_it_fails_half_way(tmp_path):
    users, movies, ratings = small_data([40])
    movies[30] = (*movies[30][:3], tuple("ABCDEFG"))  # one genre more than the schema allows
    raw = write_1m(tmp_path / "raw", (users, movies, ratings))
    with pytest.raises(UsageError, match="max_values is 6"):
        recipe.prepare(raw, tmp_path / "out", shard_rows=5)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_an_existing_folder_is_left_alone(tmp_path):
    raw = write_1m(tmp_path / "raw", small_data([16]))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    fails_without_output(tmp_path, "exists; remove it or name another", "--raw", raw)
    assert (tmp_path / "out" / "mine").read_text() == "kept"


def test_the_template_names_every_column(tmp_path):
    schema = Schema.load(FOLDER / "schema.yaml")
    columns = {field.name for field in schema.all_fields()} | {schema.label, schema.group}
    assert columns == set(one_user_frame(tmp_path).columns)


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
