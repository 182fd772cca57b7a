import concurrent.futures
import contextlib
import gc
import logging
import os
import re
import shutil
import signal
import socket
import threading
import time
import weakref

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import prediction_log_pb2

from loopctr_tf.errors import UsageError
from loopctr_tf.scoring import PredictionServer, ScoringClient, tensors
from loopctr_tf.scoring.server import model_store
from tests.scoring import scoring_model, wire
from tests.scoring.running import Gate, State, answer, broken_copy, serving, states


def test_the_highest_number_is_served(saved, base_path):
    scoring_model.copy(saved[2], base_path / "0010")
    (base_path / "latest").mkdir()
    (base_path / "-3").mkdir()
    (base_path / str(2**63)).mkdir()
    with serving(base_path) as (server, stub):
        assert server.store.version == 10
        version, scores = answer(stub)
        assert version == 10
        np.testing.assert_allclose(scores, wire.good_answer(bias=1.0), rtol=1e-6)


def test_a_new_version_takes_over_and_the_old_one_ends(saved, base_path):
    with serving(base_path) as (server, stub):
        scoring_model.copy(saved[2], base_path / "2")
        server.store.poll()
        version, scores = answer(stub)
        assert version == 2
        np.testing.assert_allclose(scores, wire.good_answer(bias=1.0), rtol=1e-6)
        assert states(server) == {1: (State.END, 0), 2: (State.AVAILABLE, 0)}
        with pytest.raises(grpc.RpcError, match="Specific"):
            answer(stub, version=1)
        # taking the new version away brings the old one back
        shutil.rmtree(base_path / "2")
        server.store.poll()
        assert answer(stub)[0] == 1
        assert states(server) == {1: (State.AVAILABLE, 0), 2: (State.END, 0)}


def test_the_old_version_gives_its_memory_back_at_once(saved, base_path):
    with serving(base_path) as (server, stub):
        answer(stub)
        with server.store.use() as model:
            session = weakref.ref(model._session)
        del model
        gc.disable()
        try:
            scoring_model.copy(saved[2], base_path / "2")
            server.store.poll()
            assert session() is None
        finally:
            gc.enable()


def test_requests_under_way_finish_on_their_version(saved, base_path, gated):
    with serving(base_path) as (server, stub):
        gate = gated(server)
        call = stub.Predict.future(wire.request(), timeout=20)
        assert gate.entered.wait(20)
        scoring_model.copy(saved[2], base_path / "2")
        server.store.poll()
        assert answer(stub)[0] == 2
        assert states(server)[1] == (State.UNLOADING, 0)
        gate.open.set()
        response = call.result(20)
        assert response.model_spec.version.value == 1
        np.testing.assert_allclose(
            tensors.to_array(response.outputs["probability"]), wire.good_answer(), rtol=1e-6
        )
        deadline = time.monotonic() + 20
        while states(server)[1] != (State.END, 0):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_no_request_fails_while_versions_change(saved, base_path):
    """Four callers without a pause, three changes of version, found by polling."""
    seen, errors, stop = set(), [], threading.Event()
    expected = {1: wire.good_answer(0.0), 0: wire.good_answer(1.0)}  # by parity of the version

    def call(stub):
        while not stop.is_set():
            try:
                version, scores = answer(stub)
                np.testing.assert_allclose(scores, expected[version % 2], rtol=1e-6)
                seen.add(version)
            except Exception as error:
                errors.append(error)
                return

    with serving(base_path, poll_seconds=0.02) as (_, stub):
        callers = [threading.Thread(target=call, args=(stub,)) for _ in range(4)]
        for caller in callers:
            caller.start()
        for version in range(2, 5):
            scoring_model.copy(saved[2 - version % 2], base_path / str(version))
            deadline = time.monotonic() + 20
            while version not in seen and not errors:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        stop.set()
        for caller in callers:
            caller.join()
    assert not errors
    assert seen == set(range(1, 5))


def test_a_version_that_does_not_load_leaves_the_old_one(saved, base_path, caplog):
    with serving(base_path) as (server, stub):
        broken_copy(saved, base_path / "2")  # without its variables
        server.store.poll()
        assert answer(stub)[0] == 1
        state, code = states(server)[2]
        assert state == State.END
        assert code != 0
        assert states(server)[1] == (State.AVAILABLE, 0)
        assert server.store.states()[2].message
        assert sum("version 2 of m does not load" in text for text in caplog.messages) == 1
        # it is tried again when its files change, and not before
        server.store.poll()
        assert sum("version 2 of m does not load" in text for text in caplog.messages) == 1
        shutil.copytree(saved[2] / "variables", base_path / "2" / "variables")
        server.store.poll()
        assert answer(stub)[0] == 2


@pytest.mark.parametrize("content", [None, b"not a SavedModel"], ids=["no_file", "garbage"])
def test_a_folder_that_is_no_model(base_path, content, caplog):
    (base_path / "2").mkdir()
    if content is not None:
        (base_path / "2" / "saved_model.pb").write_bytes(content)
    with pytest.raises(UsageError, match=r"version 2 in model folder .* does not load"):
        PredictionServer(base_path, model_name="m").start()
    (base_path / "2").rename(base_path / "hidden")
    with serving(base_path) as (server, stub):
        (base_path / "hidden").rename(base_path / "2")
        server.store.poll()
        assert answer(stub)[0] == 1


def test_a_folder_that_is_emptied_or_gone_leaves_the_model(base_path, caplog):
    with serving(base_path) as (server, stub):
        shutil.rmtree(base_path / "1")
        server.store.poll()
        assert answer(stub)[0] == 1
        shutil.rmtree(base_path)
        server.store.poll()
        assert answer(stub)[0] == 1
    assert [record.levelno for record in caplog.records].count(logging.WARNING) == 2


def write_warm_up(version, *logs):
    folder = version / "assets.extra"
    folder.mkdir()
    with tf.io.TFRecordWriter(str(folder / "tf_serving_warmup_requests")) as writer:
        for log in logs:
            writer.write(log if isinstance(log, bytes) else log.SerializeToString())


def predict_log(message) -> prediction_log_pb2.PredictionLog:
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(message)
    return log


def test_warm_up_requests_are_run(base_path, caplog):
    regress = prediction_log_pb2.PredictionLog()
    regress.regress_log.request.model_spec.signature_name = "regress"
    row = regress.regress_log.request.input.example_list.examples.add()
    row.features.feature["price"].float_list.value.append(1.0)
    write_warm_up(base_path / "1", predict_log(wire.request()), regress)
    with caplog.at_level(logging.INFO), serving(base_path) as (_, stub):
        assert answer(stub)[0] == 1
    assert any(
        re.fullmatch(r"version 1 answered 2 warm-up requests in \d+\.\d s", message)
        for message in caplog.messages
    )


def test_the_log_says_once_what_is_loaded_and_served(saved, base_path, caplog):
    with caplog.at_level(logging.INFO), serving(base_path) as (server, _):
        assert caplog.messages == [
            f"loading version 1 of m from {base_path / '1'}",
            f"version 1 of m is served at {server.target}",
        ]
        caplog.clear()
        scoring_model.copy(saved[2], base_path / "2")
        server.store.poll()
        server.store.poll()
        assert caplog.messages == [
            f"loading version 2 of m from {base_path / '2'}",
            "version 2 of m is served",
        ]


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (predict_log(wire.request("nope")), 'Serving signature key "nope" not found'),
        (
            predict_log(wire.request(history_length=np.array([9, 0, 0], np.int32))),
            "beyond the data",
        ),
        (prediction_log_pb2.PredictionLog(), "Unsupported log_type"),
        (b"\xff\xff", "Failed to parse warmup record 1"),
    ],
    ids=["signature", "assertion", "kind", "garbage"],
)
def test_a_version_that_fails_its_warm_up_is_not_served(base_path, log, words):
    write_warm_up(base_path / "1", log)
    with pytest.raises(UsageError, match=words):
        PredictionServer(base_path, model_name="m").start()


def test_folders_that_cannot_be_served(saved, tmp_path):
    with pytest.raises(UsageError, match=r"'.*nowhere' cannot be read .*numbered versions"):
        PredictionServer(tmp_path / "nowhere").start()
    with pytest.raises(UsageError, match="holds no version; put the SavedModel into a subfolder"):
        PredictionServer(tmp_path).start()
    with pytest.raises(UsageError, match="is a version itself: give its parent"):
        PredictionServer(saved[1]).start()


def test_a_port_in_use_is_told_before_the_model_is_loaded(base_path, monkeypatch):
    monkeypatch.setattr(model_store, "SavedModel", lambda *_: pytest.fail("the model was loaded"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for folder in (base_path, base_path / "nowhere"):
            with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1:{port}"):
                PredictionServer(folder, port=port).start()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_a_model_that_does_not_load_gives_the_port_back(saved, base_path):
    broken_copy(saved, base_path / "2")
    server = PredictionServer(base_path, model_name="m", port=free_port(), poll_seconds=0)
    with pytest.raises(UsageError, match=r"version 2 .* does not load"):
        server.start()
    shutil.rmtree(base_path / "2")
    with server, ScoringClient(server.target, "m") as client:
        assert client.score(wire.good_inputs()).shape == (3,)


def test_nobody_is_answered_before_the_model_is_loaded(base_path, monkeypatch):
    """A caller that comes too early waits, even one that does not try again."""
    entered, go_on = threading.Event(), threading.Event()
    load = model_store.SavedModel

    def wait_and_load(*arguments):
        entered.set()
        assert go_on.wait(20)
        return load(*arguments)

    monkeypatch.setattr(model_store, "SavedModel", wait_and_load)
    port = free_port()
    server = PredictionServer(base_path, model_name="m", port=port, poll_seconds=0)
    with (
        concurrent.futures.ThreadPoolExecutor() as pool,
        ScoringClient(f"127.0.0.1:{port}", "m", max_retries=0) as client,
    ):
        starting = pool.submit(server.start)
        try:
            assert entered.wait(20)
            early = pool.submit(client.score, wire.good_inputs())
            with pytest.raises(TimeoutError):
                early.result(0.2)
        finally:
            go_on.set()
        starting.result(20)
        np.testing.assert_allclose(early.result(20), wire.good_answer(), rtol=1e-6)
        server.stop()


def test_two_servers_do_not_share_a_port(base_path):
    with (
        serving(base_path) as (server, _),
        pytest.raises(UsageError, match="cannot listen"),
    ):
        PredictionServer(base_path, port=server.port).start()


@pytest.mark.parametrize(
    "options",
    [
        {"workers": 0},
        {"poll_seconds": -1},
        {"max_message_bytes": 0},
        {"grace_seconds": float("nan")},
        {"port": 70000},
        {"model_name": ""},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_that_cannot_be(base_path, options):
    with pytest.raises(UsageError, match=next(iter(options))):
        PredictionServer(base_path, **options)


def test_a_server_starts_once(base_path):
    server = PredictionServer(base_path)
    with pytest.raises(UsageError, match="started"):
        server.port  # noqa: B018
    server.stop()
    server.start()
    with pytest.raises(UsageError, match="started before"):
        server.start()
    server.stop()
    server.stop()


def test_stopping_lets_calls_finish_and_takes_no_more(base_path, gated):
    with serving(base_path) as (server, stub):
        gate = gated(server)
        call = stub.Predict.future(wire.request(), timeout=20)
        assert gate.entered.wait(20)
        with grpc.insecure_channel(server.target) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
            stopper = threading.Thread(target=server.stop, args=(10,))
            stopper.start()
            assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
            watch.cancel()
        deadline = time.monotonic() + 20
        while True:  # until the listening socket is closed
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port)):
                assert time.monotonic() < deadline
                continue
            break
        assert stopper.is_alive()
        gate.open.set()
        np.testing.assert_allclose(
            tensors.to_array(call.result(20).outputs["probability"]), wire.good_answer(), rtol=1e-6
        )
        stopper.join(20)
        assert not stopper.is_alive()


def test_stopping_cancels_what_outlasts_the_grace(base_path, gated):
    with serving(base_path) as (server, stub):
        gate = gated(server)
        call = stub.Predict.future(wire.request(), timeout=20)
        assert gate.entered.wait(20)
        server.stop(grace_seconds=0.05)
        with pytest.raises(grpc.RpcError) as caught:
            call.result(20)
        assert caught.value.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
        gate.open.set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_forever_drains_on_a_signal(base_path, monkeypatch, number):
    server = PredictionServer(base_path, model_name="m", poll_seconds=0).start()
    with server.store.use() as model:
        gate = Gate(model, monkeypatch)
    results = []

    def call_then_signal():
        with ScoringClient(server.target, "m") as client:
            caller = threading.Thread(
                target=lambda: results.append(client.score(wire.good_inputs()))
            )
            caller.start()
            assert gate.entered.wait(20)
            os.kill(os.getpid(), number)
            time.sleep(0.1)
            gate.open.set()
            caller.join(20)

    before = signal.getsignal(number)
    thread = threading.Thread(target=call_then_signal)
    thread.start()
    server.serve_forever()
    thread.join(20)
    np.testing.assert_allclose(results[0], wire.good_answer(), rtol=1e-6)
    assert signal.getsignal(number) is before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=1)


def test_serve_forever_in_a_thread_ends_with_stop(base_path):
    server = PredictionServer(base_path, poll_seconds=0).start()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    server.stop()
    thread.join(20)
    assert not thread.is_alive()
