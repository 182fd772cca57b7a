"""Converts what a caller has (lists, arrays, a DataFrame) to the arrays that a signature takes.

Nothing is guessed in silence:

- Lists of unequal length are padded on the right, with what the schema calls "no value": "" for
  strings, -1 for whole numbers, and 0.0 for floats. None or NaN in place of a list is an empty list.
  Candidates are never padded.
- A length input that the caller leaves out is computed from the fields whose events it counts; the
  signature names them. A list counts in full. A dense array of strings counts up to its last string
  that is not "". In a dense array of numbers, padding and data look alike, so it says nothing. Fields
  that disagree are an error.
- A number may change its type but not its value; only float64 is rounded to the float of the
  signature. A float that stands for several whole numbers (from 2^53 on, float64) is no id. Strings
  are neither made from numbers nor read as numbers.
- Text is spelt as in training, see :mod:`loopctr_tf.features.values`: "117.0" is "117", and "NA" is "".
  Bytes are sent as they are.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from loopctr_tf.errors import UsageError
from loopctr_tf.features.columns import PADDING
from loopctr_tf.features.values import BadValueError, exact_limit, respelt, whole_floats
from loopctr_tf.scoring import tensors
from loopctr_tf.scoring.client.signature import Signature, TensorInfo


def to_arrays(
    signature: Signature, features: Mapping[str, Any] | pd.DataFrame
) -> dict[str, np.ndarray]:
    """Arrays for every input of a signature that the features give, and for the lengths left out.

    Args:
      signature: what the server takes.
      features: by name: NumPy arrays, lists (nested for more axes), or the columns of a DataFrame.

    Returns:
      Arrays of the signature's types and ranks; strings as objects of bytes.

    Raises:
      UsageError: naming the feature that is missing, unknown, or of a wrong type or shape.
    """
    columns = _columns(features)
    fields_by_length = signature.fields_by_length()
    _check_names(signature, columns, fields_by_length)
    arrays: dict[str, np.ndarray] = {}
    list_sizes: dict[str, np.ndarray | None] = {}
    for name, value in columns.items():
        arrays[name], sizes = _convert(name, value, signature.inputs[name])
        if name in signature.candidates and sizes is not None:
            # not padded: a score of padding would look like any other
            other = _first_difference(sizes, sizes[:1])
            if other is not None:
                raise UsageError(
                    f"feature {name!r} has {sizes[0]} candidates in request 0 and {sizes[other]} in "
                    f"request {other}; score requests of equal numbers together, others one by one"
                )
        list_sizes[name] = sizes
    for length, fields in fields_by_length.items():
        if length in columns:
            continue
        events = {}
        for field in fields:
            if list_sizes.get(field) is not None:
                events[field] = list_sizes[field]
            elif field in arrays and signature.inputs[field].is_string:
                array = arrays[field]
                filled = (array != b"").reshape(*array.shape[:2], -1).any(axis=2)
                events[field] = (filled * np.arange(1, array.shape[1] + 1)).max(axis=1, initial=0)
        if events or length not in signature.optional:
            arrays[length] = _length(length, events, fields, signature.inputs[length])
    _check_sizes(signature, arrays)
    return arrays


def _columns(features: Mapping[str, Any] | pd.DataFrame) -> dict[str, Any]:
    if isinstance(features, pd.DataFrame):
        if not features.columns.is_unique:
            twice = features.columns[features.columns.duplicated()][0]
            raise UsageError(f"the DataFrame has two columns {twice!r}; keep one")
        return {name: features[name] for name in features.columns}
    if isinstance(features, Mapping):
        return dict(features)
    raise UsageError(
        f"features are a {type(features).__name__}; give a dict of arrays or lists, or a DataFrame"
    )


def _check_names(
    signature: Signature, columns: Mapping[str, Any], fields_by_length: Mapping[str, list[str]]
) -> None:
    takes = ", ".join(f"{name} ({info})" for name, info in sorted(signature.inputs.items()))
    unknown = [name for name in columns if name not in signature.inputs]
    if unknown:
        raise UsageError(
            f"feature {unknown[0]!r} is not an input of signature {signature.name!r}; leave it "
            f"out, inputs are: {takes}"
        )
    # lengths last: most are missing only because the fields that they count are
    missing = [
        name
        for name in sorted(signature.inputs, key=lambda name: (name in fields_by_length, name))
        if name not in columns
        and name not in signature.optional
        and not any(field in columns for field in fields_by_length.get(name, ()))
    ]
    if not missing:
        return
    names = ", ".join(map(repr, missing))
    which = f"feature {names} is" if len(missing) == 1 else f"features {names} are"
    remedy = ""
    if not any(any(info.axes) for info in signature.inputs.values()):
        remedy = (
            "; this export does not say which input counts the events of a list: export the model "
            "again, or send the length inputs"
        )
    raise UsageError(f"{which} missing; signature {signature.name!r} takes: {takes}{remedy}")


def _convert(name: str, value: Any, info: TensorInfo) -> tuple[np.ndarray, np.ndarray | None]:
    """One input's array, and the sizes of its rows if these are lists."""
    if isinstance(value, pd.Series):
        value = value.to_numpy()
    elif not isinstance(value, (list, tuple, str, bytes)):
        value = np.asarray(value)
    if info.rank is None or info.rank == 0:
        array = np.asarray(value)
        inner = math.prod(array.shape[1:])
        return _leaves(name, array, info, lambda position: position // max(inner, 1)), None
    if isinstance(value, np.ndarray) and (value.dtype != object or value.ndim != 1):
        if value.ndim != info.rank:
            raise _wrong_rank(name, info, f"an array of shape {tensors.shape_text(value.shape)}")
        inner = math.prod(value.shape[1:])
        return _leaves(name, value, info, lambda position: position // max(inner, 1)), None
    if isinstance(value, (str, bytes)):
        raise _wrong_rank(name, info, f"the string {value[:40]!r}")
    rows, counts = _flatten(name, value, info)
    pad = {"O": PADDING["string"].encode(), "i": PADDING["int64"]}.get(info.dtype.kind, 0)
    values = _leaves(name, rows, info, lambda position: row_of(position, counts))
    # folds the concatenated values into the axes that they had, padding short lists
    for sizes in reversed(counts):
        width = int(sizes.max(initial=0))
        folded = np.full((len(sizes), width, *values.shape[1:]), pad, values.dtype)
        folded[np.arange(width) < sizes[:, None]] = values
        values = folded
    return values, counts[0] if counts else None


def row_of(position: int, counts: list[np.ndarray]) -> int:
    """The row of a value, given the sizes of the lists on each axis but the first."""
    for sizes in reversed(counts):
        position = int(np.searchsorted(np.cumsum(sizes), position, side="right"))
    return position


def _wrong_rank(name: str, info: TensorInfo, received: str) -> UsageError:
    return UsageError(f"feature {name!r} is {received}; give {info}")


def _flatten(name: str, rows: Any, info: TensorInfo) -> tuple[Any, list[np.ndarray]]:
    """The innermost values concatenated, and the sizes of the lists on each axis but the first."""
    counts = []
    for axis in range(1, info.rank):
        rows = [
            () if row is None or row is pd.NA or (isinstance(row, float) and row != row) else row
            for row in rows
        ]
        for position, row in enumerate(rows):
            if isinstance(row, (str, bytes)) or not hasattr(row, "__len__"):
                raise _wrong_rank(
                    name, info, f"a list with {row!r:.40} in place {position} of axis {axis - 1}"
                )
        counts.append(np.fromiter(map(len, rows), np.int64, len(rows)))
        if (
            axis == info.rank - 1
            and rows
            and all(
                isinstance(row, np.ndarray) and row.ndim == 1 and row.dtype.kind in "biuf"
                for row in rows
            )
        ):
            rows = np.concatenate(rows)
        else:
            rows = list(itertools.chain.from_iterable(rows))
    return rows, counts


def _leaves(name: str, values: Any, info: TensorInfo, row: Callable[[int], int]) -> np.ndarray:
    """Values of the signature's type; a list must hold values alone, not lists.

    ``row`` gives the row of a value by its position.
    """
    try:
        return _unchecked_leaves(name, values, info)
    except BadValueError as error:
        raise UsageError(
            f"feature {name!r} holds {error.value!r} in row {row(error.position)}, {error.problem}"
        ) from error


def _unchecked_leaves(name: str, values: Any, info: TensorInfo) -> np.ndarray:
    shape = values.shape if isinstance(values, np.ndarray) else (len(values),)
    if isinstance(values, np.ndarray) and (info.is_string or values.dtype == object):
        values = values.ravel().tolist()
    if not info.is_string:
        if not isinstance(values, np.ndarray):
            values = _number_array(name, values, info).reshape(shape)
        return _numbers(name, values, info)
    try:
        kinds = set(map(type, values))
        if kinds == {str}:
            values = respelt(values)
        elif kinds != {bytes}:
            values = [respelt([each])[0] if isinstance(each, str) else each for each in values]
        return tensors.object_array(tensors.encode_strings(values)).reshape(shape)
    except BadValueError:
        raise
    except ValueError as error:
        raise UsageError(
            f"feature {name!r} takes strings ({info}): {error}; convert it, or fill what is missing"
        ) from error


def _number_array(name: str, values: list, info: TensorInfo) -> np.ndarray:
    """One axis of numbers, of the type that NumPy chooses for them."""
    try:
        array = np.array(values)
    except (ValueError, TypeError, OverflowError):  # lists of unequal length among them
        array = np.empty((), object)
    if array.ndim == 1 and array.dtype != object:
        return array
    for position, value in enumerate(values):
        if value is None or value is pd.NA:
            raise UsageError(
                f"feature {name!r} has no value in place {position}; fill it, a server takes no "
                "missing values"
            )
        if np.ndim(value):
            raise _wrong_rank(name, info, f"a list with the list {value!r:.40} inside")
    raise UsageError(f"feature {name!r} holds values such as {values[0]!r:.40}; give {info}")


def _numbers(name: str, values: np.ndarray, info: TensorInfo) -> np.ndarray:
    if values.dtype == info.dtype or not values.size:
        return values.astype(info.dtype, copy=False)
    wanted = info.dtype.kind
    if values.dtype.kind not in ("biufc" if wanted == "c" else "biuf"):
        raise UsageError(
            f"feature {name!r} holds {values.dtype.name} values such as "
            f"{values.ravel()[0].item()!r:.40}; give numbers, {info}"
        )
    if wanted in "iu" and values.dtype.kind == "f" and info.dtype.itemsize == 8:
        doubtful = np.abs(values) >= exact_limit(values.dtype)
        if (doubtful & np.isfinite(values)).any():
            whole_floats(np.where(doubtful, values, 0))  # refuses the first
    if wanted in "biu":
        with np.errstate(invalid="ignore"):
            cast = values.astype(info.dtype)
        changed = cast != values
        if changed.any():
            raise UsageError(
                f"feature {name!r} holds {values[changed][0].item()!r}, which {info.dtype.name} "
                f"cannot hold; give {info}"
            )
        return cast
    try:
        with np.errstate(over="raise"):
            return values.astype(info.dtype)
    except FloatingPointError as error:
        raise UsageError(
            f"feature {name!r} holds a number too large for {info.dtype.name}; scale it"
        ) from error


def _first_difference(sizes: np.ndarray, others: np.ndarray) -> int | None:
    different = np.flatnonzero(sizes != others)
    return int(different[0]) if len(different) else None


def _length(
    name: str, events: Mapping[str, np.ndarray], fields: list[str], info: TensorInfo
) -> np.ndarray:
    if not events:
        raise UsageError(
            f"feature {name!r} is missing and cannot be computed from dense numbers in "
            f"{', '.join(map(repr, fields))}; send it ({info}), or send lists without padding"
        )
    (first, lengths), *others = events.items()
    for other, found in others:
        if len(found) != len(lengths):
            raise UsageError(
                f"feature {other!r} has {len(found)} rows where {first!r} has {len(lengths)}"
            )
        row = _first_difference(found, lengths)
        if row is not None:
            raise UsageError(
                f"row {row} has {lengths[row]} events in {first!r} and {found[row]} in {other!r}; "
                f"give both the same number, or send {name!r} ({info})"
            )
    return lengths.astype(info.dtype)


def _check_sizes(signature: Signature, arrays: Mapping[str, np.ndarray]) -> None:
    """Checks the sizes that a signature fixes, and that rows and candidates are equally many."""
    seen: dict[int, str] = {}
    for name, array in arrays.items():
        info = signature.inputs[name]
        for size, given in zip(info.shape or (), array.shape, strict=False):
            if size not in (None, given):
                raise UsageError(
                    f"feature {name!r} has shape {tensors.shape_text(array.shape)}; give {info}"
                )
        axes = [0, 1] if name in signature.candidates else [0]
        for axis in axes if info.shape and info.shape[0] is None else ():
            first = seen.setdefault(axis, name)
            if array.shape[axis] != arrays[first].shape[axis]:
                raise UsageError(
                    f"feature {name!r} has {array.shape[axis]} {('rows', 'candidates')[axis]} "
                    f"where {first!r} has {arrays[first].shape[axis]}; give each the same number"
                )
