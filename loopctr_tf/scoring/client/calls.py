"""What the synchronous and the asynchronous client share: which calls to make, in what order.

They are written once, as coroutines over a :class:`Wire`. That of ``aio.py`` waits in the event loop;
that of ``client.py`` blocks, so that its coroutines end at their first step.
"""

import itertools
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

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
    regression_pb2,
)

from loopctr_tf.errors import UsageError
from loopctr_tf.scoring import tensors
from loopctr_tf.scoring.client import chunks
from loopctr_tf.scoring.client.features import to_arrays
from loopctr_tf.scoring.client.signature import Signature, read_signatures

Metadata = Sequence[tuple[str, str | bytes]]
Features = Mapping[str, Any] | pd.DataFrame
Examples = Iterable[bytes | example_pb2.Example]
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0
_STALE = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)


class ScoringError(RuntimeError):
    """The server, or the way to it, gave an error instead of scores.

    Attributes:
      code: the ``grpc.StatusCode``.
      details: the server's words in full.
    """

    def __init__(self, code: grpc.StatusCode, details: str, where: str, remedy: str = ""):
        first = details.strip().split("\n", 1)[0]
        super().__init__(f"{code.name} from {where}: {first}{remedy}")
        self.code = code
        self.details = details


class Wire(Protocol):
    """The way to a server."""

    closed: bool

    async def call(
        self, method: str, request: Message, timeout_s: float, metadata: Metadata
    ) -> Message:
        """The answer of a method of PredictionService; raises grpc.RpcError."""

    async def pause(self, seconds: float) -> None:
        """Waits before going on."""


@dataclass(frozen=True)
class Terms:
    """What one scoring call has: its time, and metadata beside the client's own."""

    timeout_s: float
    deadline: float  # on the monotonic clock
    metadata: Metadata


@dataclass(frozen=True)
class Policy:
    """How a client calls; see :class:`~loopctr_tf.scoring.client.client.ScoringClient`."""

    target: str
    model_name: str
    version: int | None
    version_label: str | None
    signature_name: str
    timeout_s: float
    max_retries: int
    chunk_size: int
    metadata: Metadata | Callable[[], Metadata]

    def __post_init__(self):
        if not self.model_name:
            raise UsageError("model_name is empty; give the name that the server knows it by")
        if self.version is not None and self.version_label is not None:
            raise UsageError(
                f"version {self.version!r} and version_label {self.version_label!r} are both "
                "given; give one of them"
            )
        if not self.timeout_s > 0:
            raise UsageError(f"timeout_s is {self.timeout_s!r}; give seconds above 0")
        if self.max_retries < 0:
            raise UsageError(f"max_retries is {self.max_retries!r}; give 0 or more")
        if self.chunk_size < 1:
            raise UsageError(f"chunk_size is {self.chunk_size!r}; give 1 or more")


class Caller:
    """Makes the calls of a client, and remembers the model's signatures."""

    def __init__(self, policy: Policy, wire: Wire):
        self._policy = policy
        self._wire = wire
        self._signatures: dict[str, Signature] | None = None
        self._version: int | None = None
        self._random = random.Random()

    def forget(self) -> None:
        """Drops the signatures; the next call asks for them again."""
        self._signatures = None

    def terms(self, timeout_s: float | None, metadata: Metadata = ()) -> Terms:
        """Those of a call that starts now."""
        timeout_s = self._policy.timeout_s if timeout_s is None else timeout_s
        return Terms(timeout_s, time.monotonic() + timeout_s, metadata)

    async def signatures(self, terms: Terms) -> dict[str, Signature]:
        """Returns the model's signatures by name, asking for them when they are not known."""
        if self._signatures is None:
            request = get_model_metadata_pb2.GetModelMetadataRequest(
                model_spec=self._spec(None), metadata_field=["signature_def"]
            )
            response = await self._call("GetModelMetadata", request, terms)
            found = get_model_metadata_pb2.SignatureDefMap()
            response.metadata["signature_def"].Unpack(found)
            self._version = response.model_spec.version.value
            self._signatures = read_signatures(found.signature_def)
        return self._signatures

    async def predict(
        self,
        features: Features,
        signature_name: str | None,
        outputs: Sequence[str] | None,
        terms: Terms,
    ) -> dict[str, np.ndarray]:
        """Returns the outputs by name."""
        signature, arrays = await self._arrays(features, signature_name, terms)
        for name in outputs or ():
            if name not in signature.outputs:
                raise UsageError(
                    f"output {name!r} is not one of signature {signature.name!r}, which are: "
                    f"{', '.join(sorted(signature.outputs))}"
                )
        rows = []
        for row_chunk in chunks.split(signature, arrays, self._policy.chunk_size):
            columns = []
            for chunk in row_chunk:
                request = predict_pb2.PredictRequest(
                    model_spec=self._spec(signature.name), output_filter=outputs or ()
                )
                for name, array in chunk.items():
                    request.inputs[name].CopyFrom(tensors.to_proto(array))
                response = await self._call("Predict", request, terms)
                found = self._outputs(response)
                if len(row_chunk) > 1:
                    chunks.check_candidates(signature, chunk, found)
                columns.append(found)
            rows.append(chunks.join(columns, axis=1))
        return chunks.join(rows, axis=0)

    async def score(
        self, features: Features, signature_name: str | None, terms: Terms
    ) -> np.ndarray:
        """Returns the output ``probability``, or the only one that there is."""
        signature = await self._signature(signature_name, terms)
        names = sorted(signature.outputs)
        if "probability" in names:
            names = ["probability"]
        if len(names) != 1:
            raise UsageError(
                f"signature {signature.name!r} has no output 'probability' but "
                f"{', '.join(names)}; call predict() for all of them"
            )
        # All outputs: for every other set of them a server prepares its graph anew, for seconds.
        found = await self.predict(features, signature.name, None, terms)
        return found[names[0]]

    async def classify(
        self, examples: Examples, signature_name: str, terms: Terms
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the classes [B, C] as strings and their scores [B, C]."""
        request = classification_pb2.ClassificationRequest(model_spec=self._spec(signature_name))
        _add_examples(request, examples)
        response = await self._call("Classify", request, terms)
        rows = [row.classes for row in response.result.classifications]
        labels = np.array([[one.label for one in row] for row in rows], object)
        scores = np.array([[one.score for one in row] for row in rows], np.float32)
        return labels, scores

    async def regress(self, examples: Examples, signature_name: str, terms: Terms) -> np.ndarray:
        """Returns the values [B]."""
        request = regression_pb2.RegressionRequest(model_spec=self._spec(signature_name))
        _add_examples(request, examples)
        response = await self._call("Regress", request, terms)
        return np.array([one.value for one in response.result.regressions], np.float32)

    def _spec(self, signature_name: str | None) -> model_pb2.ModelSpec:
        spec = model_pb2.ModelSpec(name=self._policy.model_name, signature_name=signature_name)
        if self._policy.version is not None:
            spec.version.value = self._policy.version
        elif self._policy.version_label is not None:
            spec.version_label = self._policy.version_label
        return spec

    async def _signature(self, name: str | None, terms: Terms) -> Signature:
        name = name or self._policy.signature_name
        known = self._signatures
        signatures = await self.signatures(terms)
        if name not in signatures and signatures is known:
            self.forget()  # the model may have changed since
            signatures = await self.signatures(terms)
        if name in signatures:
            return signatures[name]
        raise UsageError(
            f"model {self._policy.model_name!r} at {self._policy.target} has no signature {name!r};"
            f" it has: {', '.join(sorted(signatures))}"
        )

    async def _arrays(
        self, features: Features, name: str | None, terms: Terms
    ) -> tuple[Signature, dict[str, np.ndarray]]:
        """Returns the signature and its arrays; before it complains, it asks what the model takes."""
        known = self._signatures
        signature = await self._signature(name, terms)
        try:
            return signature, to_arrays(signature, features)
        except UsageError:
            if known is None or known is not self._signatures:
                raise  # these signatures are new
        self.forget()
        signature = await self._signature(name, terms)
        return signature, to_arrays(signature, features)

    def _outputs(self, response: predict_pb2.PredictResponse) -> dict[str, np.ndarray]:
        if response.model_spec.version.value != self._version:
            self.forget()  # another version answered: its signatures may differ
        return {name: tensors.to_array(proto) for name, proto in response.outputs.items()}

    async def _call(self, method: str, request: Message, terms: Terms) -> Any:
        """Makes one call, again after a pause while the server is unavailable and time is left."""
        if self._wire.closed:
            raise UsageError("this client is closed; make another")
        policy = self._policy
        fixed = policy.metadata() if callable(policy.metadata) else policy.metadata
        where = f"{policy.target} (model {policy.model_name!r}, {method})"
        for attempt in itertools.count():
            remaining = terms.deadline - time.monotonic()
            if remaining <= 0:
                code = grpc.StatusCode.DEADLINE_EXCEEDED
                words = "no time was left for the call"
                raise ScoringError(code, words, where, self._remedy(code, terms))
            try:
                return await self._wire.call(method, request, remaining, (*fixed, *terms.metadata))
            except grpc.RpcError as error:
                code = error.code()
                # between half and the whole of a span that doubles, so that clients drift apart
                span = min(_FIRST_PAUSE_S * 2**attempt, _LONGEST_PAUSE_S)
                pause = span * self._random.uniform(0.5, 1.0)
                if (
                    code is not grpc.StatusCode.UNAVAILABLE
                    or attempt >= policy.max_retries
                    or time.monotonic() + pause >= terms.deadline
                ):
                    if code in _STALE:
                        self.forget()
                    words = error.details() or ""
                    raise ScoringError(code, words, where, self._remedy(code, terms)) from error
            await self._wire.pause(pause)

    def _remedy(self, code: grpc.StatusCode, terms: Terms) -> str:
        """What to look at after a failure that is not of the request itself."""
        if code is grpc.StatusCode.UNAVAILABLE:
            return (
                f"; is the server up, and is {self._policy.target} its gRPC port? "
                "(REST is another one)"
            )
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return (
                f"; the call had {terms.timeout_s:g} s: raise timeout_s "
                "(--timeout on the command line), or send less at a time"
            )
        return ""


def _add_examples(request: Message, examples: Examples) -> None:
    for example in examples:
        if not isinstance(example, bytes):
            request.input.example_list.examples.append(example)
            continue
        try:
            request.input.example_list.examples.add().MergeFromString(example)
        except DecodeError as error:
            place = len(request.input.example_list.examples) - 1
            raise UsageError(f"example {place} is not a serialized tf.Example") from error
