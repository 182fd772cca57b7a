"""Large requests in parts of bounded size, and their answers put together again."""

from collections.abc import Iterable, Mapping

import numpy as np

from loopctr_tf.errors import UsageError
from loopctr_tf.scoring.client.signature import Signature


def split(
    signature: Signature, arrays: Mapping[str, np.ndarray], size: int
) -> Iterable[list[Mapping[str, np.ndarray]]]:
    """Parts of a request with at most ``size`` rows times candidates: by rows, then by candidates.

    Candidates are split where their scores do not depend on each other, which is what ``rank`` in
    front of a signature's name says.
    """
    if not arrays or any(array.ndim == 0 for array in arrays.values()):
        return [[arrays]]
    if len({len(array) for array in arrays.values()}) > 1:
        return [[arrays]]
    rows = len(next(iter(arrays.values())))
    listed = [array for name, array in arrays.items() if name in signature.candidates]
    candidates = max((array.shape[1] for array in listed), default=1)
    step = max(1, size // max(1, candidates))
    width = size if signature.name.startswith("rank") else candidates
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
    """Refuses an output that cannot be put together again along the candidates.

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
    """The outputs of all parts, behind each other on one axis."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts], axis) for name in parts[0]}
