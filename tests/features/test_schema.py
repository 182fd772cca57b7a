import copy
import json

import numpy as np
import pytest
import yaml

from loopctr_tf.errors import UsageError
from loopctr_tf.features.schema import (
    Feature,
    Schema,
    Sequence,
    Table,
    json_schema,
    load_with_build,
)
from tests.factories import schema_dict, small_schema


def refusal(values, **kwargs) -> str:
    """The text of the UsageError that a schema of ``values`` raises, which is one line."""
    with pytest.raises(UsageError) as error:
        Schema.from_dict(values, **kwargs)
    text = str(error.value)
    assert "\n" not in text
    return text


def changed(*path, **values) -> dict:
    """The schema of the factories with the mapping at ``path`` updated; None removes a key."""
    whole = copy.deepcopy(schema_dict())
    place = whole
    for step in path:
        place = place[step]
    for name, value in values.items():
        if value is None:
            del place[name]
        else:
            place[name] = value
    return whole


# Features.


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            changed("features", 0, type="embedding"),
            "feature 'movie_id': type is 'embedding'; choose categorical, multi_categorical, numeric",
        ),
        (changed("features", 0, type=None), "feature 'movie_id' has no 'type'; add it"),
        (changed("features", 0, name=None), "feature None: key 'name' is missing; add it"),
        (
            changed("features", 0, side="seller"),
            "feature 'movie_id': side is 'seller'; choose 'user', 'context', 'item' or 'cross'",
        ),
        (
            changed("features", 0, side=None),
            "feature 'movie_id' has no side; give one of user, context, item, cross",
        ),
        (
            changed("features", 0, table="film"),
            "feature 'movie_id' names table 'film', which does not exist; "
            "tables are device, genre, movie, zip",
        ),
        (
            changed("features", 0, table=None),
            "feature 'movie_id': key 'table' is missing; add it",
        ),
        (
            changed("features", 0, max_values=3),
            "feature 'movie_id': key 'max_values' does not exist; known are name, type, side, table, "
            "column",
        ),
        (
            changed("features", 1, max_values=None),
            "feature 'genres': key 'max_values' is missing; add it",
        ),
        (
            changed("features", 1, max_values=0),
            "feature 'genres': max_values is 0; give 1 or more",
        ),
        (
            changed("features", 2, table="zip"),
            "feature 'age': key 'table' does not exist; known are name, type, side, transform, mean, "
            "std, default, column",
        ),
        (changed("features", 2, std=0), "feature 'age': std is 0; give more than 0"),
        (changed("features", 2, mean="old"), "feature 'age': mean is 'old', a str; give a number"),
        (
            changed("features", 2, mean=float("nan")),
            "feature 'age': mean is nan, a float; give a finite number",
        ),
        (
            changed("features", 2, std=float("inf")),
            "feature 'age': std is inf, a float; give a finite number",
        ),
        (
            changed("features", 2, default=True),
            "feature 'age': default is True, a bool; give a number",
        ),
        (
            changed("features", 2, transform="sqrt"),
            "feature 'age': transform is 'sqrt'; choose 'none' or 'log1p'",
        ),
        (
            changed("features", 2, avg=3.0),
            "feature 'age': key 'avg' does not exist; known are name, type, side, transform, mean, "
            "std, default, column",
        ),
        (
            changed("features", 2, name="movie_id"),
            "column name 'movie_id' is used twice; names must be unique",
        ),
        (
            changed("features", 2, name="history_gap"),
            "column name 'history_gap' is used twice; names must be unique",
        ),
        (
            changed("features", 2, name="history_length"),
            "column name 'history_length' is used twice; names must be unique",
        ),
        (
            changed("features", 2, name="label"),
            "column name 'label' is used twice; names must be unique",
        ),
        (changed("features", 2, name=7), "feature 7: name is 7, an int; give text"),
        (changed("features", 2, name=""), "column name '' is not text; give a name"),
    ],
)
def test_a_bad_feature_is_named_with_the_remedy(values, expected):
    assert refusal(values) == expected


# Sequences.


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            changed("sequences", 0, max_length=0),
            "sequence 'history': max_length is 0; give 1 or more",
        ),
        (
            changed("sequences", 0, max_length=2.5),
            "sequence 'history': max_length is 2.5, a float; give a whole number",
        ),
        (
            changed("sequences", 0, max_length=None),
            "sequence 'history': key 'max_length' is missing; add it",
        ),
        (changed("sequences", 0, name=None), "sequence None: key 'name' is missing; add it"),
        (
            changed("sequences", 0, name="long"),
            "column name 'long_length' is used twice; names must be unique",
        ),
        (
            changed("sequences", 0, compress="no"),
            "sequence 'history': compress is 'no', a str; give true or false",
        ),
        (
            changed("sequences", 0, length=3),
            "sequence 'history': key 'length' does not exist; did you mean 'max_length'?",
        ),
        (changed("sequences", 0, fields=[]), "sequence 'history' has no fields; list at least one"),
        (changed("sequences", 0, fields=None), "sequence 'history': fields is None; write a list"),
        (
            changed("sequences", 0, "fields", 0, side="user"),
            "feature 'history_movie' in sequence 'history' has side 'user'; drop it, "
            "a sequence belongs to the user",
        ),
        (
            changed("sequences", 0, "fields", 0, table="film"),
            "feature 'history_movie' names table 'film', which does not exist; "
            "tables are device, genre, movie, zip",
        ),
    ],
)
def test_a_bad_sequence_is_named_with_the_remedy(values, expected):
    assert refusal(values) == expected


# Tables.


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            changed("tables", "zip", vocabulary=["a"]),
            "table 'zip' needs either a vocabulary or hash_buckets, and not both",
        ),
        (
            changed("tables", "zip", hash_buckets=None),
            "table 'zip' needs either a vocabulary or hash_buckets, and not both",
        ),
        (
            changed("tables", "zip", hash_buckets=0),
            "table 'zip': hash_buckets is 0; give 1 or more",
        ),
        (
            changed("tables", "zip", dtype="float32"),
            "table 'zip': dtype is 'float32'; choose 'string' or 'int64'",
        ),
        (
            changed("tables", "zip", dim=-1),
            "table 'zip': dim is -1; give 1 or more",
        ),
        (
            changed("tables", "zip", bucket=3),
            "table 'zip': key 'bucket' does not exist; did you mean 'oov_buckets'?",
        ),
        (
            changed("tables", "movie", oov_buckets=0),
            "table 'movie': oov_buckets is 0; give 1 or more",
        ),
        (
            changed("tables", "movie", vocabulary=["a", "b", "a"]),
            "table 'movie': vocabulary holds 'a' twice; keep one",
        ),
        (
            changed("tables", "movie", vocabulary=["a", 2]),
            "table 'movie': vocabulary holds 2, not a string; quote or change dtype",
        ),
        (
            changed("tables", "movie", vocabulary=["a", "b\nc"]),
            "table 'movie': vocabulary holds 'b\\nc'; a value may not contain a line break",
        ),
        (
            changed("tables", "device", vocabulary=[3, "5"]),
            "table 'device': vocabulary holds '5', not a int64; quote or change dtype",
        ),
        (
            changed("tables", "device", vocabulary=[3, True]),
            "table 'device': vocabulary holds True, not a int64; quote or change dtype",
        ),
        (
            changed("tables", "device", vocabulary=[3, 2**63]),
            "table 'device': vocabulary holds 9223372036854775808, not a int64; "
            "quote or change dtype",
        ),
        (
            changed("tables", spare={"hash_buckets": 3}),
            "table 'spare' is used by no feature; drop it or use it",
        ),
        (changed("tables", zip=3), "table 'zip' is 3; write `name: value` lines"),
        (
            changed("tables", **{"a b": {"hash_buckets": 3}}),
            "table name 'a b' must be letters, digits, '_', '-' and '.', a letter or digit first; "
            "rename it",
        ),
        (
            changed("tables", **{"../up": {"hash_buckets": 3}}),
            "table name '../up' must be letters, digits, '_', '-' and '.', a letter or digit first; "
            "rename it",
        ),
        (
            changed("sequences", 0, name="mein verlauf"),
            "sequence name 'mein verlauf' must be letters, digits, '_', '-' and '.', a letter or "
            "digit first; rename it",
        ),
    ],
)
def test_a_bad_table_is_named_with_the_remedy(values, expected):
    assert refusal(values) == expected


@pytest.mark.parametrize("vocabulary", ["movies.txt", np.array(["a"]), 3])
def test_a_vocabulary_that_is_no_list_is_refused(vocabulary):
    with pytest.raises(UsageError) as error:
        Table("t", vocabulary=vocabulary)
    assert str(error.value) == (
        f"table 't': vocabulary is {vocabulary!r}; give a list of values "
        "(a file's name is read by Schema.load alone)"
    )


# The whole.


@pytest.mark.parametrize(
    "name", ["two words", "âge", "a-b", "1st", "class", "self", "inputs", "refine_top_k", "state_x"]
)
def test_a_column_that_cannot_be_an_input_of_a_signature_is_refused(name):
    text = refusal(changed("features", 2, name=name))
    assert text.startswith(f"column name {name!r} cannot be the name of a model input; rename it: ")


def test_columns_that_differ_in_case_alone_are_refused():
    assert refusal(changed("features", 2, name="Movie_ID")).endswith(
        "differs from another in case alone; rename one of them"
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (changed(label=None), "schema key 'label' is missing; add it"),
        (changed(group=None), "schema key 'group' is missing; add it"),
        (changed(features=None), "the schema has no 'features'; add it"),
        (changed(features=[]), "the schema has no features; list at least one"),
        (changed(features={"a": 1}), "features is {'a': 1}; write a list"),
        (changed(features=["age"]), "a feature is 'age'; write `name: value` lines"),
        (
            changed(sequences=[]),
            "the schema has no sequences; LoopCTR reads at least one: it needs the histories "
            "of users, which a log without user and time (such as Criteo's or Avazu's) does not have",
        ),
        (changed(version=2), "schema version is 2; this library reads 1"),
        (
            changed(labels="x"),
            "schema key 'labels' does not exist; did you mean 'label'?",
        ),
        (changed(label=3), "label is 3, an int; give text"),
        (changed(group=""), "group is ''; name the column that GAUC groups by"),
        (
            changed(group="label"),
            "group is 'label', the label; name the column that GAUC groups by",
        ),
        (
            changed(group="w", weight="w"),
            "group is 'w', the weight; name the column that GAUC groups by",
        ),
        (changed(weight="genres"), "column name 'genres' is used twice; names must be unique"),
        (changed(weight=2), "weight is 2, an int; give text"),
        (
            changed("features", 1, truncate="middle"),
            "feature 'genres': truncate is 'middle'; choose 'first', 'last' or 'error'",
        ),
        (
            changed("features", 0, name="history_genres_counts"),
            "column name 'history_genres_counts' is used twice; names must be unique",
        ),
        (
            changed(group="genres"),
            "group is 'genres', which has many values a row; name a column with one",
        ),
        (
            changed(group="history_movie"),
            "group is 'history_movie', which has many values a row; name a column with one",
        ),
        ("movies", "schema is 'movies'; write `name: value` lines"),
    ],
)
def test_a_bad_schema_is_told_with_the_remedy(values, expected):
    assert refusal(values) == expected


def test_inputs_are_named_typed_and_shaped():
    expected = {
        "age": ("float32", (None,), False),
        "zip_code": ("string", (None,), False),
        "device": ("int64", (None,), False),
        "movie_id": ("string", (None,), True),
        "genres": ("string", (None, None), True),
        "affinity": ("float32", (None,), True),
        "history_movie": ("string", (None, None), False),
        "history_genres": ("string", (None, None, None), False),
        "history_gap": ("float32", (None, None), False),
        "history_length": ("int32", (None,), False),
        "long_movie": ("string", (None, None), False),
        "long_rating": ("float32", (None, None), False),
        "long_length": ("int32", (None,), False),
    }
    found = {n: (i.dtype, i.shape, i.candidate) for n, i in small_schema().inputs.items()}
    assert found == expected


def test_rows_of_a_table_count_the_unknown_values():
    schema = small_schema()
    assert [schema.table(name).rows for name in ("movie", "genre", "device", "zip")] == [
        12 + 2,
        3 + 1,
        3 + 1,
        6,
    ]


def test_the_group_column_takes_the_type_of_its_table():
    assert small_schema().group_dtype == "string"
    assert Schema.from_dict(changed(group="device")).group_dtype == "int64"
    assert Schema.from_dict(changed(group="zip_code")).group_dtype == "string"


def test_numbers_of_numpy_and_pandas_serve(tmp_path):
    schema = Schema(
        label="y",
        group="u",
        tables=[Table("t", dtype="int64", vocabulary=list(np.array([4, 9])))],
        features=[
            Feature("a", "numeric", side="user", mean=np.float64(1.5), std=np.float32(2)),
            Feature("i", "categorical", side="item", table="t"),
        ],
        sequences=[Sequence("h", [Feature("h_i", "categorical", table="t")], max_length=3)],
    )
    schema.save(tmp_path)
    assert Schema.load(tmp_path) == schema
    assert schema.table("t").vocabulary == (4, 9)
    assert schema.features[0].mean == 1.5


# Files.


def test_dictionary_round_trip_is_plain_json():
    schema = small_schema()
    assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema


VALUES = [
    "plain",
    "two words",
    " spaces around ",
    "",
    "Amélie",
    "千と千尋",
    "№ 1\t|,\"'",
    "#no: yes",
    "null",
    "1.0",
    "line\u2028separator",
    "next\x85line",
]


def test_save_and_load_keep_every_vocabulary(tmp_path):
    values = changed("tables", "movie", vocabulary=VALUES)
    values["tables"]["device"]["vocabulary"] = [7, -3, 0, 2**63 - 1, -(2**63)]
    schema = Schema.from_dict(values)
    schema.save(tmp_path / "prepared")
    text = (tmp_path / "prepared" / "schema.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text)["tables"]["movie"]["vocabulary"] == "vocab/movie.txt"
    assert (tmp_path / "prepared" / "vocab" / "device.txt").read_text() == (
        "7\n-3\n0\n9223372036854775807\n-9223372036854775808\n"
    )
    for path in (tmp_path / "prepared", tmp_path / "prepared" / "schema.yaml"):
        loaded = Schema.load(path)
        assert loaded == schema
        assert loaded.table("movie").vocabulary == tuple(VALUES)


def test_an_empty_vocabulary_survives(tmp_path):
    schema = Schema.from_dict(changed("tables", "zip", hash_buckets=None, vocabulary=[]))
    schema.save(tmp_path)
    assert Schema.load(tmp_path) == schema
    assert schema.table("zip").rows == 1


def test_a_vocabulary_file_stands_beside_the_schema(tmp_path):
    (tmp_path / "movies.txt").write_text("Heat\r\nAlien\nUp", encoding="utf-8")
    values = changed("tables", "movie", vocabulary="movies.txt")
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump(values))
    assert Schema.load(tmp_path).table("movie").vocabulary == ("Heat", "Alien", "Up")


def test_a_missing_vocabulary_file_is_named(tmp_path):
    text = refusal(changed("tables", "movie", vocabulary="none.txt"), folder=tmp_path)
    assert text == (
        f"table 'movie': vocabulary file '{tmp_path}/none.txt' cannot be read: "
        "No such file or directory"
    )


@pytest.mark.parametrize(
    ("dtype", "content", "expected"),
    [
        ("int64", b"3\nsix\n", "holds a line that is not an int64"),
        ("int64", b"3\n3\n", "vocabulary holds 3 twice; keep one"),
        ("string", b"a\n\xff\n", "is not UTF-8 text; convert it"),
    ],
)
def test_a_bad_vocabulary_file_is_named(tmp_path, dtype, content, expected):
    (tmp_path / "movies.txt").write_bytes(content)
    values = changed("tables", "movie", vocabulary="movies.txt", dtype=dtype)
    text = refusal(values, folder=tmp_path)
    assert text.startswith("table 'movie': ")
    assert expected in text


def test_a_section_build_is_passed_over_in_files_alone(tmp_path):
    values = {**schema_dict(), "build": {"user": "user_id"}}
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    assert Schema.load(tmp_path) == small_schema()
    assert load_with_build(tmp_path) == (small_schema(), {"user": "user_id"})
    assert "key 'build' does not exist" in refusal(values)
    Schema.load(tmp_path).save(tmp_path / "saved")
    assert load_with_build(tmp_path / "saved") == (small_schema(), None)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"label: [", "is not YAML"),
        (b"\xff\xfe", "is not YAML"),
        (b"", "the schema has no 'features'"),
    ],
)
def test_a_file_that_is_no_schema_is_told(tmp_path, content, expected):
    (tmp_path / "schema.yaml").write_bytes(content)
    with pytest.raises(UsageError) as error:
        Schema.load(tmp_path)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_schema_file_is_named(tmp_path):
    with pytest.raises(UsageError) as error:
        Schema.load(tmp_path / "nowhere")
    assert str(error.value).endswith("nowhere' cannot be read: No such file or directory")


def test_the_json_schema_names_every_key_with_its_meaning():
    found = json_schema()
    assert found["additionalProperties"] is False
    assert set(found["properties"]) == {*schema_dict(), "build", "weight"}
    assert set(found["required"]) == {"label", "group", "features", "sequences"}
    table = found["$defs"]["Table"]
    assert set(table["properties"]) == set(Table.model_fields) - {"name"}
    assert "required" not in table or table["required"] == []
    for kind, name in KINDS.items():
        assert found["$defs"][name]["properties"]["type"]["const"] == kind
        assert {"name", "type"} <= set(found["$defs"][name]["required"])
    assert "standardiz" in found["$defs"]["Numeric"]["description"]
    for name in ("Table", "Sequence", *KINDS.values()):
        for key, value in found["$defs"][name]["properties"].items():
            assert value.get("description") or key == "type", (name, key)


KINDS = {
    "categorical": "Categorical",
    "multi_categorical": "MultiCategorical",
    "numeric": "Numeric",
}


def test_inputs_say_all_that_is_known_of_them():
    inputs = small_schema().inputs
    genres = inputs["history_genres"]
    assert (genres.length_name, genres.width, genres.full_sizes) == ("history_length", 2, (5, 2))
    assert (genres.padding, genres.sample) == ("", "action")
    assert genres.axes() == ("batch", "history_length", "values")
    assert inputs["genres"].axes(ranked=True) == ("batch", "candidates", "values")
    assert inputs["age"].axes(ranked=True) == ("batch",)
    assert (inputs["age"].default, inputs["age"].sample) == (25.0, 25.0)
    assert inputs["device"].padding == -1
    length = inputs["long_length"]
    assert (length.is_length, length.is_list, length.sample) == (True, False, 9)
    assert [name for name, each in inputs.items() if each.is_length] == [
        "history_length",
        "long_length",
    ]
    assert inputs["movie_id"].tensor_spec(ranked=True).shape.as_list() == [None, None]


def test_a_feature_is_of_the_class_of_its_type():
    made = Feature(name="price", type="numeric", transform="log1p")
    assert type(made).__name__ == "Numeric"
    assert (made.table, made.max_values) == (None, None)
    np.testing.assert_allclose(made.transformed(np.array([-np.e + 1, 0.0])), [-1.0, 0.0])
    assert made.inverse(-1.0) == pytest.approx(1 - np.e)
    assert Feature("id", "categorical", "item", "movie") == Feature(
        name="id", type="categorical", side="item", table="movie"
    )


def test_a_feature_may_be_made_of_a_column_of_another_name():
    values = changed("features", 0, column="movie-id")
    schema = Schema.from_dict(values)
    assert (schema.features[0].name, schema.features[0].column) == ("movie_id", "movie-id")
    assert schema.features[1].column is None
    assert schema.to_dict()["features"][0]["column"] == "movie-id"
    assert Schema.from_dict(schema.to_dict()) == schema
    with pytest.raises(UsageError, match="column is empty"):
        Schema.from_dict(changed("features", 0, column=""))


def test_long_lists_may_be_cut_off():
    feature = Feature(name="tags", type="multi_categorical", table="tag", max_values=3)
    assert feature.truncate == "error"
    assert feature.replace(truncate="first").truncate == "first"
    with pytest.raises(UsageError, match="truncate"):
        feature.replace(truncate="middle")
