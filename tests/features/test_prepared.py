import json

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from loopctr_tf.errors import UsageError
from loopctr_tf.features.frame import frame_columns
from loopctr_tf.features.prepared import (
    PreparedWriter,
    read_stats,
    serialize_examples,
    split_shards,
)
from loopctr_tf.features.schema import Schema
from tests.factories import random_frame, small_schema


@pytest.fixture
def prepared(tmp_path):
    """A prepared folder: 7 training rows in shards of 3, 2 test rows, no validation rows."""
    writer = PreparedWriter(tmp_path, small_schema(), shard_rows=3)
    writer.write("train", random_frame(7))
    writer.write("test", random_frame(1, seed=1))
    writer.write("test", random_frame(1, seed=2))
    writer.finish(source="made up")
    return tmp_path


def features(serialized: bytes) -> dict[str, list]:
    example = tf.train.Example.FromString(serialized)
    lists = {}
    for name, feature in example.features.feature.items():
        lists[name] = list(getattr(feature, feature.WhichOneof("kind")).value)
    return lists


def test_examples_hold_raw_values():
    frame = random_frame(1).assign(
        user_id=["Zoë"],
        movie_id=["two words"],
        genres=[["drama", "action"]],
        device=[11],
        age=[24.5],
        history_movie=[["m1", "千"]],
        history_genres=[[["comedy"], []]],
        history_gap=[[1.5, 2.0]],
        long_movie=[[]],
        long_rating=[[]],
        label=[1],
    )
    (serialized,) = serialize_examples(frame_columns(frame, small_schema()), 1)
    found = features(serialized)
    assert found["user_id"] == ["Zoë".encode()]
    assert found["movie_id"] == [b"two words"]
    assert found["genres"] == [b"drama", b"action"]
    assert found["device"] == [11]
    assert found["age"] == [24.5]
    assert found["history_movie"] == [b"m1", "千".encode()]
    assert found["history_genres"] == [b"comedy"]
    assert found["history_genres_counts"] == [1, 0]
    assert found["history_gap"] == [1.5, 2.0]
    assert found["long_movie"] == found["long_rating"] == []
    assert found["label"] == [1.0]


def test_equal_rows_give_equal_bytes():
    columns = frame_columns(random_frame(4), small_schema())
    assert list(serialize_examples(columns, 4)) == list(serialize_examples(columns, 4))


def test_shards_and_their_statistics(prepared):
    frame = random_frame(7)
    stats = read_stats(prepared)
    assert stats["rows"] == {"train": 7, "valid": 0, "test": 2}
    assert stats["clicks"]["train"] == int(frame.label.sum())
    assert stats["source"] == "made up"
    train = stats["shards"]["train"]
    assert [shard["name"] for shard in train] == [f"part-0000{i}.tfrecord" for i in range(3)]
    assert [shard["rows"] for shard in train] == [3, 3, 1]
    for shard in train:
        path = prepared / "train" / shard["name"]
        assert path.stat().st_size == shard["bytes"]
        assert sum(1 for _ in tf.data.TFRecordDataset(str(path))) == shard["rows"]
    assert [shard["rows"] for shard in stats["shards"]["test"]] == [1, 1]
    assert Schema.load(prepared) == small_schema()


def test_split_shards_keeps_the_order_of_writing(prepared):
    expected = [str(prepared / "train" / f"part-0000{i}.tfrecord") for i in range(3)]
    assert split_shards(prepared, "train") == expected


def test_progress_counts_the_rows(tmp_path):
    seen = []
    PreparedWriter(tmp_path, small_schema(), 3).write("train", random_frame(7), seen.append)
    assert seen == [3, 3, 1]


def test_a_bad_row_is_refused_by_its_place_in_the_whole_frame(tmp_path):
    frame = random_frame(7)
    frame["label"] = [0, 1, 0, 1, 0, 3, 1]
    writer = PreparedWriter(tmp_path, small_schema(), shard_rows=3)
    with pytest.raises(UsageError, match="in row 5; labels must be 0 or 1"):
        writer.write("train", frame)


def test_integers_and_shards_without_any_value_can_be_read_back(tmp_path):
    """A shard whose multi-valued integer fields are all empty keeps them integers."""
    schema = Schema.from_dict(
        {
            "label": "y",
            "group": "user",
            "tables": {"tag": {"dtype": "int64", "hash_buckets": 4}},
            "features": [{"name": "x", "type": "numeric", "side": "item"}],
            "sequences": [
                {
                    "name": "past",
                    "max_length": 3,
                    "fields": [
                        {
                            "name": "tags",
                            "type": "multi_categorical",
                            "table": "tag",
                            "max_values": 2,
                        },
                    ],
                }
            ],
        }
    )
    frame = {"y": [1], "user": ["u"], "x": [0.5], "tags": [[[], []]]}
    columns = frame_columns(pd.DataFrame(frame), schema)
    (serialized,) = serialize_examples(columns, 1)
    assert features(serialized)["tags"] == []
    assert features(serialized)["tags_counts"] == [0, 0]
    assert tf.train.Example.FromString(serialized).features.feature["tags"].HasField("int64_list")


# What is refused.


def refusal(folder, split) -> str:
    with pytest.raises(UsageError) as error:
        split_shards(folder, split)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_a_shard_that_was_cut_short_is_named(prepared):
    path = prepared / "train" / "part-00001.tfrecord"
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    assert refusal(prepared, "train") == (
        f"shard {str(path)!r} has {len(content) - 10} bytes and was written with {len(content)}; "
        "it was cut short or changed, prepare the data again"
    )


def test_a_missing_shard_is_named(prepared):
    path = prepared / "train" / "part-00002.tfrecord"
    path.unlink()
    assert refusal(prepared, "train") == (f"shard {str(path)!r} is missing; prepare the data again")


def test_a_split_without_rows_is_named(prepared):
    assert refusal(prepared, "valid") == (
        f"split 'valid' of {str(prepared)!r} has no rows; prepare it again"
    )


def test_an_unknown_split_is_named(prepared):
    assert refusal(prepared, "dev") == "split is 'dev'; choose train, valid, test"


def test_a_folder_that_is_not_prepared_is_told(tmp_path):
    assert refusal(tmp_path, "train").startswith(
        f"{str(tmp_path)!r} is not a prepared folder: no stats.json in it; "
    )
    for content in (json.dumps({"rows": {}, "shards": {}})[:-1], json.dumps({"rows": {}})):
        (tmp_path / "stats.json").write_text(content)
        assert "is not a list of shards (" in refusal(tmp_path, "train")


def test_numbers_keep_their_precision(tmp_path):
    frame = random_frame(1).assign(device=[2**62 + 1], age=[np.float32(0.1)])
    (serialized,) = serialize_examples(frame_columns(frame, small_schema()), 1)
    assert features(serialized)["device"] == [2**62 + 1]
    assert features(serialized)["age"] == [np.float32(0.1)]
