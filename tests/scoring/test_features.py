import numpy as np
import pandas as pd
import pytest

from loopctr_tf.errors import UsageError
from loopctr_tf.scoring.client.features import to_arrays
from loopctr_tf.scoring.client.signature import Signature, TensorInfo

STRING, FLOAT, INT, LONG = (np.dtype(name) for name in ("O", "float32", "int32", "int64"))


def signature(candidates=(), optional=(), **inputs) -> Signature:
    """Inputs are (type, shape) or, for fields of a sequence, (type, shape, name of their length)."""
    infos = {
        name: TensorInfo(dtype, shape, ("batch", *length, "")[: len(shape)])
        for name, (dtype, shape, *length) in inputs.items()
    }
    return Signature("s", infos, {}, frozenset(optional), frozenset(candidates))


ROW = (None,)
LIST = (None, None)


@pytest.fixture
def sequence() -> Signature:
    return signature(
        h_id=(STRING, LIST, "h_length"),
        h_time=(FLOAT, LIST, "h_length"),
        h_length=(INT, ROW),
    )


def test_lists_become_typed_arrays():
    one = signature(user=(STRING, ROW), price=(FLOAT, ROW), year=(LONG, ROW))
    found = to_arrays(one, {"user": ["é", b"b"], "price": [1, 2.5], "year": (1999, 2000)})
    assert found["user"].tolist() == ["é".encode(), b"b"]
    assert found["price"].dtype == np.float32
    assert found["price"].tolist() == [1.0, 2.5]
    assert found["year"].dtype == np.int64
    assert found["year"].tolist() == [1999, 2000]


def test_padding_on_the_right_and_the_length(sequence):
    found = to_arrays(sequence, {"h_id": [["a"], [], ["b", "c"]], "h_time": [[1], [], [2, 3]]})
    assert found["h_id"].tolist() == [[b"a", b""], [b"", b""], [b"b", b"c"]]
    assert found["h_time"].tolist() == [[1, 0], [0, 0], [2, 3]]
    assert found["h_length"].dtype == np.int32
    assert found["h_length"].tolist() == [1, 0, 2]


def test_whole_numbers_are_padded_by_what_marks_them_as_absent():
    one = signature(h_id=(LONG, LIST, "h_length"), h_length=(INT, ROW), tags=(LONG, LIST))
    found = to_arrays(one, {"h_id": [[5], [6, 7]], "tags": [[5], [6, 7]]})
    assert found["h_id"].tolist() == [[5, -1], [6, 7]]
    assert found["tags"].tolist() == [[5, -1], [6, 7]]
    assert found["h_length"].tolist() == [1, 2]


def test_three_axes():
    one = signature(h_tags=(STRING, (None, None, None), "h_length"), h_length=(INT, ROW))
    found = to_arrays(one, {"h_tags": [[["x", "y"], ["z"]], [[]], []]})
    assert found["h_tags"].tolist() == [
        [[b"x", b"y"], [b"z", b""]],
        [[b"", b""], [b"", b""]],
        [[b"", b""], [b"", b""]],
    ]
    assert found["h_length"].tolist() == [2, 1, 0]


def test_a_given_length_is_kept(sequence):
    found = to_arrays(sequence, {"h_id": [["a", "b"]], "h_time": np.ones((1, 2)), "h_length": [1]})
    assert found["h_length"].tolist() == [1]


def test_dense_strings_end_at_the_last_that_is_not_empty(sequence):
    dense = np.array([["a", "", "b", ""], ["", "", "", ""], ["a", "b", "c", "d"]])
    found = to_arrays(sequence, {"h_id": dense, "h_time": np.zeros((3, 4))})
    assert found["h_length"].tolist() == [3, 0, 4]


def test_dense_numbers_alone_do_not_tell_a_length():
    one = signature(h_time=(FLOAT, LIST, "h_length"), h_length=(INT, ROW))
    with pytest.raises(
        UsageError, match=r"'h_length' is missing and cannot be computed .*'h_time'"
    ):
        to_arrays(one, {"h_time": np.ones((2, 3), np.float32)})


def test_fields_that_disagree_on_the_length(sequence):
    with pytest.raises(UsageError) as caught:
        to_arrays(sequence, {"h_id": [["a"], ["b", "c"]], "h_time": [[1.0], [2.0]]})
    assert str(caught.value) == (
        "row 1 has 2 events in 'h_id' and 1 in 'h_time'; give both the same number, or send "
        "'h_length' (int32 [?])"
    )


def test_a_length_counts_the_fields_that_name_it():
    one = signature(
        click=(STRING, LIST, "n"),
        n=(INT, ROW),
        seen=(STRING, LIST, "seen_number"),
        seen_number=(INT, ROW),
        tags=(STRING, LIST),
        n_length=(INT, ROW),
    )
    features = {"click": [["a"]], "seen": [["a", "b"]], "tags": [["x", "y", "z"]], "n_length": [7]}
    found = to_arrays(one, features)
    assert (found["n"].tolist(), found["seen_number"].tolist()) == ([1], [2])
    assert found["n_length"].tolist() == [7]


def test_a_signature_without_names_of_axes_needs_its_lengths():
    infos = {"h": TensorInfo(STRING, LIST), "h_length": TensorInfo(INT, ROW)}
    unnamed = Signature("s", infos, {})
    with pytest.raises(UsageError) as caught:
        to_arrays(unnamed, {"h": [["a"], ["b", "c"]]})
    assert str(caught.value) == (
        "feature 'h_length' is missing; signature 's' takes: h (string [?,?]), h_length (int32 "
        "[?]); this export does not say which input counts the events of a list: export the model "
        "again, or send the length inputs"
    )
    found = to_arrays(unnamed, {"h": [["a"], ["b", "c"]], "h_length": [1, 2]})
    assert found["h"].tolist() == [[b"a", b""], [b"b", b"c"]]
    assert found["h_length"].tolist() == [1, 2]


def test_candidates_are_no_events():
    one = signature(
        candidates=["h_match"],
        h=(STRING, LIST, "h_length"),
        h_length=(INT, ROW),
        h_match=(FLOAT, LIST),
    )
    found = to_arrays(one, {"h": [["a"]], "h_match": [[0.5, 0.25, 1.0]]})
    assert found["h_length"].tolist() == [1]


def test_data_frame():
    one = signature(
        user=(STRING, ROW),
        price=(FLOAT, ROW),
        h=(STRING, LIST, "h_length"),
        h_length=(INT, ROW),
        n=(INT, ROW),
    )
    frame = pd.DataFrame(
        {
            "user": pd.Series(["a", "b", "c"], dtype="str"),
            "price": [1.5, 2.5, float("nan")],
            "h": [["x", "y"], None, np.array(["z"], object)],
            "n": pd.Series([1, 2, 3], dtype="Int64"),
        }
    ).set_index(pd.Index([7, 7, 9]))
    found = to_arrays(one, frame)
    assert found["user"].tolist() == [b"a", b"b", b"c"]
    np.testing.assert_array_equal(found["price"], np.array([1.5, 2.5, np.nan], np.float32))
    assert found["h"].tolist() == [[b"x", b"y"], [b"", b""], [b"z", b""]]
    assert found["h_length"].tolist() == [2, 0, 1]
    assert found["n"].tolist() == [1, 2, 3]


def test_rows_of_arrays():
    one = signature(h=(LONG, LIST, "h_length"), h_length=(INT, ROW))
    found = to_arrays(one, {"h": [np.array([1, 2]), np.array([], np.int64), np.array([3])]})
    assert found["h"].tolist() == [[1, 2], [-1, -1], [3, -1]]


def test_no_rows():
    one = signature(
        user=(STRING, ROW), h=(STRING, LIST, "h_length"), h_length=(INT, ROW), price=(FLOAT, ROW)
    )
    found = to_arrays(one, {"user": [], "h": [], "price": []})
    assert {name: array.shape for name, array in found.items()} == {
        "user": (0,),
        "h": (0, 0),
        "h_length": (0,),
        "price": (0,),
    }
    assert found["price"].dtype == np.float32


def test_optional_inputs_may_be_left_out():
    one = signature(optional=["price"], user=(STRING, ROW), price=(FLOAT, ROW))
    assert set(to_arrays(one, {"user": ["a"]})) == {"user"}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (["x", "y"], "'f' holds str"),
        ([1.0, None], "'f' has no value in place 1"),
        ([[1.0], [2.0]], r"'f' is a list with the list \[1.0\] inside; give float32 \[\?\]"),
        ([1.0, [2.0]], "'f' is a list with the list"),
        (np.ones((2, 1)), r"'f' is an array of shape \[2,1\]; give float32 \[\?\]"),
        (3.0, r"'f' is an array of shape \[\]"),
        ("3.0", "'f' is the string '3.0'"),
        ([1e39], "'f' holds a number too large for float32"),
        (np.array(["2020-01-01"], "datetime64[D]"), "'f' holds datetime64"),
    ],
)
def test_bad_floats(value, words):
    with pytest.raises(UsageError, match=words):
        to_arrays(signature(f=(FLOAT, ROW)), {"f": value})


@pytest.mark.parametrize("value", [2.5, float("nan"), float("inf"), 2**31, -(2**31) - 1])
def test_whole_numbers_keep_their_value(value):
    with pytest.raises(UsageError, match=r"'f' holds .*, which int32 cannot hold"):
        to_arrays(signature(f=(INT, ROW)), {"f": [1, value]})


def test_casts_that_keep_the_value():
    found = to_arrays(signature(f=(INT, ROW)), {"f": np.array([1.0, -3.0])})
    assert found["f"].tolist() == [1, -3]
    assert to_arrays(signature(f=(INT, ROW)), {"f": [True, False]})["f"].tolist() == [1, 0]
    wide = np.array([1, 2**40], np.uint64)
    assert to_arrays(signature(f=(LONG, ROW)), {"f": wide})["f"].tolist() == [1, 2**40]


@pytest.mark.parametrize("value", [[1, 2], ["a", None], [float("nan")], np.array([1.5])])
def test_strings_are_not_made_up(value):
    with pytest.raises(UsageError, match="'f' takes strings"):
        to_arrays(signature(f=(STRING, ROW)), {"f": value})


@pytest.mark.parametrize("value", [["a", "b"], [["a"], "b"], [1], [[["a"]]]])
def test_wrong_nesting(value):
    with pytest.raises(UsageError, match="'f'"):
        to_arrays(signature(f=(STRING, LIST)), {"f": value})


def test_missing_and_unknown_features(sequence):
    with pytest.raises(UsageError, match=r"'h_time' is missing; .* h_time \(float32 \[\?,\?\]\)"):
        to_arrays(sequence, {"h_id": [["a"]]})
    with pytest.raises(UsageError, match="features 'h_id', 'h_time' are missing"):
        to_arrays(signature(h_id=(STRING, LIST, "h_length"), h_time=(FLOAT, LIST, "h_length")), {})
    # a length that its fields would tell comes behind them
    one = signature(h_length=(INT, ROW), h_time=(FLOAT, LIST, "h_length"), x=(FLOAT, ROW))
    with pytest.raises(UsageError, match=r"^features 'h_time', 'x', 'h_length' are missing"):
        to_arrays(one, {})
    with pytest.raises(UsageError, match="'color' is not an input of signature 's'; leave it out"):
        to_arrays(sequence, {"h_id": [["a"]], "h_time": [[1]], "color": ["red"]})


def test_unequal_sizes():
    two = signature(user=(STRING, ROW), price=(FLOAT, ROW))
    with pytest.raises(UsageError, match="'price' has 3 rows where 'user' has 2"):
        to_arrays(two, {"user": ["a", "b"], "price": [1, 2, 3]})
    rank = signature(candidates=["item", "price"], item=(STRING, LIST), price=(FLOAT, LIST))
    with pytest.raises(UsageError, match="'price' has 3 candidates where 'item' has 2"):
        to_arrays(rank, {"item": [["a", "b"]], "price": [[1, 2, 3]]})
    fixed = signature(x=(FLOAT, (None, 3)))
    with pytest.raises(UsageError, match=r"'x' has shape \[1,2\]; give float32 \[\?,3\]"):
        to_arrays(fixed, {"x": [[1, 2]]})


def test_candidates_are_not_padded():
    rank = signature(
        candidates=["item", "tags"], item=(STRING, LIST), tags=(LONG, (None, None, None))
    )
    with pytest.raises(UsageError, match="'item' has 2 candidates in request 0 and 1 in request 1"):
        to_arrays(rank, {"item": [["a", "b"], ["c"]], "tags": np.zeros((2, 2, 1), np.int64)})
    found = to_arrays(rank, {"item": np.array([["a", ""]]), "tags": [[[7], [8, 9]]]})
    assert found["item"].tolist() == [[b"a", b""]]
    assert found["tags"].tolist() == [[[7, -1], [8, 9]]]


def test_what_is_no_mapping():
    with pytest.raises(UsageError, match="features are a list"):
        to_arrays(signature(f=(FLOAT, ROW)), [1, 2])
    twice = pd.DataFrame([[1, 2]], columns=["f", "f"])
    with pytest.raises(UsageError, match="two columns 'f'"):
        to_arrays(signature(f=(FLOAT, ROW)), twice)


def test_ids_that_came_as_floats_are_never_rounded():
    one = signature(item=(LONG, ROW), h=(LONG, LIST, "n"), n=(INT, ROW))
    frame = pd.DataFrame({"item": pd.Series([2**53 + 1, None], dtype="float64").fillna(-1)})
    frame["h"] = [[1.0], [2.0]]
    with pytest.raises(UsageError) as caught:
        to_arrays(one, frame)
    assert str(caught.value) == (
        "feature 'item' holds 9007199254740992.0 in row 0, beyond 2^53 and not stored as a whole "
        "number; store it as int64 or as text"
    )
    frame["item"] = [1.0, 117.0]
    assert to_arrays(one, frame)["item"].tolist() == [1, 117]
    for late in ([2, 2.0**53], np.array([2.0, 2.0**60]), [2.0, 2**53 + 1]):
        with pytest.raises(UsageError, match=r"'h' holds .* in row 1, beyond 2\^53 and not stored"):
            to_arrays(one, {"item": [1, 2], "h": [[1, 2, 3], late]})
    with pytest.raises(UsageError, match=r"in row 1, beyond 2\^24 and not stored as a whole"):
        to_arrays(one, {"item": np.array([1, 2**24], np.float32), "h": [[], []]})
    kept = to_arrays(one, {"item": [2**53 + 1, 1], "h": [[2**53 + 1], []]})
    assert (kept["item"].tolist(), kept["h"].tolist()) == ([2**53 + 1, 1], [[2**53 + 1], [-1]])


def test_text_is_spelt_as_prepare_spells_it():
    one = signature(user=(STRING, ROW), h=(STRING, LIST, "n"), n=(INT, ROW))
    found = to_arrays(one, {"user": ["117.0", "NA"], "h": [["True", " a"], ["007", b" raw.0 "]]})
    assert found["user"].tolist() == [b"117", b""]
    assert found["h"].tolist() == [[b"true", b"a"], [b"007", b" raw.0 "]]
    assert to_arrays(one, {"user": np.array(["5.0"]), "h": [[]]})["user"].tolist() == [b"5"]
    with pytest.raises(
        UsageError, match=r"'user' holds '9007199254740993.0' in row 1, beyond 2\^53"
    ):
        to_arrays(one, {"user": ["a", "9007199254740993.0"], "h": [[], []]})
