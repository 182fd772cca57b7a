"""Made-up valid requests for a model that is served, from what the server says it takes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import grpc
import numpy as np
from tensorflow_serving.apis import classification_pb2, predict_pb2, regression_pb2

from loopctr_tf.errors import UsageError
from loopctr_tf.features.frame import Column
from loopctr_tf.features.prepared import serialize_examples
from loopctr_tf.features.schema import Schema
from loopctr_tf.scoring import ScoringClient, ScoringError, Signature, TensorInfo, tensors
from loopctr_tf.scoring.tls import channel_credentials

EXAMPLES = {
    "classify": classification_pb2.ClassificationRequest,
    "regress": regression_pb2.RegressionRequest,
}
"""Signatures that take tf.Examples, with the message of their own method."""
FIRST_S = 300.0
"""Deadline of a first call, for which the server may have to optimise the graph."""
SERVICE = "/tensorflow.serving.PredictionService/"
_ENCODE, _CACHED, _TOP_K = "encode_user_loop_", "rank_cached_loop_", "refine_top_k"
_VALUES, _IDS = 3, 5000
"""Values of a multi-valued feature, and numbers that serve as ids, without a schema."""


class Endpoint:
    """A model on a server.

    Args:
      target: ``host:port`` of a gRPC port.
      name: of the model.
      timeout_s: deadline of a call.
      tls: True for TLS with the system's authorities, or a PEM file of authorities.
      metadata: pairs sent with every call.
    """

    def __init__(
        self,
        target: str,
        name: str = "loopctr",
        timeout_s: float = 10.0,
        tls: bool | str | Path = False,
        metadata: Sequence[tuple[str, str]] = (),
    ):
        self.target, self.name, self.timeout_s = target, name, timeout_s
        self._tls, self._metadata = tls, tuple(metadata)

    def client(self) -> ScoringClient:
        """A client of the library."""
        return ScoringClient(
            self.target, self.name, timeout_s=FIRST_S, tls=self._tls, metadata=self._metadata
        )

    def signatures(self) -> dict[str, Signature]:
        """What is served; UsageError where the server does not answer or lacks the model."""
        try:
            with self.client() as client:
                return client.signatures(timeout=self.timeout_s)
        except ScoringError as error:
            unreachable = error.code is grpc.StatusCode.UNAVAILABLE
            raise UsageError(f"{error}{'' if unreachable else '; check --name'}") from error

    def channel(self) -> grpc.Channel:
        """A connection of its own."""
        sizes = (f"grpc.max_{way}_message_length" for way in ("send", "receive"))
        options = [("grpc.use_local_subchannel_pool", 1), *((size, -1) for size in sizes)]
        if self._tls is False:
            return grpc.insecure_channel(self.target, options)
        authorities = None if self._tls is True else self._tls
        return grpc.secure_channel(self.target, channel_credentials(authorities), options)

    def call(self, channel: grpc.Channel, method: str = "Predict") -> Callable[..., bytes]:
        """A call of PredictionService that takes and returns serialized messages."""
        send = channel.unary_unary(SERVICE + method)
        return lambda payload, timeout=self.timeout_s: send(
            payload, timeout=timeout, metadata=self._metadata
        )


class Requests:
    """Makes requests for one endpoint; the same seed gives the same requests.

    Args:
      endpoint: is asked for its signatures.
      schema: of the export; without it ids are whole numbers that most tables do not know, numbers
        lie between 0 and 1, and ``classify`` and ``regress`` cannot be asked.
      seed: of the features.

    Raises:
      UsageError: where the server does not answer or lacks the model.
    """

    def __init__(self, endpoint: Endpoint, schema: Schema | None = None, seed: int = 0):
        self._endpoint, self.schema = endpoint, schema
        self.signatures = endpoint.signatures()
        self._fields = {} if schema is None else {f.name: f for f in schema.all_fields()}
        self._rng = np.random.default_rng(seed)

    def payload(self, name: str, candidates: int, history: int) -> tuple[str, bytes]:
        """The method and the serialized request for a signature.

        Args:
          name: of the signature.
          candidates: of one user in a ranking request; rows of any other request.
          history: events of each sequence.

        Raises:
          UsageError: for a signature that is not served, and for tf.Examples without a schema.
        """
        if name in EXAMPLES:
            request = EXAMPLES[name]()
            for example in self.examples(candidates, history):
                request.input.example_list.examples.add().MergeFromString(example)
            request.model_spec.name = self._endpoint.name
            request.model_spec.signature_name = name
            return name.capitalize(), request.SerializeToString()
        one_user = name == "cascade" or name.startswith(("rank_", _ENCODE))
        arrays = self.features(name, 1 if one_user else candidates, candidates, history)
        if name.startswith(_CACHED):
            encode = _ENCODE + name.removeprefix(_CACHED)
            with self._endpoint.client() as client:
                arrays |= client.predict(self.features(encode, 1, 1, history), signature=encode)
        return "Predict", self.predict(name, arrays).SerializeToString()

    def predict(self, name: str, arrays: Mapping[str, np.ndarray]) -> predict_pb2.PredictRequest:
        """A PredictRequest."""
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = self._endpoint.name, name
        for alias, array in arrays.items():
            request.inputs[alias].CopyFrom(tensors.to_proto(array))
        return request

    def features(self, name: str, rows: int, candidates: int, history: int) -> dict:
        """Arrays for every input of a signature except users' states."""
        if name not in self.signatures:
            served = ", ".join(sorted(self.signatures))
            raise UsageError(f"signature {name!r} is not served; choose {served}")
        signature, arrays = self.signatures[name], {}
        events = self._events(signature)
        for alias, info in sorted(signature.inputs.items()):
            if alias.startswith("state_"):
                continue
            if alias == _TOP_K:
                # All of them: which candidates are best may depend on rounding.
                arrays[alias] = np.full(rows, candidates, info.dtype)
            elif is_length(alias, info):
                arrays[alias] = np.full(rows, history, info.dtype)
            else:
                shape = [rows, *[candidates] * (alias in signature.candidates)]
                shape += [history] * (alias in events)
                field = self._fields.get(alias)
                values = (field and field.max_values) or _VALUES
                shape += [values] * (info.rank - len(shape))
                arrays[alias] = self._values(field, info, shape)
        return arrays

    def _events(self, signature: Signature) -> set[str]:
        """Inputs that hold events; without a schema, those with an axis that could be of events."""
        if self.schema is not None:
            return {f.name for sequence in self.schema.sequences for f in sequence.fields}
        inputs = signature.inputs.items()
        stems = [a.removesuffix("_length") + "_" for a, info in inputs if is_length(a, info)]
        wide = {a for a, info in inputs if info.rank > 1 and a not in signature.candidates}
        named = [{alias for alias in wide if f"{alias}_".startswith(stem)} for stem in stems]
        return set().union(*named) if all(named) else wide

    def _values(self, field, info: TensorInfo, shape: Sequence[int]) -> np.ndarray:
        if info.dtype.kind == "f":
            if field is None:
                return self._rng.random(shape).astype(info.dtype)
            values = self._rng.normal(field.mean, field.std, shape)
            values = np.expm1(np.abs(values)) if field.transform == "log1p" else values
            return values.astype(info.dtype)
        known = () if field is None else self.schema.table(field.table).vocabulary or ()
        ids = list(known) or list(range(1, _IDS + 1))
        pool = np.array([str(i) for i in ids] if info.is_string else ids, info.dtype)
        return pool[self._rng.integers(0, len(pool), shape)]

    def examples(self, rows: int, history: int) -> list[bytes]:
        """Serialized tf.Examples."""
        if self.schema is None:
            raise UsageError(
                "classify and regress take tf.Examples; give the export's assets/schema.yaml with "
                "--schema"
            )
        drawn = self.features("serving_default", rows, 1, history)
        columns = {}
        for field in self.schema.all_fields():
            array = drawn[field.name]
            width = int(np.prod(array.shape[1:]))
            splits = np.arange(rows + 1) * width if array.ndim > 1 else None
            columns[field.name] = Column(array.ravel(), splits)
        return list(serialize_examples(columns, rows))


def is_length(alias: str, info: TensorInfo) -> bool:
    """Whether an input is the number of events of a sequence."""
    return alias.endswith("_length") and info.rank == 1 and info.dtype.kind in "iu"


def status_of(call: Callable[..., bytes], payload: bytes, *timeout: float):
    """The status of a call, with the response's bytes or the first words of the details."""
    try:
        return grpc.StatusCode.OK, call(payload, *timeout)
    except grpc.RpcError as error:
        return error.code(), " ".join((error.details() or "").split())[:200]
