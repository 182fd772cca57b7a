"""Pretrained tables: what a schema takes, where training starts from, and what stays as it is."""

import json

import numpy as np
import pytest
import tensorflow as tf

import loopctr_tf as lc
from loopctr_tf.errors import UsageError
from loopctr_tf.evaluation.predict import evaluate_run
from loopctr_tf.features.schema import Schema, Table
from loopctr_tf.models.dlrm import DLRM, DLRMConfig
from loopctr_tf.models.encoder import FeatureEncoder, VectorsThenZeros
from loopctr_tf.training.run_folder import load_run
from loopctr_tf.training.settings import RunConfig, TrainingConfig
from loopctr_tf.training.train import compile_model, train
from tests.factories import random_batch, rewriting_off, schema_dict, tiny_model

VECTORS = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]], np.float32)
"""One row for each of the genres, which are three."""


def pretrained(**changes) -> Schema:
    """The schema of the factories; its genres start from vectors and stay there."""
    values = schema_dict()
    values["tables"]["genre"].update({"vectors": VECTORS, "trainable": False, **changes})
    return Schema.from_dict(values)


def genre_rows(model) -> np.ndarray:
    return model.encoder.embeddings["genre"].get_weights()[0]


# The schema.


def test_the_width_is_that_of_the_vectors():
    table = Table("t", vocabulary=("a", "b"), vectors=np.array([[1, 2, 3], [4, 5, 6]]))
    assert table.dim == 3
    assert table.vectors.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        table.vectors[0, 0] = 0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"vectors": VECTORS[:2]},
            "vectors have the shape [2, 3]; give one row for each of the 3 ",
        ),
        ({"vectors": VECTORS[0]}, "vectors have the shape [3]; give one row for each"),
        ({"dim": 4}, "vectors are 3 wide and dim is 4; write dim: 3, or leave it out"),
        (
            {"vectors": np.where(VECTORS == 5, np.nan, VECTORS)},
            "vectors hold a number that is not finite in row 1, counted from 0; correct it",
        ),
        (
            {"vectors": VECTORS * np.float64(1e38)},
            "vectors hold a number that is not finite in row 1",
        ),
        ({"vectors": [[1.0]]}, "vectors are of type list; give a NumPy array of numbers"),
        ({"vectors": VECTORS.astype(str)}, "vectors are of type <U32; give a NumPy array"),
        ({"trainable": "no"}, "trainable is 'no', a str; give true or false"),
        (
            {"vocabulary": None, "hash_buckets": 3},
            "vectors need a vocabulary, which names their rows; give one",
        ),
    ],
)
def test_bad_vectors_are_told_with_the_table_and_the_remedy(changes, expected):
    with pytest.raises(UsageError) as error:
        pretrained(**changes)
    assert str(error.value).startswith(f"table 'genre': {expected}")


def test_they_lie_in_a_file_beside_the_schema(tmp_path):
    schema = pretrained()
    schema.save(tmp_path)
    assert np.array_equal(np.load(tmp_path / "vectors" / "genre.npy"), VECTORS)
    loaded = Schema.load(tmp_path)
    assert loaded == schema
    assert np.array_equal(loaded.table("genre").vectors, VECTORS)
    assert not loaded.table("genre").trainable


def test_they_do_not_take_part_in_comparing_printing_and_plain_values():
    schema, other = pretrained(), pretrained(vectors=2 * VECTORS)
    assert schema == other
    assert hash(schema) == hash(other)
    assert repr(schema) == repr(other)
    values = json.loads(json.dumps(schema.to_dict()))
    assert values["tables"]["genre"] == {
        "vocabulary": ["action", "comedy", "drama"],
        "dim": 3,
        "trainable": False,
    }
    assert Schema.from_dict(values) == schema


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "vectors cannot be read from '.*v.npy': No such file"),
        (b"no array", "vectors: '.*v.npy' holds no array of numbers; write it with numpy.save"),
        (b"", "vectors: '.*v.npy' holds no array of numbers"),
    ],
)
def test_a_bad_file_is_named(tmp_path, content, expected):
    if content is not None:
        (tmp_path / "v.npy").write_bytes(content)
    values = schema_dict()
    values["tables"]["genre"]["vectors"] = "v.npy"
    with pytest.raises(UsageError, match=f"table 'genre': {expected}"):
        Schema.from_dict(values, tmp_path)


# The table of the model.


def test_known_values_start_from_their_vectors_and_unknown_ones_from_zero():
    encoder = FeatureEncoder(pretrained(oov_buckets=2), embedding_dim=4)
    encoder.build()
    (rows,) = encoder.embeddings["genre"].get_weights()
    assert rows.tolist() == [*VECTORS.tolist(), [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("start", "count", "expected"),
    [(0, 2, [[1, 2, 3], [4, 5, 6]]), (2, 2, [[7, 8, 9], [0, 0, 0]]), (4, 1, [[0, 0, 0]])],
)
def test_a_part_of_a_table_gets_its_part(start, count, expected):
    make = VectorsThenZeros(VECTORS)
    part = make([5, 3], tf.float32, partition_shape=[count, 3], partition_offset=[start, 0])
    assert part.numpy().tolist() == expected


def test_a_frozen_table_is_no_weight_to_train():
    def names(model):
        return [weight.name for weight in model.trainable_weights if "genre" in weight.name]

    frozen, trained = tiny_model(schema=pretrained()), tiny_model(schema=pretrained(trainable=True))
    assert names(frozen) == []
    assert len(names(trained)) == 1
    assert len(frozen.weights) == len(trained.weights)


@pytest.mark.parametrize("trainable", [False, True])
def test_training_moves_what_is_trainable(trainable):
    model = DLRM(pretrained(trainable=trainable), dim=4, tower_units=[5])
    compile_model(model, TrainingConfig(learning_rate=0.1))
    features, labels = random_batch(32)
    model.fit(features, labels, batch_size=16, verbose=0)
    assert np.array_equal(genre_rows(model)[:3], VECTORS) != trainable


def test_a_model_out_of_its_settings_takes_the_weights(tmp_path):
    model = tiny_model(schema=pretrained(), seed=None)
    again = type(model).from_config(json.loads(json.dumps(model.get_config())))
    assert not again.encoder.embeddings["genre"].trainable
    model.save_weights(tmp_path / "w.weights.h5")
    again.load_weights(tmp_path / "w.weights.h5")
    features, _ = random_batch()
    assert np.array_equal(again.score(features), model.score(features))


@pytest.fixture(scope="module")
def frozen_run(prepared, tmp_path_factory):
    """A run on the session's rows with frozen genres and averaged weights."""
    run = tmp_path_factory.mktemp("vectors") / "run"
    settings = TrainingConfig(epochs=1, batch_size=50, learning_rate=0.02, ema_momentum=0.5)
    config = RunConfig(DLRMConfig(dim=4, tower_units=(5,)), settings, name="dlrm")
    with rewriting_off():
        results = train(prepared, run, config, pretrained(), verbose=0, log=lambda line: None)
    return run, results


def test_a_run_keeps_a_frozen_table_and_is_loaded_evaluated_and_exported(
    frozen_run, prepared, tmp_path
):
    run, results = frozen_run
    model, _ = load_run(run)
    assert genre_rows(model).tolist() == [*VECTORS.tolist(), [0, 0, 0]]
    assert np.array_equal(np.load(run / "vectors" / "genre.npy"), VECTORS)
    for found, expected in zip(
        evaluate_run(model, prepared, "valid")[0], results["valid"], strict=True
    ):
        named = ("model", "head")
        assert [found.pop(name) for name in named] == [expected[name] for name in named]
        assert found == pytest.approx({n: expected[n] for n in found}, rel=1e-5)
    path = lc.export_saved_model(
        model, tmp_path / "1", signatures=["serving_default"], warmup_batch_sizes=()
    )
    features, _ = random_batch()
    served = tf.saved_model.load(str(path)).signatures["serving_default"](**features)
    np.testing.assert_allclose(served["probability"], model.score(features), atol=1e-6)
    asset = Schema.load(path / "assets" / "schema.yaml")
    assert asset == model.schema
    assert asset.table("genre").vectors is None


def test_training_from_a_frozen_table_without_vectors_is_refused(prepared, tmp_path):
    schema = pretrained()
    tables = [table.replace(vectors=None) for table in schema.tables]
    schema = schema.replace(tables=tables)
    with pytest.raises(UsageError, match="table 'genre' is not trainable and has no vectors"):
        train(prepared, tmp_path / "run", schema=schema, verbose=0)
    assert not (tmp_path / "run").exists()
