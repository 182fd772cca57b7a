"""Random features for any signature of a served export, valid and the same for the same seed.

What a signature takes is read from the server; the export's schema, where it is at hand, adds the
known ids, the range of each number and how many values a multi-valued feature has.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from loopctr_tf.errors import UsageError
from loopctr_tf.features.frame import Column
from loopctr_tf.features.prepared import serialize_examples
from loopctr_tf.features.schema import Feature, Schema
from loopctr_tf.scoring import Signature, TensorInfo

EXAMPLE_SIGNATURES = ("classify", "regress")
ENCODE, RANK_CACHED = "encode_user_loop_", "rank_cached_loop_"
_LENGTH, _STATE, _TOP_K = "_length", "state_", "refine_top_k"
_VALUES = 3
"""Values of a multi-valued feature where no schema tells how many it has."""
_IDS = 5000
"""Ids are "1" to "5000" where no schema lists them."""


class Sampler:
    """Draws features for the signatures of one model.

    Args:
      signatures: by name, as :meth:`loopctr_tf.ScoringClient.signatures` gives them.
      schema: of the export (``assets/schema.yaml``); without it ids are whole numbers, numbers lie
        between 0 and 1, and ``classify`` and ``regress`` cannot be drawn for.
      seed: of the draws.
    """

    def __init__(
        self, signatures: Mapping[str, Signature], schema: Schema | None = None, seed: int = 0
    ):
        self._signatures = signatures
        self._schema = schema
        self._fields = {} if schema is None else {f.name: f for f in schema.all_fields()}
        self._rng = np.random.default_rng(seed)

    def signature(self, name: str) -> Signature:
        """The signature of that name.

        Raises:
          UsageError: when the model has none.
        """
        if name not in self._signatures:
            raise UsageError(
                f"signature {name!r} is not served; choose {', '.join(sorted(self._signatures))}"
            )
        return self._signatures[name]

    def features(
        self, name: str, rows: int, candidates: int, history: int, mixed: bool = False
    ) -> dict[str, np.ndarray]:
        """Inputs of a signature, but for those of a user's state; strings are objects of str.

        Args:
          name: of the signature.
          rows: B of pointwise signatures, R of ranking ones.
          candidates: N of ranking signatures.
          history: events T of every sequence.
          mixed: histories of any length from 0 to T; otherwise all have T events.

        Raises:
          UsageError: for a signature that is not served, or takes tf.Examples.
        """
        signature = self.signature(name)
        if set(signature.inputs) == {"inputs"}:
            raise UsageError(f"signature {name!r} takes tf.Examples; draw them with examples()")
        sequences = self._sequences(signature)
        drawn = {}
        for alias, info in sorted(signature.inputs.items()):
            if alias.startswith(_STATE):
                continue
            if alias == _TOP_K:
                drawn[alias] = np.full(rows, max(1, candidates // 10), info.dtype)
            elif _is_length(alias, info):
                least = 0 if mixed else history
                drawn[alias] = self._rng.integers(least, history + 1, rows).astype(info.dtype)
            else:
                sizes = [rows]
                if alias in signature.candidates:
                    sizes.append(candidates)
                if alias in sequences:
                    sizes.append(history)
                sizes += [self._values(alias)] * (info.rank - len(sizes))
                drawn[alias] = self._draw(alias, info, tuple(sizes))
        return drawn

    def examples(self, rows: int, history: int) -> list[bytes]:
        """Serialized tf.Examples with histories of 0 to ``history`` events.

        Raises:
          UsageError: without a schema, which alone tells how wide an event is.
        """
        if self._schema is None:
            raise UsageError(
                f"signatures {' and '.join(EXAMPLE_SIGNATURES)} take tf.Examples; give the "
                "export's assets/schema.yaml with --schema"
            )
        drawn = self.features("serving_default", rows, 1, history, mixed=True)
        lengths = {
            field.name: drawn[sequence.length_name]
            for sequence in self._schema.sequences
            for field in sequence.fields
        }
        columns = {}
        for field in self._schema.all_fields():
            array = drawn[field.name]
            splits = None
            if array.ndim > 1:
                kept = lengths.get(field.name, np.full(rows, array.shape[1]))
                array = array[np.arange(array.shape[1]) < kept[:, None]]
                width = int(np.prod(array.shape[1:]))
                splits = np.concatenate([[0], np.cumsum(kept) * width])
            columns[field.name] = Column(array.ravel(), splits)
        return list(serialize_examples(columns, rows))

    def _sequences(self, signature: Signature) -> set[str]:
        """Inputs that hold events."""
        if self._schema is not None:
            return {f.name for sequence in self._schema.sequences for f in sequence.fields}
        lengths = [a for a, info in signature.inputs.items() if _is_length(a, info)]
        wide = {
            alias
            for alias, info in signature.inputs.items()
            if info.rank > 1 and alias not in signature.candidates
        }
        # "history_length" counts the events of "history" and of "history_movie".
        stems = {length: length[: -len(_LENGTH)] + "_" for length in lengths}
        named = {stem: {a for a in wide if f"{a}_".startswith(stem)} for stem in stems.values()}
        # Where a name tells nothing, all are as wide as a history: that is valid, if not small.
        return wide if not all(named.values()) else set().union(*named.values())

    def _values(self, alias: str) -> int:
        field = self._fields.get(alias)
        return _VALUES if field is None or field.max_values is None else field.max_values

    def _draw(self, alias: str, info: TensorInfo, shape: tuple[int, ...]) -> np.ndarray:
        field = self._fields.get(alias)
        if info.dtype.kind == "f":
            return self._numbers(field, shape).astype(info.dtype)
        pool = self._ids(field, info)
        return pool[self._rng.integers(0, len(pool), shape)]

    def _numbers(self, field: Feature | None, shape: tuple[int, ...]) -> np.ndarray:
        if field is None:
            return self._rng.random(shape)
        values = self._rng.normal(field.mean, field.std, shape)
        return np.expm1(np.abs(values)) if field.transform == "log1p" else values

    def _ids(self, field: Feature | None, info: TensorInfo) -> np.ndarray:
        """Known ids and a few unknown ones, or whole numbers where none are known."""
        known: list[Any] = []
        if field is not None:
            known = list(self._schema.table(field.table).vocabulary or ())
        spare = range(1, (max(2, len(known) // 20) if known else _IDS) + 1)
        if info.is_string:
            return np.array([*known, *(str(n) for n in spare)], object)
        return np.array([*known, *spare], info.dtype)


def _is_length(alias: str, info: TensorInfo) -> bool:
    return alias.endswith(_LENGTH) and info.rank == 1 and info.dtype.kind in "iu"
