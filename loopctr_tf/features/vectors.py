"""Pretrained rows of an embedding table: NumPy arrays, checked, out of .npy files."""

from pathlib import Path
from typing import Any

import numpy as np

from loopctr_tf.errors import UsageError


def checked_vectors(values: Any, rows: int, dim: int | None, where: str) -> np.ndarray:
    """``values`` as float32 [rows, dim], which nothing can write to any more.

    Args:
      values: an array of numbers.
      rows: known values of the table.
      dim: width of the table; None takes that of the array.
      where: names the table in messages.

    Raises:
      UsageError: for another shape, other values than numbers, and numbers that are not finite.
    """
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        kind = values.dtype if isinstance(values, np.ndarray) else type(values).__name__
        raise UsageError(
            f"{where} are of type {kind}; give a NumPy array of numbers (a file's name is read by "
            "Schema.load alone)"
        )
    if values.ndim != 2 or len(values) != rows or values.shape[1] < 1:
        raise UsageError(
            f"{where} have the shape {list(values.shape)}; give one row for each of the {rows} values "
            "of the vocabulary, in its order"
        )
    if dim is not None and values.shape[1] != dim:
        raise UsageError(
            f"{where} are {values.shape[1]} wide and dim is {dim}; write dim: {values.shape[1]}, or "
            "leave it out"
        )
    with np.errstate(over="ignore"):
        # A view where nothing is to be converted: the caller's array stays writable.
        values = np.ascontiguousarray(values, np.float32).view()
    sums = values.sum(axis=1, dtype=np.float64)
    if not np.isfinite(sums).all():
        row = int(np.flatnonzero(~np.isfinite(sums))[0])
        raise UsageError(
            f"{where} hold a number that is not finite in row {row}, counted from 0; correct it"
        )
    values.flags.writeable = False
    return values


def read_vectors(path: Path, where: str) -> np.ndarray:
    """The array in a .npy file.

    Raises:
      UsageError: for a file that is absent or holds no array of numbers.
    """
    try:
        return np.load(path, allow_pickle=False)
    except OSError as error:
        problem = error.strerror or "it is no .npy file"
        raise UsageError(f"{where} cannot be read from {str(path)!r}: {problem}") from error
    except (ValueError, EOFError) as error:
        raise UsageError(
            f"{where}: {str(path)!r} holds no array of numbers; write it with numpy.save"
        ) from error
