"""The scoring client for asyncio: its methods are awaited, and otherwise ScoringClient's."""

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import Message
from tensorflow_serving.apis import prediction_service_pb2_grpc

from loopctr_tf.scoring.client.base import Address, BaseClient
from loopctr_tf.scoring.client.calls import Metadata
from loopctr_tf.scoring.client.signature import Signature


class _LoopWire:
    """A channel whose calls and pauses are awaited in one event loop."""

    def __init__(self, address: Address):
        self._address = address
        self._channel: grpc.aio.Channel | None = None
        self.closed = False

    async def call(
        self, method: str, request: Message, timeout_s: float, metadata: Metadata
    ) -> Message:
        # not made before, for a channel belongs to the event loop that it is made in
        if self._channel is None:
            self._channel = self._address.open(grpc.aio)
            self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        return await getattr(self._stub, method)(request, timeout=timeout_s, metadata=metadata)

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        self.closed = True
        if self._channel is not None:
            await self._channel.close()


class AsyncScoringClient(
    BaseClient[
        Awaitable[np.ndarray],
        Awaitable[dict[str, np.ndarray]],
        Awaitable[tuple[np.ndarray, np.ndarray]],
        Awaitable[dict[str, Signature]],
    ]
):
    """Scores features from within one event loop; many calls may be under way at a time::

        async with AsyncScoringClient("localhost:8500", "loopctr") as client:
            scores = await asyncio.gather(*(client.score(features) for features in requests))

    Args are those of :class:`~loopctr_tf.scoring.client.base.BaseClient`, methods and errors those of
    :class:`~loopctr_tf.scoring.client.client.ScoringClient`.
    """

    _connect = _LoopWire

    def _carry_out(self, work: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
        return work

    async def close(self) -> None:
        """Closes the channel; calls under way are cancelled."""
        await self._wire.close()

    async def __aenter__(self) -> "AsyncScoringClient":
        return self

    async def __aexit__(self, *exc_info) -> None:
        await self.close()
