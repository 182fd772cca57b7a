"""Version labels: who is answered by which version, and how labels move while requests run."""

import asyncio
import shutil
import threading
import time

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
)

from loopctr_tf.errors import UsageError
from loopctr_tf.scoring import (
    AsyncScoringClient,
    PredictionServer,
    ScoringClient,
    ScoringError,
    tensors,
)
from tests.scoring import scoring_model, wire
from tests.scoring.running import State, answer, broken_copy, serving, states

AVAILABLE, END = (State.AVAILABLE, 0), (State.END, 0)
UNKNOWN = (grpc.StatusCode.INVALID_ARGUMENT, "Unrecognized servable version label: nope")


@pytest.fixture
def three(saved, base_path):
    """Versions 1 and 3 of bias 0, version 2 of bias 1."""
    scoring_model.copy(saved[2], base_path / "2")
    scoring_model.copy(saved[1], base_path / "3")
    return base_path


def test_labelled_versions_are_served_beside_the_newest(three):
    with serving(three, version_labels={"stable": 1, "canary": 2}) as (server, stub):
        for asked, version, bias in (
            ({"label": "stable"}, 1, 0.0),
            ({"label": "canary"}, 2, 1.0),
            ({"version": 2}, 2, 1.0),
            ({}, 3, 0.0),
        ):
            found, scores = answer(stub, **asked)
            assert found == version
            np.testing.assert_allclose(scores, wire.good_answer(bias), rtol=1e-6)
        assert states(server) == {1: AVAILABLE, 2: AVAILABLE, 3: AVAILABLE}


def test_what_has_no_label_and_is_not_the_newest_is_not_loaded(three):
    with serving(three, version_labels={"stable": 1}) as (server, _):
        assert states(server) == {1: AVAILABLE, 3: AVAILABLE}


def test_unknown_labels(base_path):
    with serving(base_path, version_labels={"stable": 1}) as (_, stub):
        with pytest.raises(grpc.RpcError) as caught:
            answer(stub, label="nope")
        assert (caught.value.code(), caught.value.details()) == UNKNOWN
        # labels are a model's own: another has none, wherever this one's point
        message = wire.request()
        message.model_spec.name = "other"
        message.model_spec.version_label = "stable"
        with pytest.raises(grpc.RpcError) as caught:
            stub.Predict(message, timeout=20)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.details() == "Unrecognized servable version label: stable"


def test_metadata_and_status_by_label(three):
    metadata = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    status = get_model_status_pb2.GetModelStatusRequest()
    with (
        serving(three, version_labels={"stable": 1, "canary": 2}) as (server, stub),
        grpc.insecure_channel(server.target) as channel,
    ):
        methods = (
            (stub.GetModelMetadata, metadata),
            (model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus, status),
        )
        for method, message in methods:
            message.model_spec.name = "m"
            message.model_spec.version_label = "nope"
            with pytest.raises(grpc.RpcError) as caught:
                method(message, timeout=20)
            assert (caught.value.code(), caught.value.details()) == UNKNOWN
            message.model_spec.version_label = "canary"
        response = stub.GetModelMetadata(metadata, timeout=20)
        assert response.model_spec.version.value == 2
        (one,) = methods[1][0](status, timeout=20).model_version_status
        assert (one.version, one.state) == (2, State.AVAILABLE)


def test_a_label_moves_and_its_old_version_ends(three):
    with serving(three, version_labels={"stable": 1, "canary": 2}) as (server, stub):
        server.store.set_labels({"stable": 2, "canary": 2})
        assert answer(stub, label="stable")[0] == 2
        assert server.store.labels == {"stable": 2, "canary": 2}
        server.store.poll()
        assert states(server) == {1: END, 2: AVAILABLE, 3: AVAILABLE}
        server.store.set_labels({"stable": 3})
        server.store.poll()
        assert states(server) == {1: END, 2: END, 3: AVAILABLE}
        with pytest.raises(grpc.RpcError, match="Unrecognized servable version label: canary"):
            answer(stub, label="canary")


def test_a_label_moves_to_loaded_versions_alone(three):
    with serving(three, version_labels={"stable": 1}) as (server, stub):
        with pytest.raises(UsageError) as caught:
            server.store.set_labels({"stable": 3, "canary": 2})
        assert str(caught.value) == (
            "label 'canary' is given to version 2, which is not loaded; choose 1, 3"
        )
        assert server.store.labels == {"stable": 1}
        server.store.poll()
        assert answer(stub, label="stable")[0] == 1


def test_requests_under_way_finish_on_the_version_of_their_label(three, gated):
    with serving(three, version_labels={"stable": 1, "canary": 2}) as (server, stub):
        gate = gated(server, "stable")
        message = wire.request()
        message.model_spec.version_label = "stable"
        call = stub.Predict.future(message, timeout=20)
        assert gate.entered.wait(20)
        server.store.set_labels({"stable": 2})
        server.store.poll()
        assert states(server)[1] == (State.UNLOADING, 0)
        assert answer(stub, label="stable")[0] == 2
        gate.open.set()
        response = call.result(20)
        assert response.model_spec.version.value == 1
        np.testing.assert_allclose(
            tensors.to_array(response.outputs["probability"]), wire.good_answer(), rtol=1e-6
        )
        deadline = time.monotonic() + 20
        while states(server)[1] != END:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_no_request_fails_while_labels_follow_new_versions(saved, base_path):
    """Four callers of one label without a pause; three versions come, and the label after each."""
    seen, errors, stop = set(), [], threading.Event()
    expected = {1: wire.good_answer(0.0), 0: wire.good_answer(1.0)}  # by parity of the version

    def call(stub):
        while not stop.is_set():
            try:
                version, scores = answer(stub, label="stable")
                np.testing.assert_allclose(scores, expected[version % 2], rtol=1e-6)
                seen.add(version)
            except Exception as error:
                errors.append(error)
                return

    def wait_for(condition):
        deadline = time.monotonic() + 20
        while not condition() and not errors:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    options = {"poll_seconds": 0.02, "version_labels": {"stable": 1}}
    with serving(base_path, **options) as (server, stub):
        callers = [threading.Thread(target=call, args=(stub,)) for _ in range(4)]
        for caller in callers:
            caller.start()
        for version in range(2, 5):
            scoring_model.copy(saved[2 - version % 2], base_path / str(version))
            wait_for(lambda version=version: server.store.version == version)
            server.store.set_labels({"stable": version})
            wait_for(lambda version=version: version in seen)
        stop.set()
        for caller in callers:
            caller.join()
    assert not errors
    assert seen == set(range(1, 5))


def test_a_version_that_does_not_load_leaves_the_others(saved, three, caplog):
    with serving(three, version_labels={"stable": 1}) as (server, stub):
        broken_copy(saved, three / "4")
        server.store.poll()
        assert (answer(stub, label="stable")[0], answer(stub)[0]) == (1, 3)
        assert states(server)[4][0] == State.END
    assert any("version 4 of m does not load" in text for text in caplog.messages)


def test_a_labelled_version_stays_when_its_folder_goes(three):
    with serving(three, version_labels={"stable": 1, "canary": 3}) as (server, stub):
        for gone in ("1", "3"):
            shutil.rmtree(three / gone)
        server.store.poll()
        assert answer(stub, label="stable")[0] == 1
        # 2, the newest in the folder, is taken up; who asks for none gets the highest that is loaded
        assert answer(stub, version=2)[0] == 2
        assert answer(stub)[0] == 3
        server.store.set_labels({"stable": 2})
        server.store.poll()
        assert states(server) == {1: END, 2: AVAILABLE, 3: END}


def test_labels_that_cannot_be_given_at_the_start(saved, base_path):
    with pytest.raises(UsageError) as caught:
        PredictionServer(base_path, version_labels={"stable": 7}).start()
    assert str(caught.value) == (
        f"label 'stable' is given to version 7, which is not in model folder {str(base_path)!r}; "
        "choose 1"
    )
    broken_copy(saved, base_path / "0")
    with pytest.raises(UsageError, match=r"version 0 in model folder .* does not load"):
        PredictionServer(base_path, version_labels={"old": 0}).start()


def test_clients_ask_for_a_label(three, rows):
    with PredictionServer(
        three, model_name="m", poll_seconds=0, version_labels={"stable": 1, "canary": 2}
    ) as server:
        with ScoringClient(server.target, "m", version_label="canary") as client:
            np.testing.assert_allclose(
                client.score(rows), scoring_model.probability(rows, bias=1.0), rtol=1e-6
            )
            server.store.set_labels({"canary": 3})
            np.testing.assert_allclose(
                client.score(rows), scoring_model.probability(rows), rtol=1e-6
            )

        async def ask(label):
            async with AsyncScoringClient(server.target, "m", version_label=label) as client:
                return await client.score(rows)

        server.store.set_labels({"canary": 2})
        np.testing.assert_allclose(
            asyncio.run(ask("canary")), scoring_model.probability(rows, bias=1.0), rtol=1e-6
        )
        with pytest.raises(ScoringError) as caught:
            asyncio.run(ask("nope"))
        assert (caught.value.code, caught.value.details) == UNKNOWN


def test_a_client_asks_for_a_version_or_a_label():
    with pytest.raises(UsageError) as caught:
        ScoringClient("localhost:1", version=1, version_label="stable")
    assert str(caught.value) == (
        "version 1 and version_label 'stable' are both given; give one of them"
    )
