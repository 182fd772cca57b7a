"""A model on any gRPC server of TensorFlow Serving's protocol, and connections to it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from loopctr_tf.errors import UsageError
from loopctr_tf.scoring import ScoringClient, tensors
from loopctr_tf.scoring.client.channel import channel_options, choose_credentials

PREDICT = "PredictionService/Predict"
FIRST_S = 300.0
"""Deadline of a first call, for which the server may have to optimise the graph."""

Answer = tuple[grpc.StatusCode, bytes | str]
"""A status, and the serialized response or the first words of the error."""
Send = Callable[..., Answer]
"""Sends a serialized message, to Predict unless another method is named, and waits for the answer."""


@dataclass(frozen=True)
class Endpoint:
    """A model on a server at ``host:port``, and how to call it; see ScoringClient for ``tls``."""

    target: str
    name: str = "loopctr"
    timeout_s: float = 10.0
    tls: bool | str | Path = False
    metadata: Sequence[tuple[str, str]] = ()

    def client(self) -> ScoringClient:
        """A client of the library."""
        settings = {"timeout_s": FIRST_S, "tls": self.tls, "metadata": self.metadata}
        return ScoringClient(self.target, self.name, **settings)

    @contextmanager
    def connect(self) -> Iterator[Send]:
        """A connection that no other one shares, without retries; UsageError where there is none."""
        options = [*channel_options(0, 2**31 - 1), ("grpc.use_local_subchannel_pool", 1)]
        credentials = choose_credentials(self.tls, None)
        if credentials is None:
            channel = grpc.insecure_channel(self.target, options)
        else:
            channel = grpc.secure_channel(self.target, credentials, options)

        def send(
            message: bytes, method: str = PREDICT, timeout_s: float = self.timeout_s
        ) -> Answer:
            call = channel.unary_unary(f"/tensorflow.serving.{method}")
            try:
                return grpc.StatusCode.OK, call(message, timeout_s, metadata=self.metadata)
            except grpc.RpcError as error:
                return error.code(), " ".join((error.details() or "").split())[:200]

        with channel:
            try:
                grpc.channel_ready_future(channel).result(self.timeout_s)
            except grpc.FutureTimeoutError:
                raise UsageError(f"{self.target} accepts no connection") from None
            yield send

    def request(self, signature: str, arrays: Mapping[str, np.ndarray]) -> bytes:
        """A serialized PredictRequest."""
        spec = {"name": self.name, "signature_name": signature}
        inputs = {alias: tensors.to_proto(array) for alias, array in arrays.items()}
        return PredictRequest(model_spec=spec, inputs=inputs).SerializeToString()
