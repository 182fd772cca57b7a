from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from loopctr_tf.errors import UsageError
from loopctr_tf.features.frame import Column, frame_columns, unfilled_columns
from loopctr_tf.features.schema import Feature, Schema, Sequence, Table
from tests.factories import random_frame, small_schema


def schema(group: str = "user") -> Schema:
    """Every kind of column, once with text and once with whole numbers."""
    return Schema(
        label="click",
        group=group,
        tables=[
            Table("word", hash_buckets=9),
            Table("number", dtype="int64", hash_buckets=9),
        ],
        features=[
            Feature("word", "categorical", side="item", table="word"),
            Feature("number", "categorical", side="item", table="number"),
            Feature("words", "multi_categorical", side="item", table="word", max_values=2),
            Feature("price", "numeric", side="item", default=-1.0),
        ],
        sequences=[
            Sequence(
                "past",
                [
                    Feature("past_number", "categorical", table="number"),
                    Feature("past_words", "multi_categorical", table="word", max_values=2),
                    Feature("past_numbers", "multi_categorical", table="number", max_values=3),
                    Feature("past_price", "numeric", default=0.5),
                ],
                max_length=2,
            )
        ],
    )


def frame(**columns) -> pd.DataFrame:
    """Two good rows; a column may be replaced."""
    return pd.DataFrame(
        {
            "user": ["u", "v"],
            "word": ["a", "b"],
            "number": [1, 2],
            "words": [["a"], []],
            "price": [0.5, 2.0],
            "past_number": [[1, 2], [3]],
            "past_words": [[["a"], []], [["b", "c"]]],
            "past_numbers": [[[1], []], [[2, 3]]],
            "past_price": [[1.0, 2.0], [3.0]],
            "click": [0, 1],
            **columns,
        }
    )


def values(name: str, **columns) -> list:
    return frame_columns(frame(**columns), schema())[name].values.tolist()


def rows(column: Column) -> list[list]:
    """The values of each row."""
    return [part.tolist() for part in np.split(column.values, column.row_splits[1:-1])]


def refusal(**columns) -> str:
    """The text of the UsageError, which is one line."""
    with pytest.raises(UsageError) as error:
        frame_columns(frame(**columns), schema())
    text = str(error.value)
    assert "\n" not in text
    return text


# What comes out.


def test_every_column_with_its_type():
    columns = frame_columns(frame(), schema())
    assert set(columns) == {*frame().columns, "past_words_counts", "past_numbers_counts"}
    assert columns["click"].values.tolist() == [0.0, 1.0]
    assert columns["click"].values.dtype == np.float32
    assert columns["price"].values.dtype == np.float32
    assert columns["number"].values.dtype == np.int64
    assert columns["word"].values.tolist() == ["a", "b"]
    assert rows(columns["words"]) == [["a"], []]
    assert rows(columns["past_number"]) == [[1, 2], [3]]
    assert rows(columns["past_price"]) == [[1.0, 2.0], [3.0]]


def test_multi_valued_fields_of_a_sequence_are_their_values_and_how_many_an_event_has():
    columns = frame_columns(frame(), schema())
    assert rows(columns["past_words"]) == [["a"], ["b", "c"]]
    assert rows(columns["past_words_counts"]) == [[1, 0], [2]]
    assert rows(columns["past_numbers"]) == [[1], [2, 3]]
    assert rows(columns["past_numbers_counts"]) == [[1, 0], [2]]
    assert columns["past_words_counts"].values.dtype == np.int64


def test_the_most_recent_events_stay():
    columns = frame_columns(
        frame(
            past_number=[[1, 2, 3, 4], [5]],
            past_words=[[["a"], ["b"], ["c"], ["d", "e"]], [[]]],
            past_numbers=[[[1], [2], [3, 3], []], [[5]]],
            past_price=[[1.0, 2.0, 3.0, 4.0], [5.0]],
        ),
        schema(),
    )
    assert rows(columns["past_number"]) == [[3, 4], [5]]
    assert rows(columns["past_price"]) == [[3.0, 4.0], [5.0]]
    assert rows(columns["past_words"]) == [["c", "d", "e"], []]
    assert rows(columns["past_words_counts"]) == [[1, 2], [0]]
    assert rows(columns["past_numbers"]) == [[3, 3], [5]]
    assert rows(columns["past_numbers_counts"]) == [[2, 0], [1]]


def test_what_is_missing_takes_the_default_or_the_padding_value():
    assert values("price", price=[None, 2.0]) == [-1.0, 2.0]
    assert values("price", price=[np.nan, 2.0]) == [-1.0, 2.0]
    assert values("word", word=[None, "b"]) == ["", "b"]
    assert values("number", number=[None, 2]) == [-1, 2]
    assert values("number", number=pd.array([None, 2], dtype="Int64")) == [-1, 2]
    assert values("past_price", past_price=[[None, np.nan], [3.0]]) == [0.5, 0.5, 3.0]
    assert values("past_number", past_number=[[1, None], [3]]) == [1, -1, 3]
    assert values("words", words=[["a", None], None]) == ["a", ""]


def test_missing_numbers_may_be_left_unfilled():
    columns = unfilled_columns(
        frame(price=[None, 2.0], past_price=[[1.0, np.nan], [3.0]]), schema()
    )
    np.testing.assert_array_equal(columns["price"].values, [np.nan, 2.0])
    np.testing.assert_array_equal(columns["past_price"].values, [1.0, np.nan, 3.0])


def test_a_missing_list_is_an_empty_one():
    columns = frame_columns(
        frame(
            words=[None, ["b"]],
            past_number=[None, [3]],
            past_words=[None, [None]],
            past_numbers=[[], [[7]]],
            past_price=[None, [3.0]],
        ),
        schema(),
    )
    assert rows(columns["words"]) == [[], ["b"]]
    assert rows(columns["past_number"]) == [[], [3]]
    assert rows(columns["past_words"]) == [[], []]
    assert rows(columns["past_words_counts"]) == [[], [0]]
    assert rows(columns["past_numbers"]) == [[], [7]]
    assert rows(columns["past_numbers_counts"]) == [[], [1]]


def test_columns_without_any_value_keep_their_types():
    empty = frame_columns(
        frame(
            words=[[], []],
            past_number=[[3], [4]],
            past_words=[[[]], [[]]],
            past_numbers=[[[]], [[]]],
            past_price=[[1.0], [2.0]],
        ),
        schema(),
    )
    assert empty["past_numbers"].values.dtype == np.int64
    assert rows(empty["past_numbers"]) == rows(empty["past_words"]) == [[], []]
    assert rows(empty["past_numbers_counts"]) == rows(empty["past_words_counts"]) == [[0], [0]]
    assert rows(empty["words"]) == [[], []]
    none = {name: [[], []] for name in frame().columns if name.startswith("past_")}
    columns = frame_columns(frame(**none), schema())
    assert columns["past_number"].values.dtype == np.int64
    assert columns["past_price"].values.dtype == np.float32
    for name in none:
        assert rows(columns[name]) == [[], []]


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(["a", "b"], dtype="category"),
        pd.Series(["a", "b"], dtype="string"),
        pd.Series(["a", "b"], dtype=object),
        pd.Series([b"a", b"b"]),
    ],
    ids=str,
)
def test_text_of_any_pandas_type_serves(column):
    assert values("word", word=column) == ["a", "b"]


@pytest.mark.parametrize("dtype", ["int8", "uint32", "Int64", "float64", "category", object])
def test_whole_numbers_of_any_pandas_type_serve(dtype):
    column = pd.Series([3, 5]).astype(dtype)
    assert values("number", number=column) == [3, 5]
    assert values("price", price=column.astype("int64")) == [3.0, 5.0]


def test_lists_may_be_arrays_or_tuples():
    assert values("past_number", past_number=[np.array([1, 2]), (3,)]) == [1, 2, 3]
    assert values("words", words=[np.array(["a", "b"], dtype=object), ("c",)]) == ["a", "b", "c"]


@pytest.mark.parametrize("click", [[True, False], [1.0, 0.0], ["1", "0"]])
def test_labels_of_several_types_serve(click):
    assert values("click", click=click) == [1.0, 0.0]


def test_the_group_column_is_text_unless_it_is_a_feature():
    assert values("user", user=[17, 4]) == ["17", "4"]
    columns = frame_columns(frame().drop(columns="user"), schema(group="number"))
    assert columns["number"].values.tolist() == [1, 2]
    assert "user" not in columns


def test_columns_that_the_schema_does_not_name_are_left_out():
    assert "note" not in frame_columns(frame(note=["x", "y"]), schema())


# What is refused.


def test_an_empty_frame_is_refused():
    with pytest.raises(UsageError) as error:
        frame_columns(random_frame(2).iloc[:0], small_schema())
    assert str(error.value) == "the DataFrame has no rows; give at least one"


@pytest.mark.parametrize("name", ["word", "words", "price", "past_number", "user", "click"])
def test_a_missing_column_is_named(name):
    with pytest.raises(UsageError) as error:
        frame_columns(frame().drop(columns=name), schema())
    text = str(error.value)
    assert text.startswith(f"column {name!r} is missing; add it, the DataFrame has ")
    assert text.endswith(", ".join(frame().drop(columns=name).columns))


def test_a_column_that_is_there_twice_is_named():
    twice = pd.concat([frame(), frame()[["price"]]], axis=1)
    with pytest.raises(UsageError) as error:
        frame_columns(twice, schema())
    assert str(error.value) == "the DataFrame has column 'price' more than once; keep one"


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ({"word": [1, 2]}, "string"),
        ({"word": [["a"], ["b"]]}, "string"),
        ({"number": ["one", "two"]}, "int64"),
        ({"number": [1.5, 2.0]}, "int64"),
        ({"number": [2**70, 1]}, "int64"),
        ({"price": ["cheap", "dear"]}, "float"),
        ({"price": [[1.0], [2.0]]}, "float"),
        ({"words": ["a", "b"]}, "list<item: string>"),
        ({"words": [[1], [2]]}, "list<item: string>"),
        ({"past_number": [1, 2]}, "list<item: int64>"),
        ({"past_number": [["x", "y"], ["z"]]}, "list<item: int64>"),
        ({"past_price": [["x", "y"], ["z"]]}, "list<item: float>"),
        ({"past_words": [["a", "b"], ["c"]]}, "list<item: list<item: string>>"),
        ({"past_words": [[["a"], "b"], [["c"]]]}, "list<item: list<item: string>>"),
    ],
)
def test_a_wrong_type_is_told_with_the_type_that_the_schema_says(column, kind):
    text = refusal(**column)
    assert text.startswith(f"column {next(iter(column))!r} is not what the schema says ({kind}")
    assert text.endswith("; convert it, or change the schema")


@pytest.mark.parametrize("words", [["drama", "war"], [["drama"], "war"], ["drama", ["war"]]])
def test_text_is_not_taken_for_a_list_of_letters(words):
    text = refusal(words=pd.Series(words, dtype=object))
    assert text.startswith("column 'words' is not what the schema says (list<item: string>): ")


@pytest.mark.parametrize(
    "column",
    [
        {"number": pd.Series([1.5, 2], dtype=object)},
        {"past_number": [[1, 2.5], [3]]},
        {"past_number": [np.array([1.0, 2.5]), np.array([3.0])]},
        {"past_numbers": [[[1], [2.5]], [[3]]]},
        {"past_number": [[1, Decimal("2.5")], [3]]},
    ],
)
def test_fractions_are_not_cut_to_whole_numbers(column):
    text = refusal(**column)
    assert text.startswith(f"column {next(iter(column))!r} is not what the schema says (")
    assert "int64" in text


def test_whole_numbers_may_be_written_as_floats():
    assert values("past_number", past_number=[[1.0, np.nan], [3.0]]) == [1, -1, 3]
    assert values("past_number", past_number=[[2**60, 1], [2]])[0] == 2**60


def test_an_infinite_number_is_refused():
    expected = "holds an infinite number; replace or remove it"
    assert refusal(price=[1.0, np.inf]) == f"column 'price' {expected}"
    assert refusal(past_price=[[1.0, -np.inf], [2.0]]) == f"column 'past_price' {expected}"


@pytest.mark.parametrize(
    ("click", "row", "shown"),
    [
        ([1, 2], 1, "2"),
        ([0.5, 1], 0, "0.5"),
        ([0, -1], 1, "-1"),
        ([None, 1], 0, "nan"),
        (["yes", "0"], 0, "'yes'"),
    ],
)
def test_a_label_other_than_0_and_1_is_named_with_its_row(click, row, shown):
    text = refusal(click=click)
    assert text.startswith("label 'click' is ")
    assert shown in text
    assert text.endswith(f" in row {row}; labels must be 0 or 1")


def test_too_many_values_are_told_with_their_row():
    assert refusal(words=[["a"], ["a", "b", "c"]]) == (
        "column 'words' has 3 values in row 1 and max_values is 2; raise max_values, send fewer, or "
        "give the feature truncate: first"
    )
    assert refusal(past_words=[[["a"], []], [["b", "c", "d"]]]) == (
        "column 'past_words' has 3 values in row 1 and max_values is 2; "
        "raise max_values, send fewer, or give the feature truncate: first"
    )


def test_weights():
    weighted = Schema.from_dict({**schema().to_dict(), "weight": "w"})
    columns = frame_columns(frame(w=[0, 2.5]), weighted)
    assert columns["w"].values.tolist() == [0.0, 2.5]
    assert columns["w"].values.dtype == np.float32
    for wrong in (-1.0, None, "much", np.inf, 1e39):
        with pytest.raises(UsageError, match=r"weight 'w' is .* in row 1; weights must be numbers"):
            frame_columns(frame(w=[1.0, wrong]), weighted)
    with pytest.raises(UsageError, match="column 'w' is missing"):
        frame_columns(frame(), weighted)


@pytest.mark.parametrize(
    ("truncate", "words", "past"),
    [
        ("first", [["a", "b"], []], [["a", "d", "e"], ["g", "h"]]),
        ("last", [["b", "c"], []], [["a", "e", "f"], ["h", "i"]]),
    ],
)
def test_longer_lists_are_cut_where_the_schema_says_so(truncate, words, past):
    values = schema().to_dict()
    values["features"][2]["truncate"] = values["sequences"][0]["fields"][1]["truncate"] = truncate
    assert values["features"][2]["name"] == "words"
    long = frame(
        words=[["a", "b", "c"], []],
        past_number=[[1, 2, 3], [3]],
        past_words=[[["x"] * 9, ["a"], ["d", "e", "f"]], [["g", "h", "i"]]],
        past_numbers=[[[], [], []], [[]]],
        past_price=[[1.0, 2.0, 3.0], [3.0]],
    )
    columns = frame_columns(long, Schema.from_dict(values))
    assert rows(columns["words"]) == words
    assert rows(columns["past_words"]) == past
    assert rows(columns["past_words_counts"]) == [[1, 2], [2]]


def test_fields_of_unequal_length_are_told_with_their_row():
    assert refusal(past_price=[[1.0, 2.0], [3.0, 4.0]]) == (
        "column 'past_price' has 2 events in row 1 and 'past_number' has 1; "
        "all fields of sequence 'past' need the same number"
    )


def test_rows_are_named_by_their_label_in_the_index():
    part = frame(click=[0, 7]).set_axis(["first", "second"])
    with pytest.raises(UsageError, match="in row second; labels"):
        frame_columns(part, schema())
    part = frame(words=[["a"], ["a", "b", "c"]]).set_axis([40, 50]).iloc[1:]
    with pytest.raises(UsageError, match="in row 50 and max_values"):
        frame_columns(part, schema())
