"""Samples a table's first rows and describes each of its columns."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from loopctr_tf.prepare import cells
from loopctr_tf.prepare.reading import TableReader, WantedColumn
from loopctr_tf.prepare.rejects import BadRow, Rejects
from loopctr_tf.prepare.times import Times
from loopctr_tf.prepare.wanted import is_list, kind_of

SAMPLE_ROWS = 200_000
_SEPARATORS = "|;^, "
_EVENT_YEARS = 788_918_400, 2_051_222_400
"""1995 to 2034 in seconds; numbers in that range, in some unit, are taken for timestamps."""


@dataclass(frozen=True)
class Profile:
    """A column of the sample.

    Attributes:
      name: of the column.
      kind: "whole" (numbers), "number", "text", "date" (any format), "bool" or "other".
      rows: number of values (of list elements).
      missing: rows without a value.
      distinct: number of distinct values (list elements).
      commonest: up to six values, the most common first.
      least, most: of numbers.
      median: of numbers.
      characters: mean length of text.
      unit: "s", "ms", "us" or "ns" if the numbers are timestamps between 1995 and 2034.
      longest: length of the longest list; None for a column of single values.
      separator: between the elements of a list in text.
      looked_at: number of rows in the sample.
    """

    name: str
    kind: str
    rows: int
    missing: int
    distinct: int
    commonest: tuple[str, ...]
    least: float = 0.0
    most: float = 0.0
    median: float = 0.0
    characters: float = 0.0
    unit: str | None = None
    longest: int | None = None
    separator: str | None = None
    looked_at: int = 0


@dataclass(frozen=True)
class Sample:
    """The first rows of a table, all columns as text.

    Attributes:
      columns: string arrays by name, or lists of strings.
      profiles: by name.
      rows: number of rows.
      whole: whether these are all rows of the table.
      bad: number of bad rows, by reason; they are not in ``columns``.
      unreadable: columns of unsupported types, with their types.
    """

    columns: dict[str, pa.Array]
    profiles: dict[str, Profile]
    rows: int
    whole: bool
    bad: dict[str, int]
    unreadable: dict[str, str]

    def codes(self, name: str) -> np.ndarray:
        """A code for each value of a column; -1 for a missing one."""
        values = self.columns[name]
        if is_list(values.type):
            values = pa.array([json.dumps(cell) for cell in values.to_pylist()], pa.string())
        indices = values.dictionary_encode().indices
        return pc.fill_null(indices, -1).to_numpy(zero_copy_only=False)

    def constant_within(self, name: str, key: str) -> tuple[float, int]:
        """(share of ``key``'s values with one value of ``name``, number of values with several rows)."""
        values, keys = self.codes(name), self.codes(key)
        repeated = np.bincount(keys[keys >= 0]) > 1
        pairs = np.unique(np.stack([keys, values])[:, keys >= 0], axis=1)
        different = np.bincount(pairs[0].astype(np.int64), minlength=len(repeated))
        count = int(repeated.sum())
        return (float((different[repeated] == 1).mean()) if count else 0.0), count


class _Counted(Rejects):
    """Only counts bad rows."""

    def add(self, file, bad: BadRow) -> None:
        reason = bad.problem.reason
        self.counts[reason] = self.counts.get(reason, 0) + 1


def take_sample(paths: str | Path | Sequence[str | Path], rows: int = SAMPLE_ROWS) -> Sample:
    """Reads the first ``rows`` rows of files of any type.

    Raises:
      UsageError: for files that :class:`TableReader` refuses.
    """
    types = TableReader(paths, []).column_types()
    unreadable, wanted = {}, []
    for name, kind in types.items():
        value = kind_of(kind.value_type) if is_list(kind) else kind_of(kind)
        if value in ("text", "number", "bool", "time"):
            wanted.append(WantedColumn(name, "string", many=is_list(kind)))
        else:
            unreadable[name] = str(kind)
    rejects, tables, taken = _Counted(), [], 0
    for table in TableReader(paths, wanted, rejects=rejects):
        tables.append(table)
        taken += len(table)
        if taken > rows:
            break
    schema = pa.schema([(column.name, column.arrow_type) for column in wanted])
    table = pa.concat_tables([schema.empty_table(), *tables])[:rows].combine_chunks()
    columns = {name: _whole(table.column(name)) for name in table.column_names}
    profiles = {
        name: dataclasses.replace(_profile(name, array, types[name]), looked_at=len(array))
        for name, array in columns.items()
    }
    for name, profile in profiles.items():
        if profile.separator is not None:
            columns[name] = _split(columns[name], profile.separator)
    return Sample(columns, profiles, len(table), taken <= rows, rejects.counts, unreadable)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _profile(name: str, array: pa.Array, kind: pa.DataType) -> Profile:
    if is_list(array.type):
        lengths = pc.list_value_length(array)
        longest = pc.max(lengths).as_py() or 0
        empty = int(pc.sum(pc.equal(lengths, 0)).as_py() or 0)
        return _flat(name, array.flatten(), kind_of(kind.value_type), empty, longest)
    separator = _separator(array) if kind_of(kind) == "text" else None
    if separator is None:
        return _flat(name, array, kind_of(kind), array.null_count)
    lists = _split(array, separator)
    longest = pc.max(pc.list_value_length(lists)).as_py()
    return _flat(name, lists.flatten(), "text", array.null_count, longest, separator)


def _flat(name, values: pa.Array, kind: str, missing: int, longest=None, separator=None) -> Profile:
    values = values.drop_null()
    counts = pc.value_counts(values)
    order = np.argsort(-counts.field("counts").to_numpy(), kind="stable")[:6]
    facts = {
        "name": name,
        "rows": len(values),
        "missing": missing,
        "distinct": len(counts),
        "commonest": tuple(counts.field("values").take(pa.array(order)).to_pylist()),
        "characters": float(pc.mean(pc.utf8_length(values)).as_py() or 0.0),
        "longest": longest,
        "separator": separator,
    }
    if not len(values):
        return Profile(kind="other", **facts)
    if kind in ("bool", "time"):
        return Profile(kind={"bool": "bool", "time": "date"}[kind], **facts)
    if {value.lower() for value in facts["commonest"]} <= {"true", "false"}:
        return Profile(kind="bool", **facts)
    numbers, problems = cells.numbers_of_text(values)
    numbers = numbers.drop_null().to_numpy()
    if problems or not len(numbers) or not np.isfinite(numbers).all():
        if kind == "text" and not Times("s")(values)[1]:
            return Profile(kind="date", **facts)
        return Profile(kind="text", **facts)
    whole = bool((numbers == np.rint(numbers)).all())
    least, most = float(numbers.min()), float(numbers.max())
    # As a number, a code such as 00123 would lose its zeros.
    if kind == "text" and bool(pc.any(pc.match_substring_regex(values, "^0[0-9]")).as_py()):
        return Profile(kind="text", **facts)
    return Profile(
        kind="whole" if whole else "number",
        least=least,
        most=most,
        median=float(np.median(numbers)),
        unit=_unit(least, most),
        **facts,
    )


def _unit(least: float, most: float) -> str | None:
    first, last = _EVENT_YEARS
    for unit, factor in (("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)):
        if first * factor <= least and most < last * factor:
            return unit
    return None


def _separator(array: pa.Array) -> str | None:
    """The separator of a column that seems to hold lists."""
    text = array.drop_null()
    cells_different = len(text.unique())
    for separator in _SEPARATORS:
        share = pc.mean(pc.match_substring(text, separator).cast(pa.float64())).as_py() or 0.0
        if share < 0.2:
            continue
        values = _split(text, separator).flatten()
        plain = pc.all(pc.match_substring_regex(values, r"^[A-Za-z0-9_.:-]+$")).as_py()
        longest = pc.max(pc.utf8_length(values)).as_py() or 0
        # Lists share values; sentences and addresses rarely do.
        if len(values.unique()) * 2 <= cells_different and longest <= 40:
            if separator in "|;^" or plain:
                return separator
        elif separator in "|^" and plain:
            return separator
    return None


def _split(text: pa.Array, separator: str) -> pa.Array:
    lists = pc.split_pattern(text, separator)
    values, kept = lists.flatten(), pc.not_equal(lists.flatten(), "")
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
    parents = np.repeat(np.arange(len(text)), lengths)[kept.to_numpy(zero_copy_only=False)]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(parents, minlength=len(text)))])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values.filter(kept))
