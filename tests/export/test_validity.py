"""What a served request may still have wrong, checked and mended on values worked out by hand."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from loopctr_tf.errors import UsageError
from loopctr_tf.export.validity import check_mode, validated
from tests.factories import small_schema

NAN, INFINITE = np.nan, np.inf


def good() -> dict[str, np.ndarray]:
    """Two requests of the sequence `history` and the numbers of both sides; NaN where it is padding."""
    return {
        "history_movie": np.array([["m1", "m2", ""], ["m3", "", ""]], object),
        "history_genres": np.array([[["action", ""]] * 3, [["drama", "comedy"]] * 3], object),
        "history_gap": np.array([[1.0, 2.0, NAN], [3.0, INFINITE, NAN]], np.float32),
        "history_length": np.array([2, 1], np.int32),
        "age": np.array([20.0, 30.0], np.float32),
        "affinity": np.array([0.5, -0.5], np.float32),
    }


@functools.cache
def graph(mode: str):
    """`validated` with open sizes, traced once."""
    specs = {
        name: tf.TensorSpec([None] * v.ndim, tf.as_dtype(v.dtype)) for name, v in good().items()
    }
    schema = small_schema()
    return tf.function(
        lambda features: validated(features, schema, mode), autograph=False, input_signature=[specs]
    )


def check(mode: str, **changes) -> dict[str, np.ndarray]:
    """`validated` of `good` with some inputs exchanged, in a graph of open sizes as in an export."""
    features = {name: tf.constant(value) for name, value in {**good(), **changes}.items()}
    found = {name: value.numpy() for name, value in graph(mode)(features).items()}
    assert {name: value.dtype for name, value in found.items()} == {
        name: value.numpy().dtype for name, value in features.items()
    }
    return found


def as_strings(values: np.ndarray) -> list:
    return np.vectorize(bytes.decode, otypes=[object])(values).tolist()


@pytest.mark.parametrize("mode", ["reject", "repair"])
def test_good_requests_pass_unchanged_whatever_is_in_their_padding(mode):
    found = check(mode)
    for name, value in good().items():
        got = as_strings(found[name]) if value.dtype == object else found[name]
        np.testing.assert_array_equal(got, value.tolist() if value.dtype == object else value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"history_length": np.array([2, -1], np.int32)},
            "[history_length must be from 0 to the number of events sent; received] [-1] [with] [3]",
        ),
        (
            {"history_length": np.array([4, 1], np.int32)},
            "[history_length must be from 0 to the number of events sent; received] [4] [with] [3]",
        ),
        (
            {"history_movie": np.array([["m1", "m2"], ["m3", ""]], object)},
            "[fields history_movie, history_genres, history_gap of sequence history differ in their "
            "second dimension; pad them to one length. Received sizes] [2 3 3]",
        ),
        (
            {"history_gap": np.array([[1.0, NAN, 0.0], [3.0, 0.0, 0.0]], np.float32)},
            "[history_gap must be finite; received] [nan]",
        ),
        (
            {"history_gap": np.array([[1.0, 2.0, 0.0], [-INFINITE, 0.0, 0.0]], np.float32)},
            "[history_gap must be finite; received] [-inf]",
        ),
        ({"age": np.array([20.0, NAN], np.float32)}, "[age must be finite; received] [nan]"),
        (
            {"affinity": np.array([INFINITE, 0.0], np.float32)},
            "[affinity must be finite; received] [inf]",
        ),
    ],
)
def test_reject_names_the_feature_and_what_was_received(changes, words):
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        check("reject", **changes)
    assert f"assertion failed: {words}" in error.value.message.replace("\\'", "'")


@pytest.mark.parametrize(
    ("sent", "mended"), [([-1, 4], [0, 3]), ([3, 0], [3, 0]), ([-(2**31), 2**31 - 1], [0, 3])]
)
def test_repair_clips_lengths(sent, mended):
    found = check(
        "repair",
        history_length=np.array(sent, np.int32),
        history_gap=np.zeros([2, 3], np.float32),
    )
    assert found["history_length"].tolist() == mended


def test_repair_cuts_fields_to_the_shortest():
    found = check("repair", history_gap=np.array([[1.0], [3.0]], np.float32))
    assert as_strings(found["history_movie"]) == [["m1"], ["m3"]]
    assert as_strings(found["history_genres"]) == [[["action", ""]], [["drama", "comedy"]]]
    assert found["history_gap"].tolist() == [[1.0], [3.0]]
    assert found["history_length"].tolist() == [1, 1]


def test_repair_takes_the_features_default_for_what_is_not_finite():
    found = check(
        "repair",
        history_gap=np.array([[NAN, 2.0, 7.0], [-INFINITE, 8.0, 9.0]], np.float32),
        age=np.array([INFINITE, 30.0], np.float32),
        affinity=np.array([0.5, NAN], np.float32),
    )
    # The defaults of the schema: 25 years, 0 for the others.
    assert found["history_gap"].tolist() == [[0.0, 2.0, 7.0], [0.0, 8.0, 9.0]]
    assert found["age"].tolist() == [25.0, 30.0]
    assert found["affinity"].tolist() == [0.5, 0.0]


def test_repair_mends_what_a_clipped_length_lays_bare():
    found = check("repair", history_length=np.array([9, 1], np.int32))
    assert found["history_length"].tolist() == [3, 1]
    np.testing.assert_array_equal(found["history_gap"], [[1.0, 2.0, 0.0], [3.0, INFINITE, NAN]])


@pytest.mark.parametrize("mode", ["reject", "repair"])
def test_no_rows_and_no_events_are_legal(mode):
    nothing = {name: value[:0] for name, value in good().items()}
    assert check(mode, **nothing)["history_length"].shape == (0,)
    no_events = {
        name: value[:, :0]
        for name, value in good().items()
        if name.startswith("history_") and value.ndim > 1
    }
    found = check(mode, **no_events, history_length=np.zeros(2, np.int32))
    assert found["history_gap"].shape == (2, 0)
    assert found["history_length"].tolist() == [0, 0]


def test_either_side_may_be_checked_alone():
    schema = small_schema()
    candidates = {"affinity": tf.constant([[0.5, NAN]])}
    mended = validated(candidates, schema, "repair")
    assert mended["affinity"].numpy().tolist() == [[0.5, 0.0]]
    assert set(mended) == {"affinity"}
    with pytest.raises(tf.errors.InvalidArgumentError, match="affinity must be finite"):
        validated(candidates, schema, "reject")


def test_modes():
    assert check_mode("reject") == "reject"
    assert check_mode("repair") == "repair"
    with pytest.raises(UsageError, match="bad_input is 'ignore'; choose reject or repair"):
        check_mode("ignore")
