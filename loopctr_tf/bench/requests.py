"""A model on any gRPC server of TensorFlow Serving's protocol, and made-up valid requests for it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import grpc
import numpy as np
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from loopctr_tf.errors import UsageError
from loopctr_tf.features.frame import Column
from loopctr_tf.features.inputs import BATCH, CANDIDATES, VALUES
from loopctr_tf.features.prepared import serialize_examples
from loopctr_tf.features.schema import Schema
from loopctr_tf.scoring import ScoringClient, ScoringError, TensorInfo, names, tensors
from loopctr_tf.scoring.client.channel import channel_options, choose_credentials, open_channel

EXAMPLES, TOP_K = "inputs", "refine_top_k"
"""Inputs that are not features: the tf.Examples of classify and regress, and a size of cascade."""
_VALUES, _IDS = 3, 5000
"""Values of a multi-valued feature, and numbers that serve as ids, without a schema."""
FIRST_S = 300.0
"""Deadline of a first call, for which the server may have to optimise the graph."""


class Case(NamedTuple):
    """A serialized request to a method of the server, and the status of the right answer."""

    name: str
    message: bytes
    status: str = "OK"
    method: str = "PredictionService/Predict"


Answer = tuple[str, bytes | str]
"""The name of a status, and the serialized response or the first words of the error."""
Send = Callable[..., Answer]
"""Sends a case and waits for the answer, for ``timeout_s`` if that is given."""


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
        """A connection that no other one shares, without retries."""
        options = [*channel_options(0, 2**31 - 1), ("grpc.use_local_subchannel_pool", 1)]

        def send(case: Case, timeout_s: float = self.timeout_s) -> Answer:
            call = channel.unary_unary(f"/tensorflow.serving.{case.method}")
            try:
                return "OK", call(case.message, timeout_s, metadata=self.metadata)
            except grpc.RpcError as error:
                return error.code().name, " ".join((error.details() or "").split())[:200]

        with open_channel(
            grpc, self.target, options, choose_credentials(self.tls, None)
        ) as channel:
            grpc.channel_ready_future(channel).result(self.timeout_s)
            yield send

    def request(self, signature: str, arrays: Mapping[str, np.ndarray]) -> Case:
        """A valid request to Predict, named after its signature."""
        spec = {"name": self.name, "signature_name": signature}
        inputs = {alias: tensors.to_proto(array) for alias, array in arrays.items()}
        return Case(signature, PredictRequest(model_spec=spec, inputs=inputs).SerializeToString())


class Requests:
    """Makes requests for one endpoint; the same seed gives the same requests.

    What an input is follows from the names of its axes, which every export of this library has.
    Without the export's ``schema`` ids are whole numbers that most tables do not know, numbers lie
    between 0 and 1, and ``classify`` and ``regress`` cannot be requested. UsageError when the server
    does not answer or lacks the model.
    """

    def __init__(self, endpoint: Endpoint, schema: Schema | None = None, seed: int = 0):
        self._endpoint, self.schema = endpoint, schema
        self._fields = {} if schema is None else {f.name: f for f in schema.all_fields()}
        self._rng = np.random.default_rng(seed)
        try:
            with endpoint.client() as client:
                self.signatures = client.signatures(timeout=endpoint.timeout_s)
        except ScoringError as error:
            raise UsageError(f"{error}; check --name and --target") from error

    def predict(self, name: str, candidates: int, history: int, rows: int | None = None) -> Case:
        """A request of the signature ``name``; UsageError when that is not served.

        ``rows`` are the users of a ranking request, one by default, and else as many as ``candidates``;
        ``history`` is the events of each sequence.
        """
        if name not in self.signatures:
            served = ", ".join(sorted(self.signatures))
            raise UsageError(f"signature {name!r} is not served; choose {served}")
        signature = self.signatures[name]
        if rows is None:
            one_user = signature.candidates or names.STATE_VERSION in signature.outputs
            rows = 1 if one_user else candidates
        arrays = self.features(name, rows, candidates, history)
        if names.STATE_VERSION in signature.inputs:
            encode = names.ENCODE_USER + name.removeprefix(names.RANK_CACHED)
            with self._endpoint.client() as client:
                arrays |= client.predict(self.features(encode, 1, 1, history), signature=encode)
        return self._endpoint.request(name, arrays)

    def features(
        self, name: str, rows: int, candidates: int, history: int
    ) -> dict[str, np.ndarray]:
        """Arrays for every input of a signature except users' states, whose axes have no names."""
        signature, arrays = self.signatures[name], {}
        lengths = dict.fromkeys(signature.fields_by_length(), history)
        # All candidates of a cascade, as rounding may decide which are best.
        numbers = {**lengths, TOP_K: candidates}
        sizes = {**lengths, BATCH: rows, CANDIDATES: candidates}
        for alias, info in sorted(signature.inputs.items()):
            if alias == EXAMPLES:
                arrays[alias] = np.array(self._examples(rows, history), object)
            elif alias in numbers:
                arrays[alias] = np.full(rows, numbers[alias], info.dtype)
            elif any(info.axes):
                field = self._fields.get(alias)
                sizes[VALUES] = (field and field.max_values) or _VALUES
                arrays[alias] = self._values(field, info, [sizes[axis] for axis in info.axes])
        return arrays

    def _values(self, field, info: TensorInfo, shape: Sequence[int]) -> np.ndarray:
        if info.dtype.kind == "f":
            if field is None:
                return self._rng.random(shape).astype(info.dtype)
            values = self._rng.normal(field.mean, field.std, shape)
            return field.inverse(values).astype(info.dtype)
        known = None if field is None else self.schema.table(field.table).vocabulary
        ids = known or range(1, _IDS + 1)
        pool = np.array([str(i) for i in ids] if info.is_string else ids, info.dtype)
        return self._rng.choice(pool, shape)

    def _examples(self, rows: int, history: int) -> list[bytes]:
        if self.schema is None:
            needed = "give the export's assets/schema.yaml with --schema"
            raise UsageError(f"classify and regress take tf.Examples; {needed}")
        drawn = self.features(names.SERVING_DEFAULT, rows, 1, history)
        columns = {}
        for name in self._fields:
            width = int(np.prod(drawn[name].shape[1:]))
            splits = np.arange(rows + 1) * width if drawn[name].ndim > 1 else None
            columns[name] = Column(drawn[name].ravel(), splits)
            each = self.schema.inputs[name]
            if each.counts_name:
                _, events, values = drawn[name].shape
                counts = np.full(rows * events, values, np.int64)
                columns[each.counts_name] = Column(counts, np.arange(rows + 1) * events)
        return list(serialize_examples(columns, rows))
