import asyncio
import concurrent.futures
import http.server
import shutil
import subprocess
import threading
import time

import grpc
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from tensorflow.core.example import example_pb2
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from loopctr_tf.errors import UsageError
from loopctr_tf.scoring import (
    AsyncScoringClient,
    PredictionServer,
    ScoringClient,
    ScoringError,
    Signature,
    TensorInfo,
    server_credentials,
    tensors,
)
from loopctr_tf.scoring.client import chunks
from tests.scoring import scoring_model

Code = grpc.StatusCode


class Fake(prediction_service_pb2_grpc.PredictionServiceServicer):
    """probability = 2 x, behind a list of statuses to give first; remembers what it was asked."""

    def __init__(self):
        self.statuses: list[Code] = []
        self.requests: list[predict_pb2.PredictRequest] = []
        self.metadata: list[dict] = []
        self.asked = 0
        self.version = 1
        self.delay_s = 0.0
        self.gate = threading.Event()
        self.gate.set()
        self.input_name = "x"
        self.lock = threading.Lock()

    def GetModelMetadata(self, request, context):  # noqa: N802
        self.asked += 1
        found = get_model_metadata_pb2.SignatureDefMap()
        signature = found.signature_def["serving_default"]
        ends = ((signature.inputs, self.input_name), (signature.outputs, "probability"))
        for infos, name in ends:
            infos[name].dtype = types_pb2.DT_FLOAT
            infos[name].tensor_shape.dim.add(size=-1)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.version.value = self.version
        response.metadata["signature_def"].Pack(found)
        return response

    def Predict(self, request, context):  # noqa: N802
        with self.lock:
            self.requests.append(request)
            self.metadata.append(dict(context.invocation_metadata()))
            status = self.statuses.pop(0) if self.statuses else None
        time.sleep(self.delay_s)
        assert self.gate.wait(20)
        if status is not None:
            context.abort(status, "as told\nsecond line")
        response = predict_pb2.PredictResponse()
        response.model_spec.version.value = self.version
        (sent,) = request.inputs.values()
        doubled = 2 * tensors.to_array(sent)
        response.outputs["probability"].CopyFrom(tensors.to_proto(doubled))
        return response


@pytest.fixture
def fake():
    fake = Fake()
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(fake, server)
    fake.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield fake
    server.stop(None)


def candidates(requests: int, count: int, seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    names = np.array(["a", "b", "c", "unknown"], object)
    return {
        "user_id": names[rng.integers(4, size=requests)].tolist(),
        "history": [names[rng.integers(4, size=rng.integers(6))].tolist() for _ in range(requests)],
        "item_id": names[rng.integers(4, size=(requests, count))].tolist(),
        "price": rng.normal(size=(requests, count)),
    }


def pointwise(ranked: dict) -> dict:
    """The same pairs of request and candidate, one row each."""
    count = len(ranked["item_id"][0])
    return {
        "user_id": np.repeat(ranked["user_id"], count).tolist(),
        "history": [history for history in ranked["history"] for _ in range(count)],
        "item_id": np.concatenate(ranked["item_id"]).tolist(),
        "price": ranked["price"].ravel().tolist(),
    }


def test_scores_a_dict(client, rows):
    scores = client.score(rows)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, scoring_model.probability(rows), rtol=1e-6)


def test_scores_a_data_frame(client, rows):
    frame = pd.DataFrame(rows)
    np.testing.assert_allclose(client.score(frame), scoring_model.probability(rows), rtol=1e-6)
    dense = frame.assign(history=[["a", "b", "c"]] * 3, history_length=[2, 0, 3])
    dense_rows = {**rows, "history": [["a", "b"], [], ["a", "b", "c"]]}
    expected = scoring_model.probability(dense_rows)
    np.testing.assert_allclose(client.score(dense), expected, rtol=1e-6)


def test_rank_equals_pointwise(client):
    ranked = candidates(3, 7)
    scores = client.score(ranked, signature="rank_loop_0")
    assert scores.shape == (3, 7)
    expected = scoring_model.probability(pointwise(ranked)).reshape(3, 7)
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_predict_gives_all_outputs_or_those_asked_for(client):
    ranked = {**candidates(2, 3), "refine_top_k": [1, 3]}
    found = client.predict(ranked, signature="cascade")
    assert set(found) == {"probability", "depth"}
    assert found["depth"].sum(axis=1).tolist() == [1, 3]
    only = client.predict(ranked, signature="cascade", outputs=["depth"])
    assert set(only) == {"depth"}
    with pytest.raises(UsageError, match=r"output 'nope' is not one of .*: depth, probability"):
        client.predict(ranked, signature="cascade", outputs=["nope"])


def test_score_needs_one_output(client):
    with pytest.raises(UsageError, match="no output 'probability' but anything, total"):
        client.score({"x": np.ones((1, 3)), "anything": [1]}, signature="dense")


def test_the_signature_is_known_by_default_name(server, rows):
    ranked = candidates(1, 2)
    with ScoringClient(server.target, "m", signature_name="rank_loop_0") as client:
        assert client.score(ranked).shape == (1, 2)
        assert client.score(rows, signature="serving_default").shape == (3,)


@pytest.mark.parametrize("chunk_size", [1, 20])
def test_chunks_of_rows_equal_the_whole(server, chunk_size):
    ranked = pointwise(candidates(3, 7))
    with ScoringClient(server.target, "m", chunk_size=chunk_size) as client:
        scores = client.score(ranked)
    np.testing.assert_allclose(scores, scoring_model.probability(ranked), rtol=1e-6)


@pytest.mark.parametrize("chunk_size", [1, 4, 15])
def test_chunks_of_candidates_equal_the_whole(server, client, chunk_size):
    ranked = candidates(3, 10)
    whole = client.score(ranked, signature="rank_loop_0")
    with ScoringClient(server.target, "m", chunk_size=chunk_size) as chunked:
        parts = chunked.score(ranked, signature="rank_loop_0")
    np.testing.assert_allclose(parts, whole, rtol=1e-6)


@pytest.mark.parametrize(
    ("size", "parts"),
    [
        # rows and candidates of each call: 2 requests of 5 candidates
        (4, [(1, 4), (1, 1), (1, 4), (1, 1)]),
        (5, [(1, 5), (1, 5)]),
        (9, [(1, 5), (1, 5)]),
        (10, [(2, 5)]),
    ],
)
def test_chunks_are_no_larger_than_told(client, size, parts):
    signature = client.signatures()["rank_loop_0"]
    arrays = {"user_id": np.array(["a", "b"]), "price": np.arange(10).reshape(2, 5)}
    found = [part for row in chunks.split(signature, arrays, size) for part in row]
    assert [part["price"].shape for part in found] == parts
    assert [len(part["user_id"]) for part in found] == [rows for rows, _ in parts]
    assert sorted(np.concatenate([part["price"].ravel() for part in found])) == list(range(10))


def test_outputs_without_candidates_cannot_be_split():
    info = TensorInfo(np.dtype("float32"), (None, None))
    signature = Signature("rank", {"x": info}, {"state": info}, candidates=frozenset("x"))
    with pytest.raises(UsageError, match=r"output 'state' .* cannot be split"):
        chunks.check_candidates(signature, {"x": np.ones((1, 4))}, {"state": np.ones((1, 8))})


def test_candidates_that_are_weighed_against_each_other_stay_together(server, client):
    ranked = {**candidates(3, 8), "refine_top_k": [2, 2, 2]}
    whole = client.predict(ranked, signature="cascade")
    with ScoringClient(server.target, "m", chunk_size=4) as chunked:
        parts = chunked.predict(ranked, signature="cascade")
    assert parts["depth"].sum(axis=1).tolist() == [2, 2, 2]
    for name in whole:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-6)


@pytest.mark.parametrize("requests", [0, 2])
def test_nothing_to_score(client, requests):
    empty = {"user_id": ["a"] * requests, "history": [[]] * requests}
    empty |= {"item_id": [[]] * requests, "price": np.zeros((requests, 0))}
    assert client.score(empty, signature="rank_loop_0").shape == (requests, 0)
    none = {"user_id": [], "item_id": [], "history": [], "price": []}
    assert client.score(none).shape == (0,)


def test_large_answers(server):
    anything = np.arange(600_000)
    assert anything.nbytes > 4 << 20
    with ScoringClient(server.target, "m", chunk_size=1_000_000) as client:
        found = client.predict(
            {"x": np.ones((600_000, 3)), "anything": anything}, signature="dense"
        )
    assert found["total"].shape == (600_000,)
    np.testing.assert_array_equal(found["anything"], anything)


def test_examples(client):
    examples = []
    for user, price in (("a", 0.0), ("b", -5.0)):
        example = example_pb2.Example()
        example.features.feature["user_id"].bytes_list.value.append(user.encode())
        example.features.feature["price"].float_list.value.append(price)
        examples.append(example)
    positive = 1 / (1 + np.exp([-1.0, -1.5]))
    labels, scores = client.classify(examples)
    assert labels.tolist() == [["0", "1"], ["0", "1"]]
    np.testing.assert_allclose(scores, np.stack([1 - positive, positive], axis=1), rtol=1e-6)
    serialized = [example.SerializeToString() for example in examples]
    np.testing.assert_allclose(client.regress(serialized), positive, rtol=1e-6)
    with pytest.raises(UsageError, match=r"example 1 is not a serialized tf.Example"):
        client.regress([serialized[0], b"\xff"])
    with pytest.raises(ScoringError, match="Input is empty"):
        client.classify([])


def test_errors_of_the_server(client, server, rows):
    bad = {**rows, "history": [["a"], ["b"], ["c"]], "history_length": [0, 9, 1]}
    with pytest.raises(ScoringError) as caught:
        client.score(bad)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert "\n" in caught.value.details
    assert str(caught.value) == (
        f"INVALID_ARGUMENT from {server.target} (model 'm', Predict): assertion failed: "
        "[history_length is beyond the data:] [0 9 1]"
    )
    with ScoringClient(server.target, "other") as other, pytest.raises(ScoringError) as caught:
        other.score(rows)
    assert caught.value.code is Code.NOT_FOUND
    with (
        ScoringClient(server.target, "m", version=9) as other,
        pytest.raises(ScoringError, match=r"Specific\(m, 9\)"),
    ):
        other.score(rows)


def test_errors_before_a_call(client, rows):
    with pytest.raises(UsageError, match=r"'m' .* has no signature 'nope'; it has: cascade, "):
        client.score(rows, signature="nope")
    with pytest.raises(UsageError, match="feature 'price' is missing"):
        client.score({name: value for name, value in rows.items() if name != "price"})


@pytest.mark.parametrize(
    "options",
    [
        {"target": ""},
        {"model_name": ""},
        {"timeout_s": 0},
        {"max_retries": -1},
        {"chunk_size": 0},
        {"tls": "/no/such.pem"},
        {"tls": True, "credentials": grpc.ssl_channel_credentials()},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_that_cannot_be(options):
    with pytest.raises(UsageError, match=next(iter(options))):
        ScoringClient(**{"target": "localhost:1", **options})


def test_a_closed_client(server, rows):
    client = ScoringClient(server.target, "m")
    client.close()
    with pytest.raises(UsageError, match="closed"):
        client.score(rows)


def test_unavailable_is_tried_again(fake):
    fake.statuses = [Code.UNAVAILABLE] * 3
    with ScoringClient(fake.target, "m", max_retries=3) as client:
        assert client.score({"x": [1.0, 2.0]}).tolist() == [2.0, 4.0]
    assert len(fake.requests) == 4


def test_tries_are_bounded(fake):
    fake.statuses = [Code.UNAVAILABLE] * 9
    with (
        ScoringClient(fake.target, "m", max_retries=2) as client,
        pytest.raises(ScoringError) as caught,
    ):
        client.score({"x": [1.0]})
    assert caught.value.code is Code.UNAVAILABLE
    assert len(fake.requests) == 3
    assert str(caught.value) == (
        f"UNAVAILABLE from {fake.target} (model 'm', Predict): as told; is the server up, and is "
        f"{fake.target} its gRPC port? (REST is another one)"
    )
    assert caught.value.details == "as told\nsecond line"


def test_nothing_else_is_tried_again(fake):
    codes = [code for code in Code if code not in (Code.OK, Code.UNAVAILABLE)]
    fake.statuses = list(codes)
    with ScoringClient(fake.target, "m") as client:
        for count, code in enumerate(codes, 1):
            with pytest.raises(ScoringError) as caught:
                client.score({"x": [1.0]})
            assert caught.value.code is code
            assert len(fake.requests) == count


def test_a_large_request_is_retried_too(fake):
    fake.statuses = [Code.UNAVAILABLE]
    x = np.ones(1 << 19, np.float32)
    with ScoringClient(fake.target, "m", chunk_size=len(x)) as client:
        np.testing.assert_array_equal(client.score({"x": x}), 2 * x)
    assert len(fake.requests) == 2


def test_pauses_grow_and_four_retries_are_the_most(fake):
    fake.statuses = [Code.UNAVAILABLE] * 99
    with ScoringClient(fake.target, "m", max_retries=20) as client:
        client.signatures()
        start = time.monotonic()
        with pytest.raises(ScoringError):
            client.score({"x": [1.0]})
        taken = time.monotonic() - start
    assert len(fake.requests) == 5
    assert taken > 0.2  # four pauses of 50 to 400 ms, each shortened by a fifth at most


def test_retries_stay_within_the_deadline(fake):
    fake.statuses = [Code.UNAVAILABLE] * 99
    with ScoringClient(fake.target, "m") as client:
        client.signatures()
        start = time.monotonic()
        with pytest.raises(ScoringError) as caught:
            client.score({"x": [1.0]}, timeout=0.1)
        assert time.monotonic() - start < 0.5
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    assert len(fake.requests) < 5


def test_the_deadline_holds(fake):
    with ScoringClient(fake.target, "m", timeout_s=20) as client:
        client.signatures()
        fake.gate.clear()
        with pytest.raises(ScoringError) as caught:
            client.score({"x": [1.0]}, timeout=0.1)
        assert caught.value.code is Code.DEADLINE_EXCEEDED
        assert caught.value.details == "Deadline Exceeded"
        assert str(caught.value) == (
            f"DEADLINE_EXCEEDED from {fake.target} (model 'm', Predict): Deadline Exceeded; the "
            "call had 0.1 s: raise timeout_s (--timeout on the command line), or send less at a time"
        )
        fake.gate.set()
        assert client.score({"x": [1.0]}).tolist() == [2.0]


def test_the_deadline_is_of_all_chunks_together(fake):
    with ScoringClient(fake.target, "m", chunk_size=1) as client:
        client.signatures()
        fake.delay_s = 0.05
        with pytest.raises(ScoringError) as caught:
            client.score({"x": np.ones(100)}, timeout=0.3)
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    assert len(fake.requests) < 10


def test_a_port_that_is_rest():
    class Rest(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Rest) as rest:
        threading.Thread(target=rest.serve_forever).start()
        target = f"127.0.0.1:{rest.server_port}"
        with (
            ScoringClient(target, max_retries=0) as client,
            pytest.raises(ScoringError) as caught,
        ):
            client.score({"x": [1.0]})
        rest.shutdown()
    assert caught.value.code is Code.UNAVAILABLE
    start, end = str(caught.value).split(caught.value.details)
    assert start == f"UNAVAILABLE from {target} (model 'loopctr', GetModelMetadata): "
    assert end == f"; is the server up, and is {target} its gRPC port? (REST is another one)"


def test_metadata_goes_with_every_call(fake):
    with ScoringClient(fake.target, "m", metadata=[("authorization", "Bearer 1")]) as client:
        client.score({"x": [1.0]}, metadata=[("trace", "7")])
    assert fake.metadata[-1].items() >= {"authorization": "Bearer 1", "trace": "7"}.items()
    tokens = iter("abc")
    with ScoringClient(fake.target, "m", metadata=lambda: [("token", next(tokens))]) as client:
        client.score({"x": [1.0]})  # the signatures take "a"
        client.score({"x": [1.0]})
    assert [one.get("token") for one in fake.metadata[1:]] == ["b", "c"]


def test_signatures_are_asked_for_once(fake):
    with ScoringClient(fake.target, "m") as client:
        for _ in range(3):
            client.score({"x": [1.0]})
        assert fake.asked == 1


def test_signatures_follow_the_model(fake):
    with ScoringClient(fake.target, "m") as client:
        client.score({"x": [1.0]})
        fake.version = 2
        client.score({"x": [1.0]})
        client.score({"x": [1.0]})
        assert fake.asked == 2  # a new version answered
        fake.input_name = "y"
        assert client.score({"y": [3.0]}).tolist() == [6.0]
        assert fake.asked == 3  # what did not fit the old signature fits the new one
        with pytest.raises(UsageError, match="'z' is not an input"):
            client.score({"z": [3.0]})
        assert fake.asked == 4
        fake.statuses = [Code.INVALID_ARGUMENT]
        with pytest.raises(ScoringError):
            client.score({"y": [3.0]})
        client.score({"y": [3.0]})
        assert fake.asked == 5  # a refusal may mean that the model is another


def test_a_server_that_comes_back(base_path, rows):
    """One client outlives its server."""
    first = PredictionServer(base_path, model_name="m", poll_seconds=0).start()
    with ScoringClient(first.target, "m") as client:
        client.score(rows)
        first.stop()
        with pytest.raises(ScoringError) as caught:
            client.score(rows)
        assert caught.value.code is Code.UNAVAILABLE
        with PredictionServer(base_path, model_name="m", poll_seconds=0, port=first.port):
            expected = scoring_model.probability(rows)
            np.testing.assert_allclose(client.score(rows), expected, rtol=1e-6)


def test_threads_share_a_client(client):
    requests = [pointwise(candidates(2, 3, seed)) for seed in range(20)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for request, scores in zip(requests, pool.map(client.score, requests), strict=True):
            np.testing.assert_allclose(scores, scoring_model.probability(request), rtol=1e-6)


def test_asyncio(server, rows, fake):
    async def scenario():
        async with AsyncScoringClient(server.target, "m", chunk_size=4) as client:
            requests = [candidates(2, 5, seed) for seed in range(10)]
            ranked = await asyncio.gather(
                *(client.score(request, signature="rank_loop_0") for request in requests)
            )
            for request, scores in zip(requests, ranked, strict=True):
                expected = scoring_model.probability(pointwise(request)).reshape(2, 5)
                np.testing.assert_allclose(scores, expected, rtol=1e-6)
            found = await client.predict(pd.DataFrame(rows))
            np.testing.assert_allclose(
                found["probability"], scoring_model.probability(rows), rtol=1e-6
            )
            assert "rank_loop_0" in await client.signatures()
            example = example_pb2.Example()
            example.features.feature["price"].float_list.value.append(0.0)
            assert (await client.regress([example])).tolist() == [0.5]
            assert (await client.classify([example]))[1].tolist() == [[0.5, 0.5]]
            with pytest.raises(UsageError, match="'price' is missing"):
                await client.score({name: rows[name] for name in rows if name != "price"})
            with pytest.raises(ScoringError) as caught:
                await client.score({**rows, "history_length": [9, 0, 0]})
            assert caught.value.code is Code.INVALID_ARGUMENT
        with pytest.raises(UsageError, match="closed"):
            await client.score(rows)

        async with AsyncScoringClient(fake.target, "m", max_retries=2) as client:
            fake.statuses = [Code.UNAVAILABLE] * 2
            assert (await client.score({"x": [1.0]})).tolist() == [2.0]
            assert len(fake.requests) == 3
            fake.gate.clear()
            with pytest.raises(ScoringError) as caught:
                await client.score({"x": [1.0]}, timeout=0.1)
            assert caught.value.code is Code.DEADLINE_EXCEEDED
            waiting = asyncio.ensure_future(client.score({"x": [1.0]}))
            await asyncio.sleep(0.05)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            fake.gate.set()

    asyncio.run(scenario())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A key and a certificate for 127.0.0.1 that signs itself."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed, and makes the certificate of this test")
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    command += f" -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 -keyout {folder}/key.pem"
    subprocess.run(
        [*command.split(), "-out", f"{folder}/cert.pem"], check=True, capture_output=True
    )
    return folder / "cert.pem", folder / "key.pem"


def test_tls(base_path, rows, certificate):
    chain, key = certificate
    credentials = server_credentials(chain, key)
    with PredictionServer(base_path, model_name="m", credentials=credentials) as server:
        with ScoringClient(server.target, "m", tls=chain) as client:
            np.testing.assert_allclose(
                client.score(rows), scoring_model.probability(rows), rtol=1e-6
            )
        with (
            ScoringClient(server.target, "m", timeout_s=0.3) as plain,
            pytest.raises(ScoringError),
        ):
            plain.score(rows)
    with pytest.raises(UsageError, match=r"key '.*nokey' cannot be read"):
        server_credentials(chain, key.with_name("nokey"))


def test_mutual_tls(base_path, rows, certificate):
    chain, key = certificate
    credentials = server_credentials(chain, key, client_ca=chain)
    mine = grpc.ssl_channel_credentials(chain.read_bytes(), key.read_bytes(), chain.read_bytes())
    with PredictionServer(base_path, model_name="m", credentials=credentials) as server:
        with ScoringClient(server.target, "m", credentials=mine) as client:
            assert client.score(rows).shape == (3,)
        with (
            ScoringClient(server.target, "m", tls=chain, timeout_s=0.3) as unknown,
            pytest.raises(ScoringError),
        ):
            unknown.score(rows)


def test_tensorflow_tensors_are_features(client, rows):
    mixed = {
        **rows,
        "user_id": tf.constant(rows["user_id"]),
        "history": tf.ragged.constant(rows["history"]).to_tensor(),
    }
    np.testing.assert_allclose(client.score(mixed), scoring_model.probability(rows), rtol=1e-6)
