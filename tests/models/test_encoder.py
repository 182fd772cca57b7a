import math

import numpy as np
import pytest
import tensorflow as tf

import loopctr_tf as lc
from loopctr_tf.features.schema import Feature, Table
from loopctr_tf.models.encoder import FeatureEncoder, TableLookup, most_recent, standardize


def schema() -> lc.Schema:
    """Two request features, three candidate features, one sequence."""
    return lc.Schema.from_dict(
        {
            "label": "y",
            "group": "user",
            "tables": {
                "word": {"vocabulary": ["a", "b", "c"], "oov_buckets": 2},
                "number": {"dtype": "int64", "vocabulary": [7, 5], "dim": 1},
            },
            "features": [
                {"name": "word", "type": "categorical", "side": "item", "table": "word"},
                {
                    "name": "words",
                    "type": "multi_categorical",
                    "side": "item",
                    "table": "word",
                    "max_values": 3,
                },
                {"name": "age", "type": "numeric", "side": "user", "mean": 30.0, "std": 5.0},
                {"name": "number", "type": "categorical", "side": "context", "table": "number"},
                {"name": "match", "type": "numeric", "side": "cross"},
            ],
            "sequences": [
                {
                    "name": "past",
                    "max_length": 3,
                    "fields": [
                        {"name": "past_word", "type": "categorical", "table": "word"},
                        {
                            "name": "past_numbers",
                            "type": "multi_categorical",
                            "table": "number",
                            "max_values": 2,
                        },
                        {
                            "name": "past_gap",
                            "type": "numeric",
                            "transform": "log1p",
                            "mean": 1.0,
                            "std": 2.0,
                        },
                    ],
                }
            ],
        }
    )


@pytest.fixture
def encoder():
    """An encoder whose word of row r is (r, 10 r), and whose number of row r is (100 + r)."""
    encoder = FeatureEncoder(schema(), embedding_dim=2)
    encoder.build()
    words = np.arange(5, dtype=np.float32)
    encoder.embeddings["word"].set_weights([np.stack([words, 10 * words], axis=1)])
    encoder.embeddings["number"].set_weights([100 + np.arange(3, dtype=np.float32)[:, None]])
    return encoder


FEATURES = {
    "word": ["b", "new"],
    "words": [["a", "c", ""], ["", "", ""]],
    "age": [40.0, 25.0],
    "number": [5, 11],
    "match": [0.5, -1.0],
    "past_word": [["c", "b"], ["a", "junk"]],
    "past_numbers": [[[7, 5], [5, -1]], [[-1, -1], [7, 7]]],
    "past_gap": [[math.e - 1, 0.0], [math.e**3 - 1, float("nan")]],
    "past_length": [2, 1],
}


def tensors(values) -> dict[str, tf.Tensor]:
    dtypes = {name: spec.dtype for name, spec in schema().inputs.items()}
    return {name: tf.constant(value, dtypes[name]) for name, value in values.items()}


# Raw values to rows.


def test_a_vocabulary_gives_places_and_unknown_values_the_rows_behind():
    lookup = TableLookup(Table("t", vocabulary=["x", "y", "two words"], oov_buckets=2))
    # "new" and "7" hash to 1 and 0 of two buckets.
    rows = lookup(tf.constant([["two words", "x"], ["new", "7"], ["y", ""]]))
    assert rows.dtype == tf.int64
    assert rows.numpy().tolist() == [[2, 0], [3 + 1, 3 + 0], [1, 3 + 1]]


def test_integers_are_looked_up_and_hashed_as_their_decimal_text():
    lookup = TableLookup(Table("t", dtype="int64", vocabulary=[-3, 2**40], oov_buckets=6))
    # "11", "-1" and "7" hash to 1, 0 and 4 of six buckets.
    rows = lookup(tf.constant([2**40, -3, 11, -1, 7], tf.int64))
    assert rows.numpy().tolist() == [1, 0, 2 + 1, 2 + 0, 2 + 4]


@pytest.mark.parametrize(
    ("dtype", "values"),
    [("string", ["11", "7", "10001"]), ("int64", [11, 7, 10001])],
)
def test_hashing_alone_is_the_same_in_every_version(dtype, values):
    lookup = TableLookup(Table("t", dtype=dtype, hash_buckets=1000))
    assert lookup(tf.constant(values, dtype)).numpy().tolist() == [439, 88, 276]


def test_an_empty_vocabulary_knows_nothing():
    lookup = TableLookup(Table("t", vocabulary=[], oov_buckets=6))
    assert lookup(tf.constant(["a", "new"])).numpy().tolist() == [3, 3]


def test_every_row_is_inside_the_table():
    for table in (
        Table("t", vocabulary=["a", "b"], oov_buckets=3),
        Table("t", hash_buckets=4),
    ):
        rows = TableLookup(table)(tf.constant([f"value {i}" for i in range(200)])).numpy()
        assert rows.min() >= len(table.vocabulary or ())
        assert set(rows) == set(range(len(table.vocabulary or ()), table.rows))


# Numbers.


def test_numbers_are_standardised():
    feature = Feature("x", "numeric", mean=3.0, std=2.0)
    assert standardize(feature, tf.constant([3.0, 7.0, 0.0])).numpy().tolist() == [0.0, 2.0, -1.5]


def test_log1p_keeps_the_sign():
    feature = Feature("x", "numeric", transform="log1p", mean=1.0, std=0.5)
    values = tf.constant([math.e - 1, math.e**2 - 1, 0.0, 1 - math.e])
    np.testing.assert_allclose(standardize(feature, values), [0.0, 2.0, -2.0, -4.0], atol=1e-6)


# Sequences.


@pytest.mark.parametrize("static", [True, False])
def test_the_most_recent_events_stay(static):
    values = tf.constant([[1, 2, 3, 4, 5], [6, 7, 0, 0, 0], [0] * 5, [8, 9, 10, 11, 0]])
    function = tf.function(
        lambda values, lengths: most_recent(values, lengths, 3),
        input_signature=[
            tf.TensorSpec([4, 5] if static else [None, None], tf.int32),
            tf.TensorSpec([None], tf.int32),
        ],
    )
    recent = function(values, tf.constant([5, 2, 0, 4])).numpy()
    assert recent[0].tolist() == [3, 4, 5]
    assert recent[1, :2].tolist() == [6, 7]
    assert recent[3].tolist() == [9, 10, 11]
    assert recent.shape == (4, 3)


@pytest.mark.parametrize("static", [True, False])
def test_short_sequences_are_left_alone(static):
    values = tf.constant([[[1, 2], [3, 4]]])
    function = tf.function(
        lambda values, lengths: most_recent(values, lengths, 3),
        input_signature=[
            tf.TensorSpec([1, 2, 2] if static else [None, None, None], tf.int32),
            tf.TensorSpec([None], tf.int32),
        ],
    )
    assert function(values, tf.constant([2])).numpy().tolist() == values.numpy().tolist()


# The whole encoder.


def test_tokens_worked_out_by_hand(encoder):
    groups = encoder(tensors(FEATURES))
    age, number = groups.request
    np.testing.assert_allclose(age, [[2.0], [-1.0]])
    # 5 is row 1; 11 is unknown: the one row behind the vocabulary.
    np.testing.assert_allclose(number, [[101.0], [102.0]])
    word, words, match = groups.candidate
    # "b" is row 1; "new" hashes to 1 of two buckets: row 4.
    np.testing.assert_allclose(word, [[1.0, 10.0], [4.0, 40.0]])
    # The mean of rows 0 and 2; nothing at all is zero.
    np.testing.assert_allclose(words, [[1.0, 10.0], [0.0, 0.0]])
    np.testing.assert_allclose(match, [[0.5], [-1.0]])
    (past,) = groups.sequences
    assert past.lengths.numpy().tolist() == [2, 1]
    assert past.mask.numpy().tolist() == [[True, True], [True, False]]
    # Word, mean of the numbers, standardised log of the gap.
    np.testing.assert_allclose(
        past.tokens[0], [[2.0, 20.0, 100.5, 0.0], [1.0, 10.0, 101.0, -0.5]], atol=1e-6
    )
    np.testing.assert_allclose(past.tokens[1, 0], [0.0, 0.0, 0.0, 1.0], atol=1e-6)
    assert np.isfinite(past.tokens).all()


def test_an_event_may_be_given_its_age(encoder):
    aged = FeatureEncoder(schema(), embedding_dim=2, recency=True)
    aged.build()
    for name, embedding in encoder.embeddings.items():
        aged.embeddings[name].set_weights(embedding.get_weights())
    (plain,), (same,) = (e(tensors(FEATURES)).sequences for e in (encoder, aged))
    np.testing.assert_array_equal(plain.tokens, same.tokens)  # the vectors start at zero
    vectors = np.arange(12.0).reshape(3, 4)
    aged.recency["past"].set_weights([vectors])
    (found,) = aged(tensors(FEATURES)).sequences
    # Of two events the last is the most recent one: age 0.
    np.testing.assert_allclose(found.tokens[0] - plain.tokens[0], vectors[[1, 0]], atol=1e-5)
    np.testing.assert_allclose(found.tokens[1, 0] - plain.tokens[1, 0], vectors[0], atol=1e-5)


def test_widths_are_those_of_the_tokens(encoder):
    groups = encoder(tensors(FEATURES))
    for feature, tokens in zip(schema().request_features, groups.request, strict=True):
        assert encoder.width(feature) == tokens.shape[-1]
    for feature, tokens in zip(schema().candidate_features, groups.candidate, strict=True):
        assert encoder.width(feature) == tokens.shape[-1]
    assert encoder.width(schema().sequences[0]) == groups.sequences[0].tokens.shape[-1] == 4


def test_longer_histories_are_cut_in_every_field(encoder):
    long = {
        **FEATURES,
        "past_word": [["a", "b", "c", "a", "b"], ["c", "", "", "", ""]],
        "past_numbers": [[[7, -1]] * 3 + [[5, -1]] * 2, [[5, 7]] + [[-1, -1]] * 4],
        "past_gap": [[0.0, 0.0, 0.0, math.e - 1, 0.0]] * 2,
        "past_length": [5, 1],
    }
    (past,) = encoder(tensors(long)).sequences
    assert past.lengths.numpy().tolist() == [3, 1]
    np.testing.assert_allclose(
        past.tokens[0],
        [[2.0, 20.0, 100.0, -0.5], [0.0, 0.0, 101.0, 0.0], [1.0, 10.0, 101.0, -0.5]],
        atol=1e-6,
    )
    np.testing.assert_allclose(past.tokens[1, 0], [2.0, 20.0, 100.5, -0.5], atol=1e-6)


def test_candidates_of_a_request_are_encoded_at_once(encoder):
    """[R, N] candidates give what each gives alone."""
    one = {
        "word": ["b", "new", "a", "c"],
        "words": [["a", "c", ""], ["", "", ""], ["b", "", ""], ["a", "b", "c"]],
        "match": [0.5, -1.0, 2.0, 3.0],
    }
    many = {name: tf.reshape(v, [2, 2, *v.shape[1:]]) for name, v in tensors(one).items()}
    alone, together = encoder(tensors(one)), encoder(many)
    assert together.request == together.sequences == []
    for expected, actual in zip(alone.candidate, together.candidate, strict=True):
        assert actual.shape == [2, 2, expected.shape[-1]]
        np.testing.assert_array_equal(tf.reshape(actual, expected.shape), expected)


def test_gradients_reach_real_values_only(encoder):
    with tf.GradientTape() as tape:
        groups = encoder(tensors(FEATURES))
        loss = tf.reduce_sum(groups.candidate[1])
    gradient = tape.gradient(loss, encoder.embeddings["word"].embeddings)
    dense = tf.math.unsorted_segment_sum(gradient.values, gradient.indices, 5).numpy()
    # "words" of the first row are rows 0 and 2, with weight 1/2 each; "" is nothing.
    np.testing.assert_allclose(dense, [[0.5] * 2, [0.0] * 2, [0.5] * 2, [0.0] * 2, [0.0] * 2])
