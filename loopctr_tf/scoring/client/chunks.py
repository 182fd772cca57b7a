"""Splits large requests into parts of bounded size, and joins their answers."""

from collections.abc import Iterable, Mapping

import numpy as np

from loopctr_tf.errors import UsageError
from loopctr_tf.scoring.client.signature import Signature
from loopctr_tf.scoring.names import INDEPENDENT


def split(
    signature: Signature, arrays: Mapping[str, np.ndarray], size: int
) -> Iterable[list[Mapping[str, np.ndarray]]]:
    """Parts of a request with at most ``size`` rows times candidates: by rows, then by candidates.

    Candidates are split only in signatures named ``rank...``, which score each of them independently.
    """
    if not arrays or any(array.ndim == 0 for array in arrays.values()):
        return [[arrays]]
    if len({len(array) for array in arrays.values()}) > 1:
        return [[arrays]]
    rows = len(next(iter(arrays.values())))
    listed = [array for name, array in arrays.items() if name in signature.candidates]
    candidates = max((array.shape[1] for array in listed), default=1)
    step = max(1, size // max(1, candidates))
    width = size if signature.name.startswith(INDEPENDENT) else candidates
    return [
        [
            {
                name: array[row : row + step, at : at + width]
                if name in signature.candidates
                else array[row : row + step]
                for name, array in arrays.items()
            }
            for at in range(0, max(1, candidates), max(1, width))
        ]
        for row in range(0, max(1, rows), step)
    ]


def check_candidates(
    signature: Signature, chunk: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]
) -> None:
    """Refuses an output that cannot be joined along the candidates.

    Raises:
      UsageError: naming the output.
    """
    listed = [array for name, array in chunk.items() if name in signature.candidates]
    candidates = max(array.shape[1] for array in listed)
    for name, output in outputs.items():
        if output.ndim < 2 or output.shape[1] != candidates:
            raise UsageError(
                f"output {name!r} of signature {signature.name!r} has no axis of candidates, so "
                "the request cannot be split; leave the output out, or raise chunk_size"
            )


def join(parts: list[dict[str, np.ndarray]], axis: int) -> dict[str, np.ndarray]:
    """The outputs of all parts, concatenated along one axis."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts], axis) for name in parts[0]}
