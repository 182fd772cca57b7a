"""Made-up valid requests for a model that is served, from what the server says it takes."""

from collections.abc import Sequence

import grpc
import numpy as np

from loopctr_tf.bench.endpoint import Endpoint
from loopctr_tf.errors import UsageError
from loopctr_tf.features.frame import Column
from loopctr_tf.features.inputs import BATCH, CANDIDATES, VALUES
from loopctr_tf.features.prepared import serialize_examples
from loopctr_tf.features.schema import Schema
from loopctr_tf.scoring import ScoringError, Signature, TensorInfo, names

EXAMPLES, TOP_K = "inputs", "refine_top_k"
"""Inputs that are not features: the tf.Examples of classify and regress, and a size of cascade."""
_VALUES, _IDS = 3, 5000
"""Values of a multi-valued feature, and numbers that serve as ids, without a schema."""


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
            unreachable = error.code is grpc.StatusCode.UNAVAILABLE
            raise UsageError(f"{error}{'' if unreachable else '; check --name'}") from error

    def predict(self, name: str, candidates: int, history: int, rows: int | None = None) -> bytes:
        """A serialized PredictRequest.

        ``rows`` are the users of a ranking request, one by default, and else as many as ``candidates``;
        ``history`` is the events of each sequence. UsageError for a signature that is not served.
        """
        signature = self._signature(name)
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
        signature, arrays = self._signature(name), {}
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

    def _signature(self, name: str) -> Signature:
        if name not in self.signatures:
            served = ", ".join(sorted(self.signatures))
            raise UsageError(f"signature {name!r} is not served; choose {served}")
        return self.signatures[name]

    def _values(self, field, info: TensorInfo, shape: Sequence[int]) -> np.ndarray:
        if info.dtype.kind == "f" and field is None:
            return self._rng.random(shape).astype(info.dtype)
        if info.dtype.kind == "f":
            values = self._rng.normal(field.mean, field.std, shape)
            return field.inverse(values).astype(info.dtype)
        known = None if field is None else self.schema.table(field.table).vocabulary
        ids = known or range(1, _IDS + 1)
        pool = np.array([str(i) for i in ids] if info.is_string else ids, info.dtype)
        return pool[self._rng.integers(0, len(pool), shape)]

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
        return list(serialize_examples(columns, rows))
