"""The scoring clients: features in, NumPy scores out; one that blocks, one for asyncio."""

import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

import grpc
from google.protobuf.message import Message

from loopctr_tf.scoring.client.base import BaseClient, Metadata

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class AsyncScoringClient(BaseClient):
    """Scores features from within one event loop; many calls may be in progress at a time::

        async with AsyncScoringClient("localhost:8500", "loopctr") as client:
            scores = await asyncio.gather(*(client.score(features) for features in requests))

    Args are those of :class:`~loopctr_tf.scoring.client.base.BaseClient`, errors those of
    :class:`ScoringClient`.
    """

    _channel: grpc.aio.Channel | None = None

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


def _blocking(
    method: Callable[Concatenate[Any, _Arguments], Coroutine[Any, Any, _Result]],
) -> Callable[Concatenate[Any, _Arguments], _Result]:
    """A method of BaseClient that returns its result, over a ``_send`` that never suspends."""

    @functools.wraps(method)
    def call(self, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        try:
            method(self, *args, **kwargs).send(None)
        except StopIteration as end:
            return end.value
        raise RuntimeError("a call that blocks never suspends its coroutine")

    return call


class ScoringClient(BaseClient):
    """Scores features on a TensorFlow Serving server, or on a PredictionServer. Thread-safe.

    Features are a dict of arrays or lists, or a DataFrame;
    :mod:`loopctr_tf.scoring.client.features` has the rules that turn them into tensors::

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

    score = _blocking(BaseClient.score)
    predict = _blocking(BaseClient.predict)
    classify = _blocking(BaseClient.classify)
    regress = _blocking(BaseClient.regress)
    signatures = _blocking(BaseClient.signatures)

    def _connect(self) -> None:
        self._channel, self._stub = self._open(grpc)

    async def _send(
        self, method: str, request: Message, timeout_s: float, metadata: Metadata
    ) -> Any:
        return getattr(self._stub, method)(request, timeout=timeout_s, metadata=metadata)

    def close(self) -> None:
        """Closes the channel; calls in progress are cancelled."""
        self._closed = True
        self._channel.close()

    def __enter__(self) -> "ScoringClient":
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()
