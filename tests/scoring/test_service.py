import re

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow.core.example import example_pb2
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from loopctr_tf.scoring import PredictionServer, tensors
from loopctr_tf.scoring.server import predict, status
from tests.scoring import scoring_model, wire

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture
def channel(server):
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.target, unlimited) as channel:
        yield channel


@pytest.fixture
def stub(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture
def models(channel):
    return model_service_pb2_grpc.ModelServiceStub(channel)


def refused(method, message) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        method(message, timeout=20)
    return caught.value.code(), caught.value.details()


def probability(response) -> np.ndarray:
    return tensors.to_array(response.outputs["probability"])


def test_answers_and_says_who_answered(stub):
    response = stub.Predict(wire.request())
    np.testing.assert_allclose(probability(response), wire.good_answer(), rtol=1e-6)
    assert response.model_spec == text_format.Parse(
        'name: "m" version { value: 1 } signature_name: "serving_default"',
        type(response.model_spec)(),
    )
    assert response.outputs["probability"].tensor_content


@pytest.mark.parametrize("name", ["", "serving_default"])
def test_an_empty_signature_name_is_serving_default(stub, name):
    np.testing.assert_allclose(probability(stub.Predict(wire.request(name))), wire.good_answer())


def test_every_type_there_and_back(stub):
    message = wire.request("echo", without=tuple(wire.good_inputs()))
    sent = {}
    for dtype in scoring_model.ECHO_TYPES:
        values = [[0, 1, 3]]
        array = np.array(values).astype(dtype.as_numpy_dtype)
        if dtype == tf.string:
            array = np.array([[b"", b"a\0b", b"\xff\xfe"]], object)
        sent[f"x_{dtype.name}"] = array
        message.inputs[f"x_{dtype.name}"].CopyFrom(tensors.to_proto(array))
    response = stub.Predict(message)
    assert set(response.outputs) == set(sent)
    for name, array in sent.items():
        back = tensors.to_array(response.outputs[name])
        assert back.dtype == array.dtype
        np.testing.assert_array_equal(back, array)


def test_open_ranks_and_fixed_sizes(stub):
    def ask(x, anything):
        return stub.Predict(
            wire.request("dense", without=tuple(wire.good_inputs()), x=x, anything=anything)
        )

    ones = np.ones((2, 3), np.float32)
    for shape in [(), (4,), (1, 2, 2)]:
        response = ask(ones, np.full(shape, 7, np.int64))
        assert tensors.to_array(response.outputs["anything"]).shape == shape
        assert tensors.to_array(response.outputs["total"]).tolist() == [3.0, 3.0]
    with pytest.raises(grpc.RpcError) as caught:
        ask(np.ones((2, 4), np.float32), np.int64(1) * np.ones(1, np.int64))
    assert caught.value.code() is INVALID
    assert caught.value.details() == (
        'Input "x" has shape [2,4], and signature "dense" takes [?,3]'
    )


def test_output_filter(stub):
    message = wire.request(
        "cascade",
        item_id=np.array([[b"a", b"b"]] * 3, object),
        price=np.zeros((3, 2), np.float32),
        refine_top_k=np.array([1, 0, 2], np.int32),
    )
    assert set(stub.Predict(message).outputs) == {"probability", "depth"}
    message.output_filter.append("depth")
    response = stub.Predict(message)
    assert set(response.outputs) == {"depth"}
    assert tensors.to_array(response.outputs["depth"]).tolist() == [[0, 1], [0, 0], [1, 1]]
    message.output_filter.append("depth")
    assert refused(stub.Predict, message) == (INVALID, "duplicate output tensor alias: depth")
    message.output_filter[:] = ["nope"]
    assert refused(stub.Predict, message) == (
        INVALID,
        "output tensor alias not found in signature: nope Outputs expected to be in the set "
        "{depth,probability}.",
    )


def test_an_empty_batch_is_legal(stub):
    empty = {
        name: array[:0].reshape(0, *array.shape[1:]) for name, array in wire.good_inputs().items()
    }
    assert probability(stub.Predict(wire.request(**empty))).shape == (0,)
    no_candidates = wire.request(
        "rank_loop_0",
        item_id=np.empty((3, 0), object),
        price=np.empty((3, 0), np.float32),
    )
    assert probability(stub.Predict(no_candidates)).shape == (3, 0)


def test_unknown_signature(stub):
    assert refused(stub.Predict, wire.request("nope")) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        'Serving signature key "nope" not found.',
    )


def test_unknown_model_and_version(stub):
    message = wire.request()
    message.model_spec.version.value = 99
    code, words = refused(stub.Predict, message)
    assert (code, words) == (
        grpc.StatusCode.NOT_FOUND,
        "Servable not found for request: Specific(m, 99)",
    )
    message = wire.request()
    message.model_spec.name = "other"
    code, words = refused(stub.Predict, message)
    assert (code, words) == (
        grpc.StatusCode.NOT_FOUND,
        "Servable not found for request: Latest(other)",
    )
    message.model_spec.version.value = 1
    assert refused(stub.Predict, message)[1] == (
        "Servable not found for request: Specific(other, 1)"
    )


def test_model_spec_that_names_nothing(stub):
    message = wire.request()
    message.ClearField("model_spec")
    assert refused(stub.Predict, message) == (INVALID, "Missing ModelSpec")
    message.model_spec.signature_name = "serving_default"
    assert refused(stub.Predict, message) == (INVALID, "ModelSpec has no name specified.")
    message.model_spec.name = "m"
    message.model_spec.version_label = "stable"
    assert refused(stub.Predict, message) == (
        INVALID,
        "Unrecognized servable version label: stable",
    )


def test_missing_extra_and_renamed_inputs(stub):
    assert refused(stub.Predict, wire.request(without=("price",))) == (
        INVALID,
        "input size does not match signature: 4!=5 "
        "len({history,history_length,item_id,user_id}) != "
        "len({history,history_length,item_id,price,user_id}). "
        "Sent extra: {}. Missing but required: {price}.",
    )
    extra = wire.request(color=np.zeros(3, np.float32))
    assert refused(stub.Predict, extra) == (
        INVALID,
        "input size does not match signature: 6!=5 "
        "len({color,history,history_length,item_id,price,user_id}) != "
        "len({history,history_length,item_id,price,user_id}). "
        "Sent extra: {color}. Missing but required: {}.",
    )
    renamed = wire.request(without=("price",), cost=np.zeros(3, np.float32))
    code, words = refused(stub.Predict, renamed)
    assert code is INVALID
    assert words == (
        "Signature input alias: price(feed name: serving_default_price:0) not found in request "
        "and no default value provided. Inputs expected to be in the request "
        "{cost,history,history_length,item_id,user_id}, or default input alias set: "
    )


class Recorder:
    """A model of one signature with a default, which notes what it is fed."""

    def __init__(self):
        signature = meta_graph_pb2.SignatureDef()
        for name in ("x", "scale"):
            signature.inputs[name].name = f"{name}:0"
            signature.inputs[name].dtype = types_pb2.DT_FLOAT
            signature.inputs[name].tensor_shape.dim.add(size=-1)
        signature.outputs["y"].name = "y:0"
        signature.defaults["scale"].CopyFrom(tensors.to_proto(np.array([2.0], np.float32)))
        self.signature_defs = {"serving_default": signature}
        self.version = 1

    def run(self, feeds, fetches):
        self.fed = {name: array.tolist() for name, array in feeds.items()}
        return [np.zeros(1, np.float32) for _ in fetches]


def test_defaults_of_a_signature():
    model, clean = Recorder(), tuple(wire.good_inputs())
    one, three = np.ones(1, np.float32), np.full(1, 3.0, np.float32)
    predict.predict(model, wire.request(without=clean, x=one))
    assert model.fed == {"x:0": [1.0], "scale:0": [2.0]}
    predict.predict(model, wire.request(without=clean, x=one, scale=three))
    assert model.fed == {"x:0": [1.0], "scale:0": [3.0]}
    with pytest.raises(status.StatusError) as caught:
        predict.predict(model, wire.request(without=clean, scale=one))
    assert caught.value.code is INVALID
    assert caught.value.message == (
        "Signature input alias: x(feed name: x:0) not found in request and no default value "
        "provided. Inputs expected to be in the request {scale}, or default input alias set: scale"
    )
    with pytest.raises(status.StatusError) as caught:
        predict.predict(model, wire.request(without=clean, x=one, nope=one))
    assert caught.value.message == (
        "Inputs contains invalid name. Used request inputs: x, request input: nope,x"
    )


def test_wrong_types(stub):
    # arguments in the order of tensor names: history, history_length, item_id, price, user_id
    whole = wire.request(price=np.ones(3, np.int64))
    assert refused(stub.Predict, whole) == (
        INVALID,
        "Expects arg[3] to be float but int64 is provided",
    )
    numbers = wire.request(user_id=np.ones(3, np.float64))
    assert refused(stub.Predict, numbers) == (
        INVALID,
        "Expects arg[4] to be string but double is provided",
    )


@pytest.mark.parametrize("shape", [(), (3, 1), (1, 1, 3)], ids=str)
def test_wrong_rank(stub, shape):
    code, words = refused(stub.Predict, wire.request(price=np.ones(shape, np.float32)))
    assert code is INVALID
    given = re.sub(r"[\s()]|,(?=\))", "", str(shape))
    assert words == f'Input "price" has shape [{given}], and signature "serving_default" takes [?]'


@pytest.mark.parametrize("length", [-1, 3])
def test_a_failed_assertion_is_the_callers(stub, length):
    lengths = np.array([length, 0, 1], np.int32)
    code, words = refused(stub.Predict, wire.request(history_length=lengths))
    assert code is INVALID
    assert words.startswith(
        f"assertion failed: [history_length is beyond the data:] [{length} 0 1]"
    )


def test_sizes_that_do_not_go_together(stub):
    code, _ = refused(stub.Predict, wire.request(price=np.ones(2, np.float32)))
    assert code is INVALID


def example(**features) -> example_pb2.Example:
    found = example_pb2.Example()
    for name, value in features.items():
        feature = found.features.feature[name]
        if isinstance(value, float):
            feature.float_list.value.append(value)
        else:
            feature.bytes_list.value.append(value)
    return found


def with_examples(message, signature, *examples):
    message.model_spec.name = "m"
    message.model_spec.signature_name = signature
    message.input.example_list.examples.extend(examples)
    return message


EXAMPLES = (example(user_id=b"a", price=0.0), example(user_id=b"b", price=-5.0))
POSITIVE = 1 / (1 + np.exp(-np.array([1.0, 1.5])))  # table["a"]; table["b"] - 0.1 * 5


def test_classify(stub):
    message = with_examples(classification_pb2.ClassificationRequest(), "classify", *EXAMPLES)
    response = stub.Classify(message)
    assert (response.model_spec.version.value, response.model_spec.signature_name) == (
        1,
        "classify",
    )
    found = [
        [(one.label, one.score) for one in row.classes] for row in response.result.classifications
    ]
    for row, positive in zip(found, POSITIVE, strict=True):
        assert [label for label, _ in row] == ["0", "1"]
        np.testing.assert_allclose([score for _, score in row], [1 - positive, positive], 1e-6)


def test_regress(stub):
    message = with_examples(regression_pb2.RegressionRequest(), "regress", *EXAMPLES)
    response = stub.Regress(message)
    assert response.model_spec.signature_name == "regress"
    values = [one.value for one in response.result.regressions]
    np.testing.assert_allclose(values, POSITIVE, rtol=1e-6)


def test_a_context_is_part_of_each_example(stub):
    message = with_examples(regression_pb2.RegressionRequest(), "regress")
    both = message.input.example_list_with_context
    both.context.CopyFrom(example(user_id=b"a"))
    both.examples.extend([example(price=0.0), example(price=10.0)])
    values = [one.value for one in stub.Regress(message).result.regressions]
    np.testing.assert_allclose(values, 1 / (1 + np.exp([-1.0, -2.0])), rtol=1e-6)


def test_examples_that_cannot_be_answered(stub):
    classify, regress = classification_pb2.ClassificationRequest, regression_pb2.RegressionRequest
    assert refused(stub.Classify, with_examples(classify(), "classify")) == (
        INVALID,
        "Input is empty.",
    )
    assert refused(stub.Classify, with_examples(classify(), "", *EXAMPLES)) == (
        INVALID,
        "Expected classification signature method_name to be tensorflow/serving/classify. "
        "Was: tensorflow/serving/predict",
    )
    assert refused(stub.Regress, with_examples(regress(), "classify", *EXAMPLES)) == (
        INVALID,
        "Expected regression signature method_name to be tensorflow/serving/regress. "
        "Was: tensorflow/serving/classify",
    )
    assert refused(stub.Regress, with_examples(regress(), "nope", *EXAMPLES)) == (
        INVALID,
        "No signature was found with the name: nope",
    )
    without_price = with_examples(regress(), "regress", example(user_id=b"a"))
    code, words = refused(stub.Regress, without_price)
    assert code is INVALID
    assert "price" in words


def test_method_names_may_go_unchecked(base_path):
    with (
        PredictionServer(
            base_path, model_name="m", poll_seconds=0, check_method_names=False
        ) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        classify = classification_pb2.ClassificationRequest()
        assert refused(stub.Classify, with_examples(classify, "", *EXAMPLES)) == (
            INVALID,
            "Expected one input Tensor.",
        )
        regress = with_examples(regression_pb2.RegressionRequest(), "classify", *EXAMPLES)
        assert refused(stub.Regress, regress) == (INVALID, "Expected one output Tensor.")


def test_predict_on_a_classification_signature(stub):
    serialized = [one.SerializeToString() for one in EXAMPLES]
    message = wire.request(
        "classify", without=tuple(wire.good_inputs()), inputs=np.array(serialized, object)
    )
    scores = tensors.to_array(stub.Predict(message).outputs["scores"])
    np.testing.assert_allclose(scores[:, 1], POSITIVE, rtol=1e-6)


def test_metadata(stub):
    message = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    message.model_spec.name = "m"
    response = stub.GetModelMetadata(message)
    assert (response.model_spec.name, response.model_spec.version.value) == ("m", 1)
    found = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(found)
    price = found.signature_def["serving_default"].inputs["price"]
    assert (price.dtype, price.tensor_shape.dim[0].size) == (types_pb2.DT_FLOAT, -1)
    assert found.signature_def["classify"].method_name == "tensorflow/serving/classify"

    message.metadata_field[:] = ["graph"]
    assert refused(stub.GetModelMetadata, message) == (
        INVALID,
        "Metadata field graph is not supported",
    )
    message.ClearField("metadata_field")
    assert refused(stub.GetModelMetadata, message) == (
        INVALID,
        "GetModelMetadataRequest must specify at least one metadata_field",
    )
    message.metadata_field[:] = ["signature_def"]
    message.model_spec.name = "other"
    assert refused(stub.GetModelMetadata, message)[0] is grpc.StatusCode.NOT_FOUND
    message.ClearField("model_spec")
    assert refused(stub.GetModelMetadata, message) == (INVALID, "Missing ModelSpec")


def test_status(models):
    message = get_model_status_pb2.GetModelStatusRequest()
    message.model_spec.name = "m"
    response = models.GetModelStatus(message)
    state = get_model_status_pb2.ModelVersionStatus.State.AVAILABLE
    found = [(v.version, v.state, v.status.error_code) for v in response.model_version_status]
    assert found == [(1, state, 0)]
    message.model_spec.version.value = 1
    assert models.GetModelStatus(message) == response
    message.model_spec.version.value = 7
    assert refused(models.GetModelStatus, message) == (
        grpc.StatusCode.NOT_FOUND,
        "Could not find version 7 of model m",
    )
    message.model_spec.name = "other"
    message.model_spec.ClearField("version")
    assert refused(models.GetModelStatus, message) == (
        grpc.StatusCode.NOT_FOUND,
        "Could not find any versions of model other",
    )


@pytest.mark.parametrize("service", ["", "tensorflow.serving.PredictionService", "ModelService"])
def test_health(channel, service):
    health = health_pb2_grpc.HealthStub(channel)
    response = health.Check(health_pb2.HealthCheckRequest(service=service))
    assert response.status == health_pb2.HealthCheckResponse.SERVING


def test_what_is_not_offered(stub, models):
    inference = inference_pb2.MultiInferenceRequest()
    assert refused(stub.MultiInference, inference)[0] is grpc.StatusCode.UNIMPLEMENTED
    reload = model_management_pb2.ReloadConfigRequest()
    assert refused(models.HandleReloadConfigRequest, reload)[0] is grpc.StatusCode.UNIMPLEMENTED


def test_a_message_over_the_limit_is_refused(base_path):
    server = PredictionServer(base_path, model_name="m", poll_seconds=0, max_message_bytes=1000)
    with server, grpc.insecure_channel(server.target) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        long = wire.request(user_id=np.array([b"a" * 2000, b"b", b"c"], object))
        assert refused(stub.Predict, long)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        np.testing.assert_allclose(probability(stub.Predict(wire.request())), wire.good_answer())


def test_long_words_are_cut(stub):
    code, words = refused(stub.Predict, wire.request("x" * 5000))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert words == 'Serving signature key "' + "x" * 1001 + "...TRUNCATED"


def proto(data_type, *sizes, **values) -> tensor_pb2.TensorProto:
    found = tensor_pb2.TensorProto(dtype=data_type, **values)
    for size in sizes:
        found.tensor_shape.dim.add(size=size)
    return found


FLOAT, STRING = types_pb2.DT_FLOAT, types_pb2.DT_STRING
HOSTILE = {
    "bytes_short": {"price": proto(FLOAT, 3, tensor_content=b"\0" * 11)},
    "bytes_long": {"price": proto(FLOAT, 3, tensor_content=b"\0" * 13)},
    "unknown_type": {"price": proto(999, 3, tensor_content=b"\0" * 12)},
    "no_type": {"price": proto(types_pb2.DT_INVALID, 3)},
    "resource": {"price": proto(types_pb2.DT_RESOURCE, 3)},
    "variant": {"price": proto(types_pb2.DT_VARIANT, 3)},
    "negative_size": {"price": proto(FLOAT, -3, float_val=[1.0])},
    "smallest_size": {"price": proto(FLOAT, -(2**63), float_val=[1.0])},
    "sizes_overflow": {"price": proto(FLOAT, 2**62, 2**62, float_val=[1.0])},
    "unfolds_to_terabytes": {"price": proto(FLOAT, 2**40, float_val=[1.0])},
    "empty_but_endless": {"history": proto(STRING, 2**62, 0)},
    "endless_strings": {"user_id": proto(STRING, 2**40, string_val=[b"a"])},
    "thousand_axes": {"price": proto(FLOAT, *[1] * 1000, float_val=[1.0])},
    "packed_strings_cut": {"user_id": proto(STRING, 3, tensor_content=b"\xff\xff\xff")},
    "packed_strings_long": {"user_id": proto(STRING, 3, tensor_content=b"\xff" * 9 + b"\x01" * 9)},
    "empty_tensor": {"price": tensor_pb2.TensorProto()},
    "lengths_far_beyond": {"history_length": np.array([2**31 - 1, 0, 0], np.int32)},
    "lengths_far_below": {"history_length": np.array([-(2**31), 0, 0], np.int32)},
    "other_batch": {"user_id": np.array([b"a"] * 7, object)},
}


def test_hostile_requests_are_the_callers_mistake_and_harm_nobody(stub, channel):
    for name, inputs in HOSTILE.items():
        code, _ = refused(stub.Predict, wire.request(**inputs))
        assert code is INVALID, name
        answer = probability(stub.Predict(wire.request()))
        np.testing.assert_allclose(answer, wire.good_answer(), rtol=1e-6, err_msg=name)

    raw = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    for garbage in (b"\xff" * 100, b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x04\x0a\x02\xff\xfe"):
        code, words = refused(raw, garbage)
        assert code is INVALID
        assert words == "the request is not a tensorflow.serving.PredictRequest message"
    unknown = channel.unary_unary("/tensorflow.serving.PredictionService/Explode")
    assert refused(unknown, b"")[0] is grpc.StatusCode.UNIMPLEMENTED
    np.testing.assert_allclose(probability(stub.Predict(wire.request())), wire.good_answer())


def test_odd_requests_that_are_legal(stub):
    odd = wire.request(
        user_id=np.array([b"a" * (10 << 20), b"\xff\xfe\x00", "é".encode()], object),
        price=np.array([np.nan, np.inf, -np.inf], np.float32),
    )
    np.testing.assert_array_equal(probability(stub.Predict(odd)), np.float32([np.nan, 1.0, 0.0]))


def test_cancelled_calls(stub):
    calls = [stub.Predict.future(wire.request()) for _ in range(50)]
    for call in calls[::2]:
        call.cancel()
    for call in calls[1::2]:
        np.testing.assert_allclose(probability(call.result(20)), wire.good_answer(), rtol=1e-6)
