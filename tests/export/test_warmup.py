"""Warm-up records: their number, their shapes, and that a server can run every one of them."""

import logging

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from loopctr_tf.errors import UsageError
from loopctr_tf.export.export import export_saved_model
from loopctr_tf.export.warmup import warmup_requests, write_warmup
from loopctr_tf.features.dataset import parse_examples
from loopctr_tf.scoring import PredictionServer
from loopctr_tf.scoring.server.warmup import FILE
from tests.factories import HISTORY, LONG, small_schema
from tests.serving.compact import MAX_EVENTS, compact_model, compact_schema

SIGNATURES = ["serving_default", "classify", "cascade", "encode_user_loop_0", "rank_cached_loop_0"]
SIZES = (1, 3)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(version folder with a signature of each kind and no warm-up file yet, its functions)."""
    model = compact_model(loops=1)
    folder = tmp_path_factory.mktemp("models") / "1"
    export_saved_model(model, folder, signatures=SIGNATURES, warmup_batch_sizes=())
    return folder, tf.saved_model.load(str(folder)).signatures


@pytest.fixture(scope="module")
def written(exported):
    """(version folder, records in its warm-up file)."""
    folder, functions = exported
    count = write_warmup(folder, compact_schema(), functions, SIZES, candidates=20)
    raw = tf.data.TFRecordDataset(str(folder / FILE)).as_numpy_iterator()
    records = [prediction_log_pb2.PredictionLog.FromString(record) for record in raw]
    assert count == len(records)
    return folder, records


def _request(record):
    kind = record.WhichOneof("log_type")
    return getattr(record, kind).request


def _traced(**specs):
    """A function that takes these inputs and is never run."""
    specs = {name: tf.TensorSpec(*spec, name) for name, spec in specs.items()}
    return tf.function(lambda **inputs: inputs).get_concrete_function(**specs)


@pytest.fixture(scope="module")
def records():
    """Records of `small_schema`, which has every kind of column; nothing runs on them."""
    specs = small_schema().inputs
    point = {name: (spec.shape, spec.dtype) for name, spec in specs.items()}
    rank = {
        name: ((None, *spec.shape) if spec.candidate else spec.shape, spec.dtype)
        for name, spec in specs.items()
    }
    functions = {
        "regress": _traced(inputs=([None], tf.string)),
        "loop_0": _traced(**point),
        "cascade": _traced(**rank, refine_top_k=([None], tf.int32)),
    }
    return warmup_requests(small_schema(), functions, SIZES, candidates=20)


def _sent(records, name, position=1) -> dict[str, np.ndarray]:
    """The inputs of a signature's record, as TensorFlow's own C++ code reads them."""
    request = [_request(r) for r in records if _request(r).model_spec.signature_name == name][
        position
    ]
    return {
        alias: tf.io.parse_tensor(tensor.SerializeToString(), tensor.dtype).numpy()
        for alias, tensor in request.inputs.items()
    }


def test_there_is_one_record_per_signature_and_size(written):
    _, records = written
    found = [(_request(r).model_spec.signature_name, r.WhichOneof("log_type")) for r in records]
    logs = {"classify": "classify_log"}
    wanted = [(name, logs.get(name, "predict_log")) for name in SIGNATURES]
    assert sorted(found) == sorted(pair for pair in wanted for _ in SIZES)
    assert {_request(r).model_spec.name for r in records} == {"loopctr"}


def test_pointwise_records_are_as_long_and_as_wide_as_the_schema_allows(records):
    sent = _sent(records, "loop_0")
    assert {name: value.shape for name, value in sent.items()} == {
        "movie_id": (3,),
        "genres": (3, 3),
        "age": (3,),
        "zip_code": (3,),
        "device": (3,),
        "affinity": (3,),
        "history_movie": (3, HISTORY),
        "history_genres": (3, HISTORY, 2),
        "history_gap": (3, HISTORY),
        "history_length": (3,),
        "long_movie": (3, LONG),
        "long_rating": (3, LONG),
        "long_length": (3,),
    }


def test_records_hold_known_ids_full_lengths_and_defaults(records):
    sent = _sent(records, "loop_0")
    assert set(sent["movie_id"]) == {b"m0"}
    assert set(sent["history_genres"].ravel()) == {b"action"}
    assert set(sent["device"]) == {7}
    assert set(sent["zip_code"]) == {b"0"}
    assert sent["age"].tolist() == [25.0, 25.0, 25.0]
    assert sent["history_length"].tolist() == [HISTORY] * 3
    assert sent["long_length"].tolist() == [LONG] * 3


def test_ranking_records_hold_a_list_of_candidates_a_request(records):
    sent = _sent(records, "cascade")
    assert sent["movie_id"].shape == (3, 20)
    assert sent["genres"].shape == (3, 20, 3)
    assert sent["affinity"].shape == (3, 20)
    assert sent["age"].shape == (3,)
    assert sent["history_movie"].shape == (3, HISTORY)
    assert sent["refine_top_k"].tolist() == [2, 2, 2]


def test_a_cached_state_has_the_sizes_and_the_version_that_the_model_asks_for(exported, written):
    _, records = written
    sent = _sent(records, "rank_cached_loop_0")
    assert sent["state_mask"].shape == (3, MAX_EVENTS)
    assert sent["state_mask"].all()
    assert sent["state_keys"].shape == (3, 1, MAX_EVENTS, 8)
    assert sent["state_tokens"].shape == (3, 1, 0, 8)
    user = {name: tf.constant(v) for name, v in _sent(records, "encode_user_loop_0").items()}
    assert "movie_id" not in user
    encode = exported[1]["encode_user_loop_0"]
    assert sent["state_version"].tolist() == encode(**user)["state_version"].numpy().tolist()


def test_the_size_of_a_record_does_not_grow_with_its_rows(written):
    by_rows = [
        r.ByteSize() for r in written[1] if _request(r).model_spec.signature_name == "cascade"
    ]
    assert by_rows[1] < by_rows[0] + 200
    assert all(size < 2000 for size in by_rows)


def test_the_embedded_server_runs_them_all_before_it_serves(written, caplog):
    folder, _ = written
    caplog.set_level(logging.INFO, logger="loopctr_tf")
    with PredictionServer(folder.parent, poll_seconds=0) as server:
        assert server.store.version == 1
    assert any("version 1 answered 10 warm-up requests" in line for line in caplog.messages)


def test_the_embedded_server_refuses_a_version_whose_record_does_not_fit(written):
    folder, records = written
    path = folder / FILE
    good = path.read_bytes()
    bad = prediction_log_pb2.PredictionLog()
    bad.CopyFrom(next(r for r in records if r.HasField("predict_log")))
    bad.predict_log.request.inputs["movie_id"].tensor_shape.dim.add(size=1)
    try:
        with tf.io.TFRecordWriter(str(path)) as writer:
            writer.write(bad.SerializeToString())
        with pytest.raises(UsageError, match="warmup record 1"):
            PredictionServer(folder.parent, poll_seconds=0).start()
    finally:
        path.write_bytes(good)


def test_examples_parse_to_what_the_pointwise_records_hold(records):
    request = records[1].regress_log.request
    assert request.model_spec.signature_name == "regress"
    rows = [row.SerializeToString() for row in request.input.example_list.examples]
    parsed = parse_examples(tf.constant(rows), small_schema())
    for name, value in _sent(records, "loop_0").items():
        np.testing.assert_array_equal(parsed[name].numpy(), value)


def test_a_cached_signature_whose_encoder_is_not_exported_gets_no_record():
    cached = _traced(movie_id=([None, None], tf.string), state_version=([None], tf.string))
    point = _traced(movie_id=([None], tf.string))
    functions = {"rank_cached_loop_2": cached, "loop_2": point, "encode_user_loop_1": point}
    records = warmup_requests(small_schema(), {"rank_cached_loop_2": cached, "loop_2": point})
    assert {_request(r).model_spec.signature_name for r in records} == {"loop_2"}
    assert len(records) == 4
    del functions["encode_user_loop_1"]
    assert warmup_requests(small_schema(), functions) == records


def test_functions_may_be_as_they_were_traced():
    """A tracer puts named arguments first, and the others behind them by keyword."""

    def cascade(refine_top_k, **features):
        return {"depth": refine_top_k}

    specs = {
        "movie_id": tf.TensorSpec([None, None], tf.string, "movie_id"),
        "refine_top_k": tf.TensorSpec([None], tf.int32, "refine_top_k"),
    }
    traced = tf.function(cascade).get_concrete_function(**specs)
    (record,) = warmup_requests(small_schema(), {"cascade": traced}, (2,), candidates=30)
    inputs = record.predict_log.request.inputs
    assert sorted(inputs) == ["movie_id", "refine_top_k"]
    assert tf.make_ndarray(inputs["refine_top_k"]).tolist() == [3, 3]
    assert tf.make_ndarray(inputs["movie_id"]).shape == (2, 30)


def test_a_file_too_long_for_a_model_server_is_refused():
    point = _traced(movie_id=([None], tf.string))
    sizes = tuple(range(1, 1001))
    assert len(warmup_requests(small_schema(), {"loop_0": point}, sizes)) == 1000
    with pytest.raises(UsageError, match="1001 warm-up records are more than the 1000"):
        warmup_requests(small_schema(), {"loop_0": point}, (*sizes, 1001))


@pytest.mark.parametrize("given", [{"batch_sizes": (1, 0)}, {"candidates": 0}, {"candidates": 2.0}])
def test_sizes_must_be_whole_numbers(given):
    with pytest.raises(UsageError, match="give whole numbers of 1 or more"):
        warmup_requests(small_schema(), {}, **given)


def test_nothing_is_written_where_sizes_are_wrong(tmp_path):
    with pytest.raises(UsageError):
        write_warmup(tmp_path, small_schema(), {}, batch_sizes=(-1,))
    assert not list(tmp_path.iterdir())
