"""A column in memory: int32 codes of its distinct values, or plain numbers; lists as spans."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from loopctr_tf.errors import UsageError
from loopctr_tf.features.columns import PADDING
from loopctr_tf.prepare.wanted import WantedColumn

_DICTIONARY = {"string": pa.large_string(), "int64": pa.int64()}
"""Arrow type of the distinct values of a coded column."""


def flat_spans(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The spans ``starts[i]:ends[i]``, concatenated.

    Returns:
      (positions int64, splits int64 [n + 1]): span i is ``positions[splits[i]:splits[i + 1]]``.
    """
    lengths = ends.astype(np.int64) - starts
    splits = np.concatenate([[0], np.cumsum(lengths)])
    return np.repeat(starts - splits[:-1], lengths) + np.arange(splits[-1]), splits


@dataclass(frozen=True)
class Column:
    """One value or one list per entry.

    Attributes:
      values: with ``codes``, the distinct values (Arrow, text or int64; the padding value of the type
        means missing); else one number per entry (NaN is missing).
      codes: int32, positions in ``values``.
      splits: list i is ``splits[i]:splits[i + 1]`` of the codes or numbers; None means one value each.
    """

    values: pa.Array | np.ndarray
    codes: np.ndarray | None = None
    splits: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.flat if self.splits is None else self.splits) - (self.splits is not None)

    @property
    def flat(self) -> np.ndarray:
        """The codes, or the numbers if there are none."""
        return self.values if self.codes is None else self.codes

    def take(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """(codes or numbers of ``rows``, concatenated; splits of lists)."""
        if self.splits is None:
            return self.flat[rows], None
        positions, splits = flat_spans(self.splits[rows], self.splits[rows + 1])
        return self.flat[positions], splits

    def reordered(self, rows: np.ndarray) -> "Column":
        """The column with the entries ``rows``."""
        flat, splits = self.take(rows)
        return (
            Column(flat, None, splits) if self.codes is None else Column(self.values, flat, splits)
        )

    def longest(self) -> int:
        """The largest number of values in an entry."""
        return 1 if self.splits is None else int(np.diff(self.splits).max(initial=0))

    def with_missing(self) -> "Column":
        """The column with a missing entry (an empty list) appended."""
        if self.splits is not None:
            return Column(self.values, self.codes, np.append(self.splits, self.splits[-1]))
        if self.codes is None:
            return Column(np.append(self.values, np.float32(np.nan)))
        padding = pa.array([PADDING[type_name(self.values)]], self.values.type)
        code = pc.index_in(padding, value_set=self.values)[0].as_py()
        if code is not None:
            return Column(self.values, np.append(self.codes, np.int32(code)))
        values = pa.concat_arrays([self.values, padding])
        return Column(values, np.append(self.codes, np.int32(len(values) - 1)))

    def as_type(self, kind: str, name: str) -> "Column":
        """The column as "string", "int64" or "float32"; ``name`` is for messages.

        Text can become numbers if every value is one.
        """
        if self.codes is None or type_name(self.values) == kind:
            return self
        if kind == "string":
            return Column(self.values.cast(_DICTIONARY[kind]), self.codes, self.splits)
        missing = pc.equal(self.values, PADDING["string"])
        text = pc.if_else(missing, pa.scalar(None, self.values.type), self.values)
        try:
            numbers = text.cast(pa.int64() if kind == "int64" else pa.float32())
        except pa.ArrowInvalid as error:
            raise UsageError(
                f"column {name!r} is needed both as text and as {kind}, and holds text that is "
                f"not {kind} ({' '.join(str(error).split())}); correct it, or use one type"
            ) from error
        if kind == "int64":
            return Column(numbers.fill_null(PADDING["int64"]), self.codes, self.splits)
        return Column(numbers.fill_null(np.nan).to_numpy()[self.codes], None, self.splits)


def type_name(values: pa.Array) -> str:
    """ "string" or "int64", as tables of the schema call it."""
    return "int64" if pa.types.is_integer(values.type) else "string"


class ColumnBuilder:
    """Makes a :class:`Column` of the arrays of one wanted column, batch after batch."""

    def __init__(self, wanted: WantedColumn):
        self._wanted = wanted
        self._chunks: list = []
        self._lengths: list[np.ndarray] = []

    def add(self, array: pa.Array) -> None:
        """Appends the entries of a batch."""
        if self._wanted.is_list:
            self._lengths.append(array.value_lengths().to_numpy())
            array = array.flatten()
        kind = self._wanted.type
        if kind in _DICTIONARY:
            values = array.cast(_DICTIONARY[kind]).fill_null(PADDING[kind])
            self._chunks.append(values.dictionary_encode())
        else:
            # Times and labels are required and never missing.
            values = array.fill_null(np.nan) if kind == "float32" else array
            self._chunks.append(values.to_numpy(zero_copy_only=False))

    def finish(self) -> Column:
        """The column of all batches (at least one) that were added; empties the builder."""
        splits = None
        if self._wanted.is_list:
            splits = np.concatenate([[0], np.cumsum(np.concatenate(self._lengths), dtype=np.int64)])
        chunks, self._chunks, self._lengths = self._chunks, [], []
        if self._wanted.type not in _DICTIONARY:
            return Column(np.concatenate(chunks), None, splits)
        unified = pa.chunked_array(chunks).unify_dictionaries()
        codes = np.concatenate([chunk.indices.to_numpy() for chunk in unified.chunks])
        return Column(unified.chunk(0).dictionary, codes, splits)
