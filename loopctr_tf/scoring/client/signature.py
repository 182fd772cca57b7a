"""A signature as a client knows it: the names, types and shapes of inputs and outputs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from tensorflow.core.protobuf import meta_graph_pb2

from loopctr_tf.scoring import tensors
from loopctr_tf.scoring.names import SERVING_DEFAULT


@dataclass(frozen=True)
class TensorInfo:
    """One input or output.

    Attributes:
      dtype: NumPy type; ``object`` stands for strings.
      shape: sizes, None for any size; None as a whole if the rank is unknown.
      axes: names of the axes, "" for an axis without one; see :mod:`loopctr_tf.scoring.names`.
    """

    dtype: np.dtype
    shape: tuple[int | None, ...] | None
    axes: tuple[str, ...] = ()

    @property
    def rank(self) -> int | None:
        """Number of axes, if it is known."""
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
      candidates: inputs of shape [R, N, ...], N candidates for each of R requests: they have one
        axis more here than in ``serving_default``.
    """

    name: str
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]
    optional: frozenset[str] = frozenset()
    candidates: frozenset[str] = frozenset()

    def fields_by_length(self) -> dict[str, list[str]]:
        """Length inputs, and the inputs whose events each of them counts.

        Empty for an export that does not name its axes.
        """
        fields: dict[str, list[str]] = {}
        for name, info in self.inputs.items():
            length = info.axes[1] if len(info.axes) > 1 else ""
            if length in self.inputs and name not in self.candidates:
                fields.setdefault(length, []).append(name)
        return fields


def read_signatures(
    definitions: Mapping[str, meta_graph_pb2.SignatureDef],
) -> dict[str, Signature]:
    """The signatures of a model from its SignatureDefs, without those of unsupported types."""
    signatures: dict[str, Signature] = {}
    for name, definition in definitions.items():
        try:
            signatures[name] = Signature(
                name,
                {alias: _tensor(info) for alias, info in definition.inputs.items()},
                {alias: _tensor(info) for alias, info in definition.outputs.items()},
                frozenset(definition.defaults),
            )
        # such as the operation that initialises the model, which is listed among the signatures
        except ValueError:
            continue
    default = signatures.get(SERVING_DEFAULT)
    pointwise = default.inputs if default else {}
    return {
        name: replace(signature, candidates=_candidates(signature.inputs, pointwise))
        for name, signature in signatures.items()
    }


def _tensor(info: meta_graph_pb2.TensorInfo) -> TensorInfo:
    dtype = tensors.numpy_dtype(info.dtype)
    if info.tensor_shape.unknown_rank:
        return TensorInfo(dtype, None)
    dims = info.tensor_shape.dim
    sizes = tuple(None if dim.size == -1 else dim.size for dim in dims)
    return TensorInfo(dtype, sizes, tuple(dim.name for dim in dims))


def _candidates(
    inputs: Mapping[str, TensorInfo], pointwise: Mapping[str, TensorInfo]
) -> frozenset[str]:
    return frozenset(
        name
        for name, info in inputs.items()
        if name in pointwise
        and None not in (info.rank, pointwise[name].rank)
        and info.rank == pointwise[name].rank + 1
    )
