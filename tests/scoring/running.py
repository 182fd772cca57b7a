"""A server in a test, and what is asked of it."""

import contextlib
import shutil
import threading

import grpc
import numpy as np
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)

from loopctr_tf.scoring import PredictionServer, tensors
from tests.scoring import wire

State = get_model_status_pb2.ModelVersionStatus.State


@contextlib.contextmanager
def serving(base_path, **options):
    """A server, which polls only when told to, and a stub of its PredictionService."""
    options = {"poll_seconds": 0, **options}
    with (
        PredictionServer(base_path, model_name="m", **options) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        yield server, prediction_service_pb2_grpc.PredictionServiceStub(channel)


def answer(stub, version: int | None = None, label: str | None = None) -> tuple[int, np.ndarray]:
    """The version that answers a good request, and its scores."""
    message = wire.request()
    if version is not None:
        message.model_spec.version.value = version
    if label is not None:
        message.model_spec.version_label = label
    response = stub.Predict(message, timeout=20)
    return response.model_spec.version.value, tensors.to_array(response.outputs["probability"])


def states(server) -> dict[int, tuple[int, int]]:
    """State and error code of each version, as GetModelStatus gives them."""
    with grpc.insecure_channel(server.target) as channel:
        message = get_model_status_pb2.GetModelStatusRequest()
        message.model_spec.name = "m"
        found = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(message)
    return {one.version: (one.state, one.status.error_code) for one in found.model_version_status}


class Gate:
    """Holds back the runs of a model until it is opened."""

    def __init__(self, model, monkeypatch):
        self.entered, self.open = threading.Event(), threading.Event()
        run = model.run

        def wait_and_run(feeds, fetches):
            self.entered.set()
            assert self.open.wait(20)
            return run(feeds, fetches)

        monkeypatch.setattr(model, "run", wait_and_run)


def broken_copy(saved, folder):
    """A version that does not load, for want of its variables."""
    folder.mkdir()
    for name in ("saved_model.pb", "fingerprint.pb"):
        shutil.copy(saved[2] / name, folder / name)
    return folder
