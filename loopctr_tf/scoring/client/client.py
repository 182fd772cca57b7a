"""The scoring client: features in, NumPy scores out, over one gRPC channel."""

import time
from collections.abc import Coroutine
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import Message
from tensorflow_serving.apis import prediction_service_pb2_grpc

from loopctr_tf.scoring.client.base import Address, BaseClient
from loopctr_tf.scoring.client.calls import Metadata
from loopctr_tf.scoring.client.signature import Signature


class _BlockingWire:
    """A channel whose calls and pauses hold up the thread."""

    def __init__(self, address: Address):
        self._channel = address.open(grpc)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self.closed = False

    async def call(
        self, method: str, request: Message, timeout_s: float, metadata: Metadata
    ) -> Message:
        return getattr(self._stub, method)(request, timeout=timeout_s, metadata=metadata)

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def close(self) -> None:
        self.closed = True
        self._channel.close()


class ScoringClient(
    BaseClient[
        np.ndarray, dict[str, np.ndarray], tuple[np.ndarray, np.ndarray], dict[str, Signature]
    ]
):
    """Scores features on a TensorFlow Serving server, or on a PredictionServer. Thread-safe.

    Features are a dict of arrays or lists, or a DataFrame; the rules that turn them into tensors are
    those of :mod:`loopctr_tf.scoring.client.features`::

        with ScoringClient("localhost:8500", "loopctr") as client:
            client.score({"user_id": ["u1"], "history": [["m3", "m1"]], "movie_id": ["m7"]})
            client.score(
                {"user_id": ["u1"], "history": [["m3", "m1"]], "movie_id": [["m7", "m8", "m9"]]},
                signature="rank_loop_0",
            )

    Args are those of :class:`~loopctr_tf.scoring.client.base.BaseClient`.

    Raises:
      UsageError: from a call, for features that do not fit the signature; names the feature.
      ScoringError: from a call, for an error status; carries ``code`` and ``details``.
    """

    _connect = _BlockingWire

    def _carry_out(self, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            work.send(None)
        except StopIteration as end:
            return end.value
        raise RuntimeError("a blocking wire never suspends the work over it")

    def close(self) -> None:
        """Closes the channel; calls under way are cancelled."""
        self._wire.close()

    def __enter__(self) -> "ScoringClient":
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()
