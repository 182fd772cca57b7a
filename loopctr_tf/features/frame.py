"""A pandas DataFrame as typed columns, checked against the schema: nothing is guessed or dropped."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from loopctr_tf.errors import UsageError
from loopctr_tf.features.inputs import Input
from loopctr_tf.features.schema import Schema

_ARROW_TYPES = {"string": pa.string(), "int64": pa.int64(), "float32": pa.float32()}


@dataclass(frozen=True)
class Column:
    """Values of one column: one a row, or ``row_splits[i]:row_splits[i + 1]`` for row i.

    A multi-valued field of a sequence holds the values of all events; how many each event has is in a
    column of its own, see ``Input.counts_name``.
    """

    values: np.ndarray
    row_splits: np.ndarray | None = None


def frame_columns(frame: pd.DataFrame, schema: Schema) -> dict[str, Column]:
    """All columns of ``schema`` out of ``frame``: features, sequence fields, group, label and weight.

    Of a multi-valued sequence field there are two, its values and ``Input.counts_name``. Errors name a
    row by its label in the frame's index.

    A sequence field holds one list a row, oldest event first (a list of lists where the field is
    multi-valued). A missing number takes the feature's default, a missing category the table's
    padding value ("" or -1), a missing list is empty. The most recent ``max_length`` events stay.

    Raises:
      UsageError: for an empty frame, a missing column, a type other than the schema's, sequence
        fields of different lengths, too many values, a label outside {0, 1}, or a weight that is not
        a number from 0 on.
    """
    columns = unfilled_columns(frame, schema)
    for feature in schema.all_fields():
        if feature.table is None:
            values = columns[feature.name].values
            filled = np.where(np.isnan(values), np.float32(feature.default), values)
            columns[feature.name] = dataclasses.replace(columns[feature.name], values=filled)
    return columns


def unfilled_columns(frame: pd.DataFrame, schema: Schema) -> dict[str, Column]:
    """:func:`frame_columns` with NaN for a missing number."""
    if len(frame) == 0:
        raise UsageError("the DataFrame has no rows; give at least one")
    columns = {}
    for feature in schema.features:
        columns[feature.name] = _feature_column(frame, schema.inputs[feature.name])
    for sequence in schema.sequences:
        splits = None
        for field in sequence.fields:
            each = schema.inputs[field.name]
            made, lengths = _sequence_columns(frame, each)
            if splits is not None and not np.array_equal(splits, lengths):
                row = int(np.flatnonzero(splits != lengths)[0])
                raise UsageError(
                    f"column {field.name!r} has {lengths[row]} events in row {frame.index[row]} and "
                    f"{sequence.fields[0].name!r} has {splits[row]}; all fields of sequence "
                    f"{sequence.name!r} need the same number"
                )
            splits = lengths
            columns |= made
    if schema.group not in columns:
        # Any hashable value groups, so that the text of it serves as well.
        columns[schema.group] = Column(
            np.array([str(value) for value in _series(frame, schema.group)], dtype=object)
        )
    columns[schema.label] = Column(_labels(_series(frame, schema.label), schema.label))
    if schema.weight is not None:
        columns[schema.weight] = Column(_weights(_series(frame, schema.weight), schema.weight))
    return columns


def _series(frame: pd.DataFrame, name: str) -> pd.Series:
    if name not in frame.columns:
        have = ", ".join(map(str, frame.columns))
        raise UsageError(f"column {name!r} is missing; add it, the DataFrame has {have}")
    if list(frame.columns).count(name) > 1:
        raise UsageError(f"the DataFrame has column {name!r} more than once; keep one")
    return frame[name]


def _arrow(series: pd.Series, kind: pa.DataType) -> pa.Array:
    try:
        if series.dtype == object:
            _check_objects(series, kind)
        array = pa.Array.from_pandas(series, type=kind)
    except (pa.ArrowException, OverflowError) as error:
        problem = " ".join(str(error).split())
        raise UsageError(
            f"column {series.name!r} is not what the schema says ({kind}): {problem}; "
            "convert it, or change the schema"
        ) from error
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _check_objects(series: pd.Series, kind: pa.DataType) -> None:
    """Refuses Python objects that pyarrow would silently make fit, by ArrowInvalid.

    Text where a list belongs would be cut into its letters, and 2.5 where a whole number belongs into 2.
    """
    found = pa.infer_type(series.to_numpy(), from_pandas=True)
    (depth, leaf), (wanted_depth, wanted) = _nesting(found), _nesting(kind)
    if not pa.types.is_null(leaf) and depth != wanted_depth:
        raise pa.ArrowInvalid(f"it holds {found}")
    if pa.types.is_integer(wanted) and not pa.types.is_integer(leaf):
        doubles = pa.float64()
        for _ in range(wanted_depth):
            doubles = pa.list_(doubles)
        array = pa.Array.from_pandas(series, type=doubles)
        for _ in range(wanted_depth):
            array = array.flatten()
        array.cast(wanted)


def _nesting(kind: pa.DataType) -> tuple[int, pa.DataType]:
    """Levels of lists, and what is in them."""
    depth = 0
    while pa.types.is_list(kind):
        depth, kind = depth + 1, kind.value_type
    return depth, kind


def _filled(array: pa.Array, each: Input) -> np.ndarray:
    """Flat values with missing ones replaced: by padding, or by NaN, as pandas writes them."""
    fill = np.nan if each.dtype == "float32" else each.padding
    values = array.fill_null(fill).to_numpy(zero_copy_only=False)
    if each.dtype == "float32" and np.isinf(values).any():
        raise UsageError(f"column {each.name!r} holds an infinite number; replace or remove it")
    return values


def _feature_column(frame: pd.DataFrame, each: Input) -> Column:
    series, kind = _series(frame, each.name), _ARROW_TYPES[each.dtype]
    if not each.is_list:
        return Column(_filled(_arrow(series, kind), each))
    array = _arrow(series, pa.list_(kind))
    lengths = _lengths(array)
    if each.truncate == "error" and lengths.max(initial=0) > each.width:
        _too_many(each, frame.index[int(lengths.argmax())], int(lengths.max()))
    values, lengths = _truncated(_filled(array.flatten(), each), lengths, each)
    return Column(values, _splits(lengths))


def _sequence_columns(frame: pd.DataFrame, each: Input) -> tuple[dict[str, Column], np.ndarray]:
    """A field's columns, cut to the most recent events, and its events a row before the cut."""
    kind = _ARROW_TYPES[each.dtype]
    array = _arrow(_series(frame, each.name), pa.list_(pa.list_(kind) if each.multi else kind))
    lengths, events = _lengths(array), array.flatten()
    splits = _splits(lengths)
    recent = np.repeat(splits[1:], lengths) - np.arange(len(events)) <= each.max_length
    kept = _splits(np.minimum(lengths, each.max_length))
    if not each.multi:
        return {each.name: Column(_filled(events, each)[recent], kept)}, lengths
    counts = _lengths(events)
    if each.truncate == "error" and counts.max(initial=0) > each.width:
        event = int(counts.argmax())
        row = int(np.searchsorted(splits, event, side="right")) - 1
        _too_many(each, frame.index[row], int(counts.max()))
    values = _filled(events.flatten(), each)[np.repeat(recent, counts)]
    values, counts = _truncated(values, counts[recent], each)
    made = {
        each.name: Column(values, _splits(counts)[kept]),
        each.counts_name: Column(counts, kept),
    }
    return made, lengths


def _truncated(
    values: np.ndarray, lengths: np.ndarray, each: Input
) -> tuple[np.ndarray, np.ndarray]:
    """Values of lists one after the other, and the lists' lengths, both cut to the feature's width."""
    if lengths.max(initial=0) <= each.width:
        return values, lengths
    splits = _splits(lengths)
    if each.truncate == "first":
        stay = np.arange(len(values)) - np.repeat(splits[:-1], lengths) < each.width
    else:
        stay = np.repeat(splits[1:], lengths) - np.arange(len(values)) <= each.width
    return values[stay], np.minimum(lengths, each.width)


def _too_many(each: Input, row, count: int) -> None:
    raise UsageError(
        f"column {each.name!r} has {count} values in row {row} and max_values is "
        f"{each.width}; raise max_values, send fewer, or give the feature truncate: first"
    )


def _lengths(array: pa.ListArray) -> np.ndarray:
    return array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)


def _splits(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _labels(series: pd.Series, name: str) -> np.ndarray:
    return _checked(
        *(series, lambda values: np.isin(values, (0.0, 1.0)), f"label {name!r}"),
        "labels must be 0 or 1",
    )


def _weights(series: pd.Series, name: str) -> np.ndarray:
    most = np.finfo(np.float32).max
    return _checked(
        *(series, lambda values: (values >= 0) & (values <= most), f"weight {name!r}"),
        "weights must be numbers from 0 on",
    )


def _checked(
    series: pd.Series, good: Callable[[np.ndarray], np.ndarray], what: str, rule: str
) -> np.ndarray:
    """Numbers as float32; UsageError for the first that is not ``good``, a missing one among them."""
    values = pd.to_numeric(series, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = ~good(values)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise UsageError(f"{what} is {series.iloc[row]!r} in row {series.index[row]}; {rule}")
    return values.astype(np.float32)
