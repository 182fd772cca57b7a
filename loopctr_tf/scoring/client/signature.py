"""A signature as a client knows it: the names, types and shapes of what goes in and comes out."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from tensorflow.core.protobuf import meta_graph_pb2

from loopctr_tf.scoring import tensors

DEFAULT = "serving_default"


@dataclass(frozen=True)
class TensorInfo:
    """One input or output.

    Attributes:
      dtype: NumPy type; ``object`` stands for strings.
      shape: sizes, None for any size; None as a whole where even the rank is open.
    """

    dtype: np.dtype
    shape: tuple[int | None, ...] | None

    @property
    def rank(self) -> int | None:
        """Number of axes, where it is known."""
        return None if self.shape is None else len(self.shape)

    @property
    def is_string(self) -> bool:
        """Whether its elements are strings."""
        return self.dtype == object

    def __str__(self) -> str:
        kind = "string" if self.is_string else str(self.dtype)
        return kind if self.shape is None else f"{kind} {tensors.shape_text(self.shape)}"


@dataclass(frozen=True)
class Signature:
    """One signature.

    Attributes:
      name: what requests call it.
      inputs, outputs: by alias.
      optional: inputs for which the server has a default.
      candidates: inputs with an axis of candidates behind that of requests, [R, N, ...]: they have
        one axis more here than in ``serving_default``.
    """

    name: str
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]
    optional: frozenset[str] = frozenset()
    candidates: frozenset[str] = frozenset()


def read_signatures(
    definitions: Mapping[str, meta_graph_pb2.SignatureDef],
) -> dict[str, Signature]:
    """The signatures of a model from its SignatureDefs; those of other types are left out."""
    found: dict[str, Signature] = {}
    for name, definition in definitions.items():
        try:
            found[name] = Signature(
                name,
                {alias: _tensor(info) for alias, info in definition.inputs.items()},
                {alias: _tensor(info) for alias, info in definition.outputs.items()},
                frozenset(definition.defaults),
            )
        # such as the operation that initialises the model, which is kept beside the signatures
        except ValueError:
            continue
    rows = found[DEFAULT].inputs if DEFAULT in found else {}
    return {
        name: Signature(
            name,
            signature.inputs,
            signature.outputs,
            signature.optional,
            _candidates(signature.inputs, rows),
        )
        for name, signature in found.items()
    }


def _tensor(info: meta_graph_pb2.TensorInfo) -> TensorInfo:
    dtype = tensors.numpy_dtype(info.dtype)
    if info.tensor_shape.unknown_rank:
        return TensorInfo(dtype, None)
    sizes = (dim.size for dim in info.tensor_shape.dim)
    return TensorInfo(dtype, tuple(None if size == -1 else size for size in sizes))


def _candidates(inputs: Mapping[str, TensorInfo], rows: Mapping[str, TensorInfo]) -> frozenset[str]:
    return frozenset(
        name
        for name, info in inputs.items()
        if name in rows
        and None not in (info.rank, rows[name].rank)
        and info.rank == rows[name].rank + 1
    )
