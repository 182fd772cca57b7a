"""Bad input that only the graph can see, and the whole way from rows to scores over gRPC."""

import grpc
import numpy as np
import pytest
import tensorflow as tf

import loopctr_tf as lc
from loopctr_tf.scoring import ScoringError
from tests.exported import expected, tensors
from tests.factories import learnable_frame, small_schema


def changed(rows, count=3, **changes) -> dict[str, np.ndarray]:
    """The first rows, some inputs exchanged in the first of them by what ``changes`` does."""
    some = {name: value[:count].copy() for name, value in rows.items()}
    for name, change in changes.items():
        some[name][0] = change(some[name][0])
    return some


# Bad input that only the graph can see.


def padding_of(rows, value: float) -> dict[str, np.ndarray]:
    """The rows with ``value`` in the padding of every numeric sequence field."""
    found = {name: array.copy() for name, array in rows.items()}
    for field, length in (("history_gap", "history_length"), ("long_rating", "long_length")):
        width = found[field].shape[1]
        found[field][np.arange(width) >= found[length][:, None]] = value
    return found


def test_what_is_in_the_padding_is_no_matter(loaded, repairing, raw_rows, tested):
    rows = padding_of(raw_rows, np.nan)
    assert np.isnan(rows["history_gap"]).any()
    assert np.isnan(rows["long_rating"]).any()
    for call in (loaded.signatures["serving_default"], repairing):
        found = call(**tensors(rows))["probability"]
        np.testing.assert_allclose(found, expected(tested, "serving_default"), atol=1e-5)


def first_value(value):
    def change(array):
        array = array.copy()
        array[0] = value
        return array

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"long_length": lambda _: -1}, r"long_length must be from 0 .* received\] \[-1\]"),
        ({"history_length": lambda _: 99}, r"history_length must be from 0 .* received\] \[99\]"),
        ({"affinity": lambda _: -np.inf}, r"affinity must be finite; received\] \[-inf\]"),
        (
            {"long_rating": first_value(np.inf), "long_length": lambda _: 1},
            r"long_rating must be finite; received\] \[inf\]",
        ),
    ],
)
def test_bad_rows_are_refused_by_the_graph(loaded, raw_rows, change, words):
    bad = tensors(changed(raw_rows, **change))
    for name in ("serving_default", "all_depths"):
        with pytest.raises(tf.errors.InvalidArgumentError, match=words):
            loaded.signatures[name](**bad)


def test_fields_of_unequal_size_are_refused_by_the_graph(loaded, raw_rows):
    bad = {**raw_rows, "history_gap": raw_rows["history_gap"][:, :-1]}
    words = "fields history_movie, .* of sequence history differ in their second dimension"
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        loaded.signatures["serving_default"](**tensors(bad))


def test_bad_examples_are_refused_by_the_graph(loaded, examples):
    example = tf.train.Example.FromString(examples[0])
    example.features.feature["age"].float_list.value[0] = np.nan
    bad = tf.constant([examples[1], example.SerializeToString()])
    for name in ("classify", "regress"):
        with pytest.raises(tf.errors.InvalidArgumentError, match="age must be finite"):
            loaded.signatures[name](inputs=bad)


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        ({"long_length": lambda _: -1}, {"long_length": lambda _: 0}),
        ({"age": lambda _: np.inf}, {"age": lambda _: 25.0}),
        (
            {"history_gap": first_value(np.nan), "history_length": lambda _: 1},
            {"history_gap": first_value(0.0), "history_length": lambda _: 1},
        ),
    ],
)
def test_bad_rows_are_mended(repairing, raw_rows, bad, good):
    found = repairing(**tensors(changed(raw_rows, **bad)))["probability"]
    mended = repairing(**tensors(changed(raw_rows, **good)))["probability"]
    np.testing.assert_array_equal(found, mended)
    assert np.isfinite(found).all()


# Over gRPC.


@pytest.fixture
def client(prediction_server):
    with lc.ScoringClient(prediction_server.target) as client:
        yield client


def test_the_server_scores_as_keras_does_at_every_depth(client, raw_rows, tested):
    for name in ("serving_default", "all_depths"):
        found = client.score(raw_rows, signature=name)
        np.testing.assert_allclose(found, expected(tested, name), atol=1e-5)


def test_the_server_classifies_and_regresses(client, examples, tested):
    probability = expected(tested, "serving_default")
    np.testing.assert_allclose(client.regress(list(examples)), probability, atol=1e-5)
    classes, scores = client.classify(list(examples))
    assert classes.tolist() == [["0", "1"]] * len(examples)
    np.testing.assert_allclose(scores[:, 1], probability, atol=1e-5)


def test_a_data_frame_with_lists_is_scored_as_it_is(client, tested):
    frame = learnable_frame(60, seed=2)
    columns = [name for name in small_schema().inputs if name in frame]
    assert isinstance(frame["history_movie"].iloc[0], list)
    found = client.score(frame[columns])
    np.testing.assert_allclose(found, expected(tested, "serving_default"), atol=1e-5)


def test_bad_requests_are_refused_and_the_service_goes_on(client, raw_rows, tested):
    for change, name in (
        ({"long_length": lambda _: -1}, "long_length"),
        ({"affinity": lambda _: np.nan}, "affinity"),
    ):
        with pytest.raises(ScoringError) as error:
            client.score(changed(raw_rows, **change))
        assert error.value.code is grpc.StatusCode.INVALID_ARGUMENT
        assert f"{name} must be" in error.value.details
    found = client.score(raw_rows)
    np.testing.assert_allclose(found, expected(tested, "serving_default"), atol=1e-5)
