"""What both clients share: their arguments, and which calls they make in what order.

The calls are written once, as coroutines over :meth:`BaseClient._send`. That of AsyncScoringClient
waits in the event loop; that of ScoringClient blocks, so that its coroutines end at their first step.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pandas as pd
from google.protobuf.message import DecodeError, Message
from tensorflow.core.example import example_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    model_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from loopctr_tf.errors import UsageError
from loopctr_tf.scoring import tensors
from loopctr_tf.scoring.client import chunks
from loopctr_tf.scoring.client.channel import (
    ScoringError,
    channel_options,
    choose_credentials,
    open_channel,
)
from loopctr_tf.scoring.client.features import to_arrays
from loopctr_tf.scoring.client.signature import Signature, read_signatures
from loopctr_tf.scoring.names import CLASSIFY, PROBABILITY, REGRESS, SERVING_DEFAULT

Metadata = Sequence[tuple[str, str | bytes]]
Features = Mapping[str, Any] | pd.DataFrame
Examples = Iterable[bytes | example_pb2.Example]
# answers to a request made for a signature that the model no longer has
_STALE = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)


@dataclass(frozen=True)
class Terms:
    """The time limit of one scoring call, and the metadata sent beside the client's own."""

    timeout_s: float
    deadline: float  # on the monotonic clock
    metadata: Metadata


class BaseClient:
    """A client of one model on one server; use ScoringClient or AsyncScoringClient.

    Args:
      target: ``host:port`` of a TensorFlow Serving gRPC port or a PredictionServer.
      model_name: the model's name on the server.
      version: insist on one version; None takes the newest that is served.
      version_label: ask for the version that has this label on the server, such as "stable".
      signature_name: the signature of calls that name none.
      timeout_s: seconds for a call, including all its chunks and retries.
      max_retries: how often gRPC retries a call while the server is unavailable (status UNAVAILABLE,
        and no other), after pauses that grow from 50 ms to 2 s; gRPC makes at most 4 retries.
      chunk_size: most rows, or requests times candidates, sent at a time; larger requests are split
        and their scores joined. Only signatures named ``rank...`` are split between candidates; all
        others are split between rows or requests.
      tls: True for TLS with the system's authorities, or a PEM file of authorities.
      credentials: gRPC channel credentials, for everything else (client certificates, call tokens).
      metadata: pairs sent with every call, or a function that returns them for each call, such as
        ``lambda: [("authorization", f"Bearer {token()}")]``. Names are lower case.
      max_message_bytes: largest request and response.

    Raises:
      UsageError: for an invalid argument.
    """

    def __init__(
        self,
        target: str,
        model_name: str = "loopctr",
        *,
        version: int | None = None,
        version_label: str | None = None,
        signature_name: str = SERVING_DEFAULT,
        timeout_s: float = 10.0,
        max_retries: int = 4,
        chunk_size: int = 4096,
        tls: bool | str | Path = False,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Metadata | Callable[[], Metadata] = (),
        max_message_bytes: int = 1 << 30,
    ):
        if not target:
            raise UsageError("target is empty; give host:port of the server's gRPC port")
        if not model_name:
            raise UsageError("model_name is empty; give the model's name on the server")
        if version is not None and version_label is not None:
            raise UsageError(
                f"version {version!r} and version_label {version_label!r} are both given; give one "
                "of them"
            )
        if not timeout_s > 0:
            raise UsageError(f"timeout_s is {timeout_s!r}; give seconds above 0")
        for name, value, least in (("max_retries", max_retries, 0), ("chunk_size", chunk_size, 1)):
            if value < least:
                raise UsageError(f"{name} is {value!r}; give {least} or more")
        self.target = target
        self._model_name = model_name
        self._version = version
        self._version_label = version_label
        self._signature_name = signature_name
        self._timeout_s = timeout_s
        self._chunk_size = chunk_size
        self._metadata = metadata
        self._credentials = choose_credentials(tls, credentials)
        self._options = channel_options(max_retries, max_message_bytes)
        self._closed = False
        self._known: dict[str, Signature] | None = None  # by name
        self._known_version: int | None = None  # whose signatures they are
        self._connect()

    def _connect(self) -> None:
        """Opens the channel of a client that does so at once."""

    def _open(self, module) -> tuple[Any, prediction_service_pb2_grpc.PredictionServiceStub]:
        """A channel of ``grpc`` or ``grpc.aio``, and a stub on it."""
        channel = open_channel(module, self.target, self._options, self._credentials)
        return channel, prediction_service_pb2_grpc.PredictionServiceStub(channel)

    async def _send(
        self, method: str, request: Message, timeout_s: float, metadata: Metadata
    ) -> Any:
        """The answer of a method of PredictionService; raises grpc.RpcError."""
        raise NotImplementedError

    def _terms(self, timeout_s: float | None, metadata: Metadata = ()) -> Terms:
        """The terms of a call that starts now."""
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        return Terms(timeout_s, time.monotonic() + timeout_s, metadata)

    async def score(
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
        terms = self._terms(timeout, metadata)
        found = await self._signature(signature, terms)
        names = [PROBABILITY] if PROBABILITY in found.outputs else sorted(found.outputs)
        if len(names) != 1:
            raise UsageError(
                f"signature {found.name!r} has no output {PROBABILITY!r} but "
                f"{', '.join(names)}; call predict() for all of them"
            )
        # All outputs: for every other set of them a server prepares its graph anew, for seconds.
        return (await self._predict(features, found.name, terms, None))[names[0]]

    async def predict(
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
        return await self._predict(features, signature, self._terms(timeout, metadata), outputs)

    async def classify(
        self,
        examples: Examples,
        signature: str = CLASSIFY,
        timeout: float | None = None,
        metadata: Metadata = (),
    ) -> tuple[np.ndarray, np.ndarray]:
        """Class labels (objects of str) and scores (float32), each [B, C], of tf.Examples."""
        request = classification_pb2.ClassificationRequest(model_spec=self._spec(signature))
        _add_examples(request, examples)
        response = await self._call("Classify", request, self._terms(timeout, metadata))
        rows = [row.classes for row in response.result.classifications]
        labels = np.array([[one.label for one in row] for row in rows], object)
        return labels, np.array([[one.score for one in row] for row in rows], np.float32)

    async def regress(
        self,
        examples: Examples,
        signature: str = REGRESS,
        timeout: float | None = None,
        metadata: Metadata = (),
    ) -> np.ndarray:
        """Values float32 [B] of tf.Examples, given as messages or serialized."""
        request = regression_pb2.RegressionRequest(model_spec=self._spec(signature))
        _add_examples(request, examples)
        response = await self._call("Regress", request, self._terms(timeout, metadata))
        return np.array([one.value for one in response.result.regressions], np.float32)

    async def signatures(self, timeout: float | None = None) -> dict[str, Signature]:
        """Inputs and outputs of the model, by signature name."""
        return await self._signatures(self._terms(timeout))

    async def _signatures(self, terms: Terms) -> dict[str, Signature]:
        """The model's signatures by name; asks the server if they are not known."""
        if self._known is None:
            request = get_model_metadata_pb2.GetModelMetadataRequest(
                model_spec=self._spec(None), metadata_field=["signature_def"]
            )
            response = await self._call("GetModelMetadata", request, terms)
            definitions = get_model_metadata_pb2.SignatureDefMap()
            response.metadata["signature_def"].Unpack(definitions)
            self._known_version = response.model_spec.version.value
            self._known = read_signatures(definitions.signature_def)
        return self._known

    async def _predict(
        self,
        features: Features,
        signature_name: str | None,
        terms: Terms,
        outputs: Sequence[str] | None,
    ) -> dict[str, np.ndarray]:
        signature, arrays = await self._arrays(features, signature_name, terms)
        for name in outputs or ():
            if name not in signature.outputs:
                raise UsageError(
                    f"output {name!r} is not one of signature {signature.name!r}, which are: "
                    f"{', '.join(sorted(signature.outputs))}"
                )
        rows = []
        for row_chunk in chunks.split(signature, arrays, self._chunk_size):
            columns = []
            for chunk in row_chunk:
                request = predict_pb2.PredictRequest(
                    model_spec=self._spec(signature.name), output_filter=outputs or ()
                )
                for name, array in chunk.items():
                    request.inputs[name].CopyFrom(tensors.to_proto(array))
                response = await self._call("Predict", request, terms)
                if response.model_spec.version.value != self._known_version:
                    self._known = None  # another version answered: its signatures may differ
                answer = {name: tensors.to_array(proto) for name, proto in response.outputs.items()}
                if len(row_chunk) > 1:
                    chunks.check_candidates(signature, chunk, answer)
                columns.append(answer)
            rows.append(chunks.join(columns, axis=1))
        return chunks.join(rows, axis=0)

    def _spec(self, signature_name: str | None) -> model_pb2.ModelSpec:
        spec = model_pb2.ModelSpec(name=self._model_name, signature_name=signature_name)
        if self._version is not None:
            spec.version.value = self._version
        elif self._version_label is not None:
            spec.version_label = self._version_label
        return spec

    async def _signature(self, name: str | None, terms: Terms) -> Signature:
        name = name or self._signature_name
        known = self._known
        signatures = await self._signatures(terms)
        if name not in signatures and signatures is known:
            self._known = None  # the model may have changed since
            signatures = await self._signatures(terms)
        if name in signatures:
            return signatures[name]
        raise UsageError(
            f"model {self._model_name!r} at {self.target} has no signature {name!r}; it has: "
            f"{', '.join(sorted(signatures))}"
        )

    async def _arrays(
        self, features: Features, name: str | None, terms: Terms
    ) -> tuple[Signature, dict[str, np.ndarray]]:
        """The signature and its arrays; asks for new signatures before it refuses the features."""
        known = self._known
        signature = await self._signature(name, terms)
        try:
            return signature, to_arrays(signature, features)
        except UsageError:
            if known is None or known is not self._known:
                raise  # these signatures are new
        self._known = None
        signature = await self._signature(name, terms)
        return signature, to_arrays(signature, features)

    async def _call(self, method: str, request: Message, terms: Terms) -> Any:
        if self._closed:
            raise UsageError("this client is closed; make another")
        remaining = terms.deadline - time.monotonic()
        if remaining <= 0:
            raise self._error(
                grpc.StatusCode.DEADLINE_EXCEEDED, "no time was left for the call", method, terms
            )
        fixed = self._metadata() if callable(self._metadata) else self._metadata
        try:
            return await self._send(method, request, remaining, (*fixed, *terms.metadata))
        except grpc.RpcError as error:
            if error.code() in _STALE:
                self._known = None
            raise self._error(error.code(), error.details() or "", method, terms) from error

    def _error(
        self, code: grpc.StatusCode, details: str, method: str, terms: Terms
    ) -> ScoringError:
        where = f"{self.target} (model {self._model_name!r}, {method})"
        remedies = {
            grpc.StatusCode.UNAVAILABLE: (
                f"; is the server up, and is {self.target} its gRPC port? (REST is another one)"
            ),
            grpc.StatusCode.DEADLINE_EXCEEDED: (
                f"; the call had {terms.timeout_s:g} s: raise timeout_s (--timeout on the command "
                "line), or send less at a time"
            ),
        }
        return ScoringError(code, details, where, remedies.get(code, ""))


def _add_examples(request: Message, examples: Examples) -> None:
    for position, example in enumerate(examples):
        if not isinstance(example, bytes):
            request.input.example_list.examples.append(example)
            continue
        try:
            request.input.example_list.examples.add().MergeFromString(example)
        except DecodeError as error:
            raise UsageError(f"example {position} is not a serialized tf.Example") from error
