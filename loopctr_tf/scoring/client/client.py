"""The scoring client: features in, NumPy scores out, over one gRPC channel."""

from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import grpc
import numpy as np
from google.protobuf.message import Message

from loopctr_tf.scoring.client.base import BaseClient, Examples, Features, Metadata
from loopctr_tf.scoring.client.signature import Signature
from loopctr_tf.scoring.names import CLASSIFY, REGRESS

_Result = TypeVar("_Result")


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

    def _connect(self) -> None:
        self._channel, self._stub = self._open(grpc)

    def score(
        self,
        features: Features,
        signature: str | None = None,
        timeout: float | None = None,
        metadata: Metadata = (),
    ) -> np.ndarray:
        """The output ``probability``, or the signature's only output.

        Args:
          features: values for every input of the signature.
          signature: its name; None takes the client's ``signature_name``.
          timeout: seconds for this call; None takes the client's ``timeout_s``.
          metadata: pairs sent with this call beside the client's own.

        Returns:
          float32 [B] for pointwise signatures, [R, N] for ``rank_...``, [B, depths] for
          ``all_depths``.
        """
        return _finish(self._score(features, signature, self._terms(timeout, metadata)))

    def predict(
        self,
        features: Features,
        signature: str | None = None,
        timeout: float | None = None,
        metadata: Metadata = (),
        outputs: Sequence[str] | None = None,
    ) -> dict[str, np.ndarray]:
        """Outputs by name, all or those asked for; strings are objects of bytes.

        Args are those of :meth:`score`.
        """
        terms = self._terms(timeout, metadata)
        return _finish(self._predict(features, signature, terms, outputs))

    def classify(
        self,
        examples: Examples,
        signature: str = CLASSIFY,
        timeout: float | None = None,
        metadata: Metadata = (),
    ) -> tuple[np.ndarray, np.ndarray]:
        """Class labels (objects of str) and scores (float32), each [B, C], of tf.Examples."""
        return _finish(self._classify(examples, signature, self._terms(timeout, metadata)))

    def regress(
        self,
        examples: Examples,
        signature: str = REGRESS,
        timeout: float | None = None,
        metadata: Metadata = (),
    ) -> np.ndarray:
        """Values float32 [B] of tf.Examples, given as messages or serialized."""
        return _finish(self._regress(examples, signature, self._terms(timeout, metadata)))

    def signatures(self, timeout: float | None = None) -> dict[str, Signature]:
        """Inputs and outputs of the model, by signature name."""
        return _finish(self._signatures(self._terms(timeout)))

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


def _finish(work: Coroutine[Any, Any, _Result]) -> _Result:
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise RuntimeError("a call that blocks never suspends its coroutine")
