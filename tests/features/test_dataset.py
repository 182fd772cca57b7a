import itertools
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow as tf

import loopctr_tf as lc
from loopctr_tf.errors import UsageError
from loopctr_tf.features.dataset import data_errors, parse_examples, parsing_spec, read_dataset
from loopctr_tf.features.frame import frame_columns
from loopctr_tf.features.prepared import PreparedWriter, serialize_examples
from loopctr_tf.features.records import write_records
from tests.factories import random_frame, small_schema

ROWS = 37


@pytest.fixture(scope="module")
def frame():
    return random_frame(ROWS)


@pytest.fixture(scope="module")
def schema():
    return small_schema()


@pytest.fixture(scope="module")
def prepared(frame, schema, tmp_path_factory):
    """The frame as training split, in five shards of 8 rows at most."""
    return prepare(tmp_path_factory.mktemp("prepared"), frame, schema, shard_rows=8)


@pytest.fixture(params=["frame", "shards"])
def source(request, frame, prepared):
    return frame if request.param == "frame" else prepared / "train"


def prepare(folder, frame, schema, shard_rows):
    """A prepared folder with one split, "train"."""
    writer = PreparedWriter(folder, schema, shard_rows)
    writer.write("train", frame)
    writer.finish()
    return folder


def batches(source, schema, **kwargs) -> list:
    return list(read_dataset(source, schema, **kwargs).as_numpy_iterator())


def assert_equal_batches(actual, expected):
    assert len(actual) == len(expected)
    for (features, label), (expected_features, expected_label) in zip(
        actual, expected, strict=True
    ):
        assert set(features) == set(expected_features)
        for name, values in expected_features.items():
            assert features[name].dtype == values.dtype, name
            np.testing.assert_array_equal(features[name], values, err_msg=name)
        np.testing.assert_array_equal(label, expected_label)


# What a batch is.


def test_a_batch_worked_out_by_hand():
    frame = pd.DataFrame(
        {
            "user_id": ["a", "b"],
            "movie_id": ["m1", "unknown"],
            "genres": [["drama"], ["action", "comedy"]],
            "age": [20.0, None],
            "zip_code": ["1", "2"],
            "device": [7, 8],
            "affinity": [0.5, 1.5],
            "history_movie": [["m0", "m1", "m2", "m3", "m4", "m5", "m6"], ["m9"]],
            "history_genres": [[["drama"], [], [], ["drama", "action"], [], [], []], [["comedy"]]],
            "history_gap": [[7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], [9.0]],
            "long_movie": [[], []],
            "long_rating": [[], []],
            "label": [1, 0],
        }
    )
    ((features, label),) = batches(frame, small_schema())
    assert label.dtype == np.float32
    assert label.tolist() == [1.0, 0.0]
    assert features["movie_id"].tolist() == [b"m1", b"unknown"]
    assert features["genres"].tolist() == [[b"drama", b""], [b"action", b"comedy"]]
    assert features["age"].tolist() == [20.0, 25.0]  # 25 is the feature's default
    assert features["device"].tolist() == [7, 8]
    # max_length is 5: m0 and m1 are too old.
    assert features["history_movie"].tolist() == [
        [b"m2", b"m3", b"m4", b"m5", b"m6"],
        [b"m9", b"", b"", b"", b""],
    ]
    assert features["history_genres"].tolist() == [
        [[b"", b""], [b"drama", b"action"], [b"", b""], [b"", b""], [b"", b""]],
        [[b"comedy", b""], [b"", b""], [b"", b""], [b"", b""], [b"", b""]],
    ]
    assert features["history_gap"].tolist() == [[5.0, 4.0, 3.0, 2.0, 1.0], [9.0, 0, 0, 0, 0]]
    assert features["history_length"].tolist() == [5, 1]
    assert features["history_length"].dtype == np.int32
    assert features["long_movie"].shape == (2, 0)
    assert features["long_length"].tolist() == [0, 0]


def test_frame_and_shards_give_equal_batches(frame, schema, prepared):
    expected = batches(frame, schema, batch_size=10, group=True)
    assert [len(label) for _, label in expected] == [10, 10, 10, 7]
    found = [user for features, _ in expected for user in features["user_id"]]
    assert found == [user.encode() for user in frame.user_id]
    assert_equal_batches(batches(prepared / "train", None, batch_size=10, group=True), expected)


def test_types_and_shapes_are_those_of_the_schema(source, schema):
    dataset = read_dataset(source, schema, batch_size=10)
    features, label = dataset.element_spec
    specs = schema.inputs
    assert set(features) == set(specs)  # the group column comes along only when asked for
    for name, spec in specs.items():
        assert features[name].dtype == spec.dtype
        assert features[name].shape.rank == len(spec.shape)
    assert features["history_genres"].shape.as_list() == [None] * 3
    assert label.dtype == tf.float32
    assert label.shape.as_list() == [None]


def test_integer_tables_and_empty_fields_are_equal_too(tmp_path):
    schema = lc.Schema.from_dict(
        {
            "label": "y",
            "group": "shop",
            "tables": {"tag": {"dtype": "int64", "vocabulary": [4, 2**40]}},
            "features": [
                {"name": "shop", "type": "categorical", "side": "context", "table": "tag"},
                {
                    "name": "tags",
                    "type": "multi_categorical",
                    "side": "item",
                    "table": "tag",
                    "max_values": 3,
                },
            ],
            "sequences": [
                {
                    "name": "past",
                    "max_length": 2,
                    "fields": [
                        {"name": "past_shop", "type": "categorical", "table": "tag"},
                        {
                            "name": "past_tags",
                            "type": "multi_categorical",
                            "table": "tag",
                            "max_values": 2,
                        },
                    ],
                }
            ],
        }
    )
    frame = pd.DataFrame(
        {
            "y": [0, 1, 1],
            "shop": [4, 2**40, 9],
            "tags": [[], [4, 2**40], [1]],
            "past_shop": [[1, 2, 3], [], [2**40]],
            "past_tags": [[[1], [], []], [], [[]]],  # the only tag is of an event too many
        }
    )
    prepare(tmp_path, frame, schema, shard_rows=20)
    (batch,) = expected = batches(frame, schema, group=True)
    assert_equal_batches(batches(tmp_path / "train", None, group=True), expected)
    features, _ = batch
    assert features["shop"].tolist() == [4, 2**40, 9]
    assert features["tags"].tolist() == [[-1, -1], [4, 2**40], [1, -1]]
    assert features["past_shop"].tolist() == [[2, 3], [-1, -1], [2**40, -1]]
    assert features["past_tags"].tolist() == [[[]] * 2] * 3
    assert features["past_length"].tolist() == [2, 0, 1]


def test_serialized_examples_parse_to_the_same_features(frame, schema):
    serialized = list(serialize_examples(frame_columns(frame, schema), ROWS))
    ((expected, _),) = batches(frame, schema, batch_size=ROWS)
    features = parse_examples(tf.constant(serialized), schema)
    assert_equal_batches(
        [({name: value.numpy() for name, value in features.items()}, 0)], [(expected, 0)]
    )
    names = {f.name for f in schema.all_fields()}
    assert set(parsing_spec(schema)) == names | {"history_genres_counts"}


def test_rows_of_the_padded_layout_are_read_too(frame, schema):
    """What was written before there were counts, and what callers of `classify` may send."""
    columns = frame_columns(frame, schema)
    ((expected, _),) = batches(frame, schema, batch_size=ROWS)
    rows = []
    for row in serialize_examples(columns, ROWS):
        example = tf.train.Example.FromString(row)
        feature = example.features.feature
        counts = list(feature.pop("history_genres_counts").int64_list.value)
        values = iter(feature["history_genres"].bytes_list.value)
        padded = [([next(values) for _ in range(count)] + [b"", b""])[:2] for count in counts]
        feature["history_genres"].bytes_list.value[:] = itertools.chain(*padded)
        rows.append(example.SerializeToString())
    old = parse_examples(tf.constant(rows), schema)
    # Both layouts in one batch.
    new = list(serialize_examples(columns, ROWS))
    mixed = parse_examples(tf.constant([*rows[::2], *new[1::2]]), schema)
    order = [*range(0, ROWS, 2), *range(1, ROWS, 2)]
    for repair in (False, True):
        whole = parse_examples(tf.constant(rows), schema, repair)
        for name in expected:
            np.testing.assert_array_equal(whole[name], old[name])
    for name, values in expected.items():
        np.testing.assert_array_equal(old[name], values)
        np.testing.assert_array_equal(mixed[name], values[order])


def test_weights_come_third(tmp_path):
    weighted = lc.Schema.from_dict({**small_schema().to_dict(), "weight": "importance"})
    assert lc.Schema.from_dict(weighted.to_dict()) == weighted
    importance = np.arange(ROWS) / 4
    frame = random_frame(ROWS).assign(importance=importance)
    prepare(tmp_path, frame, weighted, shard_rows=20)
    for source, kind in ((frame, weighted), (tmp_path / "train", None)):
        found = batches(source, kind, batch_size=10)
        assert {len(batch) for batch in found} == {3}
        weights = np.concatenate([weight for _, _, weight in found])
        assert weights.dtype == np.float32
        np.testing.assert_array_equal(weights, np.float32(importance))
    # What serves, and whoever reads with a schema of no weight, does without.
    assert "importance" not in parsing_spec(weighted, label=True)
    assert {len(batch) for batch in batches(tmp_path / "train", small_schema())} == {2}


def test_weights_that_are_none(tmp_path):
    """Rows of other makers; a DataFrame's are refused before."""
    weighted = lc.Schema.from_dict({**small_schema().to_dict(), "weight": "importance"})
    frame = random_frame(1).assign(importance=1.0)
    prepare(tmp_path, frame, weighted, shard_rows=20)
    (row,) = serialize_examples(frame_columns(frame, weighted), 1)
    example = tf.train.Example.FromString(row)
    for value in (-0.5, float("nan"), float("inf")):
        example.features.feature["importance"].float_list.value[:] = [value]
        row = pa.array([example.SerializeToString(deterministic=True)], pa.large_binary())
        write_records(tmp_path / "train" / "part-00000.tfrecord", [row])
        text = read_through(read_dataset(tmp_path / "train"))
        assert text.startswith("weights must be finite numbers from 0 on; found, in column 'import")
        assert text.endswith("; prepare the data again with such weights")


def counted(schema, values: list[bytes], counts: list[int], events: int = 2) -> bytes:
    """A row with ``events`` events, whose genres are as given."""
    (row,) = serialize_examples(frame_columns(random_frame(1), schema), 1)
    example = tf.train.Example.FromString(row)
    feature = example.features.feature
    feature["history_movie"].bytes_list.value[:] = [b"m1"] * events
    feature["history_gap"].float_list.value[:] = [1.0] * events
    feature["history_genres"].bytes_list.value[:] = values
    feature["history_genres_counts"].int64_list.value[:] = counts
    return example.SerializeToString()


@pytest.mark.parametrize(
    ("values", "counts", "mended"),
    [
        ([b"a", b"b"], [1, 0], [[b"a"], []]),  # a value too many
        ([b"a"], [1, 2], [[b"a"], []]),
        ([b"a", b"b"], [-1, 3], [[], [b"a", b"b"]]),
        ([b"a"], [2**62, 2**62], [[b"a"], []]),
        ([b"a", b"b", b"c"], [], [[b"a", b"b"]]),  # padded, and half an event
    ],
)
def test_counts_that_do_not_fit_the_values(schema, values, counts, mended):
    good = counted(schema, [b"x", b"y"], [0, 2])
    rows = tf.constant([good, counted(schema, values, counts), good])
    with pytest.raises(
        tf.errors.InvalidArgumentError,
        match="field 'history_genres' has another number of values than 'history_genres_counts' says",
    ):
        parse_examples(rows, schema)
    found = parse_examples(rows, schema, repair=True)
    genres, length = found["history_genres"].numpy(), len(mended)
    assert found["history_length"].numpy().tolist() == [2, length, 2]
    for row in (0, 2):
        assert [[v for v in event if v] for event in genres[row].tolist()] == [[], [b"x", b"y"]]
    assert [[v for v in e if v] for e in genres[1, :length].tolist()] == mended


def test_a_field_takes_room_by_what_is_there(tmp_path):
    """One event with many values does not fill up all others."""
    values = small_schema().to_dict()
    values["sequences"][0]["fields"][1]["max_values"] = 1000
    schema = lc.Schema.from_dict(values)
    frame = random_frame(ROWS)
    (tmp_path / "few").mkdir()
    prepare(tmp_path / "few", frame, schema, shard_rows=20)
    longest = frame["history_genres"].map(len).idxmax()
    (tmp_path / "many").mkdir()
    frame["history_genres"] = [
        [*genres[:-1], ["drama"] * 1000] if row == longest else genres
        for row, genres in frame["history_genres"].items()
    ]
    prepare(tmp_path / "many", frame, schema, shard_rows=20)
    few, many = (
        sum(path.stat().st_size for path in (tmp_path / name / "train").iterdir())
        for name in ("few", "many")
    )
    assert 0 < many - few < 1000 * 10
    read = batches(frame, schema, batch_size=8)
    widths = {features["history_genres"].shape[2] for features, _ in read}
    assert len(widths) > 1
    assert max(widths) == 1000


def test_longer_histories_of_other_writers_are_cut_to_the_most_recent(schema):
    """Serving and shards of other makers may hold more events than the schema keeps."""
    frame = random_frame(ROWS, seed=3)
    values = schema.to_dict()
    for sequence in values["sequences"]:
        sequence["max_length"] = 50
    whole = frame_columns(frame, lc.Schema.from_dict(values))
    assert len(whole["history_movie"].values) > len(
        frame_columns(frame, schema)["history_movie"].values
    )
    features = parse_examples(tf.constant(list(serialize_examples(whole, ROWS))), schema)
    ((expected, _),) = batches(frame, schema, batch_size=ROWS)
    assert_equal_batches(
        [({name: value.numpy() for name, value in features.items()}, 0)], [(expected, 0)]
    )


def test_fields_of_unequal_length_fail_or_are_cut_to_the_shortest(schema):
    frame = random_frame(ROWS, seed=4)
    rows = []
    for row in serialize_examples(frame_columns(frame, schema), ROWS):
        example = tf.train.Example.FromString(row)
        gaps = example.features.feature["history_gap"].float_list
        genres = example.features.feature["history_genres"].bytes_list
        del gaps.value[:2]  # the oldest events
        genres.value.append(b"half an event")
        rows.append(example.SerializeToString())
    rows = tf.constant(rows)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"history_g.* another number of (events|values)"
    ):
        parse_examples(rows, schema)
    mended = parse_examples(rows, schema, repair=True)
    ((expected, _),) = batches(frame, schema, batch_size=ROWS)
    for row in range(ROWS):
        length = max(expected["history_length"][row] - 2, 0)
        assert mended["history_length"][row] == length
        for name in ("history_movie", "history_gap"):
            wanted = expected[name][row][: length + 2][-length or ROWS * 99 :]
            np.testing.assert_array_equal(mended[name][row][:length], wanted)


# Order, on a schema with little to parse.


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """Rows that hold their own number, as a frame and as splits of five shards and of one."""
    schema = lc.Schema.from_dict(
        {
            "label": "y",
            "group": "row",
            "features": [{"name": "row", "type": "numeric", "side": "item"}],
            "sequences": [
                {"name": "past", "max_length": 2, "fields": [{"name": "t", "type": "numeric"}]}
            ],
        }
    )
    numbers = np.arange(ROWS)
    history = [[float(row)] * (row % 3) for row in numbers]
    frame = pd.DataFrame({"row": numbers, "y": numbers % 2, "t": history})
    many = prepare(tmp_path_factory.mktemp("many"), frame, schema, shard_rows=8)
    one = prepare(tmp_path_factory.mktemp("one"), frame, schema, shard_rows=ROWS)
    return {
        "frame": (frame, schema),
        "shards": (many / "train", None),
        "one shard": (one / "train", None),
    }


@pytest.fixture(params=["frame", "shards", "one shard"])
def numbered_source(request, numbered):
    return numbered[request.param]


def row_numbers(dataset) -> list[int]:
    """Numbers of the rows in their order, each checked against its label and history."""
    numbers = []
    for features, label in dataset.as_numpy_iterator():
        for i, row in enumerate(features["row"].astype(int)):
            assert label[i] == row % 2
            assert features["past_length"][i] == row % 3
            assert features["t"][i][: row % 3].tolist() == [row] * (row % 3)
        numbers.extend(features["row"].astype(int).tolist())
    return numbers


def test_without_shuffling_the_order_is_that_of_the_source(numbered_source):
    dataset = read_dataset(*numbered_source, batch_size=5)
    assert row_numbers(dataset) == row_numbers(dataset) == list(range(ROWS))


def test_a_last_batch_may_be_left_out(numbered_source):
    def sizes(**kwargs):
        return [len(y) for _, y in batches(*numbered_source, batch_size=15, **kwargs)]

    assert sizes() == [15, 15, 7]
    assert sizes(drop_remainder=True) == [15, 15]


def test_shuffling_depends_on_the_seed_and_the_epoch_alone(numbered_source):
    def two_epochs(seed):
        dataset = read_dataset(*numbered_source, batch_size=5, shuffle=True, seed=seed)
        return row_numbers(dataset), row_numbers(dataset)

    first, second = two_epochs(seed=3)
    assert sorted(first) == sorted(second) == list(range(ROWS))
    assert first != list(range(ROWS))
    assert first != second
    assert two_epochs(seed=3) == (first, second)
    assert two_epochs(seed=4)[0] != first
    assert two_epochs(seed=0) == two_epochs(seed=0)


@pytest.mark.parametrize("count", [2, 7])  # fewer and more than there are files
@pytest.mark.parametrize("shuffle", [False, True])
def test_shards_share_the_rows_out(numbered_source, count, shuffle):
    parts = [
        row_numbers(read_dataset(*numbered_source, shard=(i, count), shuffle=shuffle, seed=2))
        for i in range(count)
    ]
    assert all(parts)
    assert sorted(row for part in parts for row in part) == list(range(ROWS))


def test_a_strategy_shares_out_rows_unless_they_are_shared_out_already(numbered_source):
    def policy(**kwargs):
        options = read_dataset(*numbered_source, **kwargs).options()
        return options.experimental_distribute.auto_shard_policy

    assert policy() == tf.data.experimental.AutoShardPolicy.DATA
    assert policy(shard=(0, 2)) == tf.data.experimental.AutoShardPolicy.OFF


# What is refused when a dataset is opened.


def refusal(*args, **kwargs) -> str:
    with pytest.raises(UsageError) as error:
        read_dataset(*args, **kwargs)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_bad_arguments_are_told(frame, schema):
    assert refusal(frame, schema, batch_size=0) == "batch_size is 0; give 1 or more"
    for shard in ((2, 2), (-1, 2), (0, 0)):
        assert refusal(frame, schema, shard=shard) == (
            f"shard is {shard}; give (index, count) with 0 <= index < count"
        )
    assert refusal(frame) == "a DataFrame needs a schema; give schema="


def test_bad_frames_are_told_at_once(frame, schema):
    assert refusal(frame.iloc[:0], schema) == "the DataFrame has no rows; give at least one"
    assert refusal(frame.drop(columns="age"), schema).startswith("column 'age' is missing")
    assert refusal(frame.assign(label=2), schema).startswith("label 'label' is ")


def test_a_source_that_is_no_split_is_told(prepared, tmp_path):
    assert refusal(prepared) == (
        f"source {str(prepared)!r} is not a split of a prepared folder; "
        "name one of its folders train, valid, test"
    )
    assert refusal(tmp_path / "train").startswith(f"{str(tmp_path)!r} is not a prepared folder")
    assert refusal(prepared / "valid").endswith("has no rows; prepare it again")


@pytest.fixture
def copied(frame, schema, tmp_path):
    """A prepared folder of its own, to be damaged."""
    return prepare(tmp_path, frame, schema, shard_rows=20)


def test_damaged_shards_are_told_at_once(copied):
    path = copied / "train" / "part-00001.tfrecord"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert "it was cut short or changed, prepare the data again" in refusal(copied / "train")
    path.unlink()
    assert refusal(copied / "train").endswith("is missing; prepare the data again")


# What is refused while rows are read.


def read_through(dataset) -> str:
    """The text of the UsageError that reading raises."""

    def read():
        with data_errors():
            for _ in dataset:
                pass

    with pytest.raises(UsageError) as error:
        read()
    text = str(error.value)
    assert "\n" not in text
    return text


def rewrite(folder, change) -> None:
    """Rewrites the first shard's rows, each changed, without a change of the file's size."""
    path = folder / "train" / "part-00000.tfrecord"
    size = path.stat().st_size
    rows = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in rows:
            example = tf.train.Example.FromString(row)
            change(example.features.feature)
            writer.write(example.SerializeToString(deterministic=True))
    stats = folder / "stats.json"
    text = stats.read_text()
    assert f'"bytes": {size}' in text
    stats.write_text(text.replace(f'"bytes": {size}', f'"bytes": {path.stat().st_size}'))


def test_a_label_other_than_0_and_1_is_an_error_that_names_the_column(copied):
    def change(features):
        features["label"].float_list.value[0] = 2.0

    rewrite(copied, change)
    dataset = read_dataset(copied / "train")
    with pytest.raises(tf.errors.InvalidArgumentError, match="labels must be 0 or 1"):
        list(dataset)
    text = read_through(dataset)
    assert re.match(r"labels must be 0 or 1; found, in column 'label': 2", text), text


def test_a_missing_feature_is_an_error_that_names_it(copied):
    rewrite(copied, lambda features: features.pop("movie_id"))
    text = read_through(read_dataset(copied / "train"))
    assert text.startswith("the rows are not of the schema: ")
    assert "movie_id" in text


def test_another_type_is_an_error_that_names_the_column(copied):
    def change(features):
        features["movie_id"].int64_list.value[:] = [3]

    rewrite(copied, change)
    text = read_through(read_dataset(copied / "train"))
    assert "movie_id" in text


def test_fields_of_unequal_length_are_an_error_that_names_them(copied):
    def change(features):
        features["long_rating"].float_list.value.append(1.0)

    rewrite(copied, change)
    text = read_through(read_dataset(copied / "train"))
    assert text.startswith("the rows are not of the schema: ")
    assert "long_rating" in text


def test_damage_inside_a_shard_is_an_error(copied):
    path = copied / "train" / "part-00000.tfrecord"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    text = read_through(read_dataset(copied / "train"))
    assert text.startswith("a shard is damaged: ")
    assert text.endswith("; prepare the data again")


def test_other_errors_pass_through():
    def work():
        with data_errors():
            raise tf.errors.InvalidArgumentError(None, None, "shapes must be equal")

    with pytest.raises(tf.errors.InvalidArgumentError, match="shapes must be equal"):
        work()
