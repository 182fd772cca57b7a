"""The visual embeddings of KuaiVideo_x1: video ids and their vectors out of an HDF5 file."""

from pathlib import Path

import h5py
import numpy as np

from loopctr_tf.errors import UsageError


def read_vectors(path: str | Path) -> tuple[list[str], np.ndarray]:
    """The ids, as text, and float32 [ids, width], in the order of the file.

    The two datasets are told by their shapes, whatever their names and order: the ids have one axis,
    whole numbers or text; the vectors have two.

    Raises:
      UsageError: for a file that is absent, no HDF5, or without exactly one dataset of either kind.
    """
    where = f"{str(path)!r}"
    try:
        with h5py.File(path, "r") as file:
            datasets: list[h5py.Dataset] = []
            file.visititems(
                lambda _, item: datasets.append(item) if isinstance(item, h5py.Dataset) else None
            )
            keys = [item for item in datasets if item.ndim == 1]
            values = [item for item in datasets if item.ndim == 2]
            if len(keys) != 1 or len(values) != 1 or len(keys[0]) != len(values[0]):
                found = ", ".join(f"{item.name[1:]} {list(item.shape)}" for item in datasets)
                raise UsageError(
                    f"{where} holds {found or 'nothing'}; it should hold ids [n] and vectors [n, width]"
                )
            ids, vectors = keys[0][:], np.asarray(values[0][:], np.float32)
    except OSError as error:
        problem = error.strerror or "it is no HDF5 file"
        raise UsageError(f"{where} cannot be read: {problem}") from error
    if ids.dtype.kind in "iu":
        return list(map(str, ids.tolist())), vectors
    if ids.dtype.kind not in "SO":
        raise UsageError(f"{where}: the ids are of type {ids.dtype}; store whole numbers or text")
    return [key.decode() if isinstance(key, bytes) else str(key) for key in ids.tolist()], vectors
