"""The scoring client for asyncio: ScoringClient with methods that are awaited."""

from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import Message

from loopctr_tf.scoring.client.base import BaseClient, Examples, Features, Metadata
from loopctr_tf.scoring.client.signature import Signature
from loopctr_tf.scoring.names import CLASSIFY, REGRESS


class AsyncScoringClient(BaseClient):
    """Scores features from within one event loop; many calls may be in progress at a time::

        async with AsyncScoringClient("localhost:8500", "loopctr") as client:
            scores = await asyncio.gather(*(client.score(features) for features in requests))

    Args are those of :class:`~loopctr_tf.scoring.client.base.BaseClient`, methods and errors those of
    :class:`~loopctr_tf.scoring.client.client.ScoringClient`.
    """

    _channel: grpc.aio.Channel | None = None

    async def score(
        self,
        features: Features,
        signature: str | None = None,
        timeout: float | None = None,
        metadata: Metadata = (),
    ) -> np.ndarray:
        """The output ``probability``, or the signature's only output."""
        return await self._score(features, signature, self._terms(timeout, metadata))

    async def predict(
        self,
        features: Features,
        signature: str | None = None,
        timeout: float | None = None,
        metadata: Metadata = (),
        outputs: Sequence[str] | None = None,
    ) -> dict[str, np.ndarray]:
        """Outputs by name, all or those asked for."""
        return await self._predict(features, signature, self._terms(timeout, metadata), outputs)

    async def classify(
        self,
        examples: Examples,
        signature: str = CLASSIFY,
        timeout: float | None = None,
        metadata: Metadata = (),
    ) -> tuple[np.ndarray, np.ndarray]:
        """Class labels and scores, each [B, C], of tf.Examples."""
        return await self._classify(examples, signature, self._terms(timeout, metadata))

    async def regress(
        self,
        examples: Examples,
        signature: str = REGRESS,
        timeout: float | None = None,
        metadata: Metadata = (),
    ) -> np.ndarray:
        """Values [B] of tf.Examples."""
        return await self._regress(examples, signature, self._terms(timeout, metadata))

    async def signatures(self, timeout: float | None = None) -> dict[str, Signature]:
        """Inputs and outputs of the model, by signature name."""
        return await self._signatures(self._terms(timeout))

    async def _send(
        self, method: str, request: Message, timeout_s: float, metadata: Metadata
    ) -> Any:
        # not earlier, for a channel belongs to the event loop in which it is made
        if self._channel is None:
            self._channel, self._stub = self._open(grpc.aio)
        return await getattr(self._stub, method)(request, timeout=timeout_s, metadata=metadata)

    async def close(self) -> None:
        """Closes the channel; calls in progress are cancelled."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close()

    async def __aenter__(self) -> "AsyncScoringClient":
        return self

    async def __aexit__(self, *exc_info) -> None:
        await self.close()
