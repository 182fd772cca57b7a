"""The requests of CALLING.md are sent as they stand there, and all three ways say the same."""

import json
import re

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, text_format
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from tests.serving.kit import ROOT, blocks

DOCUMENT = "CALLING.md"
SIGNATURES = ("serving_default", "rank_loop_0")


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """Signature -> its request as protobuf text."""
    return dict(zip(SIGNATURES, blocks(DOCUMENT, "textproto"), strict=True))


@pytest.fixture(scope="module")
def requests(texts) -> dict[str, PredictRequest]:
    return {name: text_format.Parse(text, PredictRequest()) for name, text in texts.items()}


@pytest.fixture(scope="module")
def bodies() -> dict[str, dict]:
    """Signature -> its REST body."""
    return {body["signature_name"]: body for body in map(json.loads, blocks(DOCUMENT, "json"))}


@pytest.fixture(scope="module")
def answers(requests, ask) -> dict[str, np.ndarray]:
    return {name: ask(request)["probability"] for name, request in requests.items()}


def test_protobuf_text_is_answered(requests, answers):
    for name, request in requests.items():
        assert request.model_spec.name == "loopctr"
        assert request.model_spec.signature_name == name
    assert answers["serving_default"].shape == (2,)
    assert answers["rank_loop_0"].shape == (1, 3)
    for probability in answers.values():
        assert probability.dtype == np.float32
        assert ((probability > 0) & (probability < 1)).all()


def test_the_same_user_and_movie_score_the_same_by_row_and_by_rank(answers):
    rank, row = answers["rank_loop_0"][0], answers["serving_default"]
    np.testing.assert_allclose(rank[0], row[0], atol=1e-5)
    assert abs(rank[0] - rank[1]) > 1e-4


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_rest_body_holds_the_same_tensors(requests, bodies, name):
    given = bodies[name]["inputs"]
    wanted = {alias: tf.make_ndarray(t) for alias, t in requests[name].inputs.items()}
    assert sorted(given) == sorted(wanted)
    for alias, values in given.items():
        # TensorFlow Serving gives JSON values the type of the signature's input.
        strings = wanted[alias].dtype == object
        array = np.array(values, object if strings else wanted[alias].dtype)
        if strings:
            array = np.array([value.encode() for value in array.ravel()]).reshape(array.shape)
        np.testing.assert_array_equal(array, wanted[alias], err_msg=alias)


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_rest_body_is_answered_with_the_same_scores(requests, bodies, answers, ask, name):
    request = PredictRequest()
    request.model_spec.CopyFrom(requests[name].model_spec)
    for alias, values in bodies[name]["inputs"].items():
        dtype = requests[name].inputs[alias].dtype
        request.inputs[alias].CopyFrom(tf.make_tensor_proto(values, dtype))
    np.testing.assert_array_equal(ask(request)["probability"], answers[name])


def test_every_input_is_explained(requests, movie_schema):
    for request in requests.values():
        assert set(request.inputs) == set(movie_schema.inputs)


def test_grpcurl_is_given_all_message_definitions(texts, tmp_path, monkeypatch):
    """The script of the document, and the request read with nothing but what it wrote."""
    monkeypatch.chdir(tmp_path)
    (script,) = blocks(DOCUMENT, "python")
    exec(compile(script, DOCUMENT, "exec"), {})
    written = descriptor_pb2.FileDescriptorSet.FromString(
        (tmp_path / "serving.protoset").read_bytes()
    )
    pool = descriptor_pool.DescriptorPool()
    for file in written.file:
        pool.Add(file)
    for method in re.findall(r"tensorflow\.serving\.\w+/\w+", (ROOT / DOCUMENT).read_text()):
        service, _, name = method.partition("/")
        assert name in pool.FindServiceByName(service).methods_by_name
    predict = pool.FindServiceByName("tensorflow.serving.PredictionService").methods_by_name
    assert predict["Predict"].input_type.full_name == "tensorflow.serving.PredictRequest"


def test_strings_are_base64_in_json(requests):
    tensor = json.loads(json_format.MessageToJson(requests["rank_loop_0"]))["inputs"]["movie_id"]
    assert tensor["stringVal"][0] == "MzEz"
    assert '`"stringVal": ["MzEz"]`' in (ROOT / DOCUMENT).read_text()


def test_failures_have_the_codes_of_the_table(requests, ask):
    def code(change) -> str:
        request = PredictRequest()
        request.CopyFrom(requests["rank_loop_0"])
        change(request)
        with pytest.raises(grpc.RpcError) as caught:
            ask(request)
        return caught.value.code().name

    def spec(**values):
        return lambda request: [setattr(request.model_spec, k, v) for k, v in values.items()]

    assert code(spec(signature_name="nope")) == "FAILED_PRECONDITION"
    assert code(spec(name="nope")) == "NOT_FOUND"
    assert code(lambda request: setattr(request.model_spec.version, "value", 7)) == "NOT_FOUND"
    assert code(spec(version_label="canary")) == "INVALID_ARGUMENT"
    assert code(lambda request: request.inputs.pop("age")) == "INVALID_ARGUMENT"
    wrong = tf.make_tensor_proto([24], tf.int64)
    assert code(lambda request: request.inputs["age"].CopyFrom(wrong)) == "INVALID_ARGUMENT"


def test_no_candidates_are_legal(requests, ask):
    request = PredictRequest()
    request.CopyFrom(requests["rank_loop_0"])
    for name in ("movie_id", "genres", "year", "genre_like_share"):
        array = tf.make_ndarray(request.inputs[name])[:, :0]
        request.inputs[name].CopyFrom(tf.make_tensor_proto(array, request.inputs[name].dtype))
    assert ask(request)["probability"].shape == (1, 0)
