"""Converts one column of one file, batch by batch, to the wanted type."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from loopctr_tf.prepare import cells
from loopctr_tf.prepare.rejects import Problem
from loopctr_tf.prepare.times import Times
from loopctr_tf.prepare.wanted import WantedColumn, is_list

MISSING = Problem("missing", "fill it in")


class Converter:
    """Converts the arrays of one column of one file and reports bad rows."""

    def __init__(self, wanted: WantedColumn, limit: int):
        self._wanted, self._limit = wanted, limit
        timed = wanted.type == "time"
        self._convert = Times(wanted.unit) if timed else cells.CONVERTERS[wanted.type][1]

    def __call__(self, array: pa.Array) -> tuple[pa.Array, cells.Problems]:
        """(values, problems with their rows; a row has at most one)."""
        if not self._wanted.is_list:
            values, problems = self._values(array)
            absent = cells.bools(values.is_null())
        else:
            values, problems = self._lists(array)
            absent = cells.bools(pc.equal(pc.list_value_length(values), 0))
        if self._wanted.required and absent.any():
            for _, rows in problems:
                absent &= ~rows
            problems = problems + cells.occurring((MISSING, absent))
        return values, problems

    def _values(self, array: pa.Array) -> tuple[pa.Array, cells.Problems]:
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if pa.types.is_null(array.type):
            array = array.cast(pa.string())
        if pa.types.is_decimal(array.type):
            array = array.cast(pa.string())
        first: cells.Problems = []
        if cells.is_text(array.type):
            array, first = cells.checked_text(array, self._limit, self._wanted.type == "string")
        values, problems = self._convert(array)
        return values, first + problems

    def _lists(self, array: pa.Array) -> tuple[pa.Array, cells.Problems]:
        problems: cells.Problems = []
        if not is_list(array.type):
            text = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
            if cells.is_text(text.type):
                text, problems = cells.checked_text(text, self._limit, one_line=False)
            array = pc.split_pattern(text.cast(pa.string()), self._wanted.separator)
        lengths = pc.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False)
        parents = np.repeat(np.arange(len(array)), lengths)
        values, found = self._values(array.flatten())
        for problem, flat in found:
            rows = np.zeros(len(array), bool)
            rows[parents[flat]] = True
            for _, earlier in problems:
                rows &= ~earlier
            problems = problems + cells.occurring((problem, rows))
        kept = ~cells.bools(values.is_null())
        offsets = np.zeros(len(array) + 1, np.int32)
        np.cumsum(np.bincount(parents[kept], minlength=len(array)), out=offsets[1:])
        return pa.ListArray.from_arrays(pa.array(offsets), values.drop_null()), problems
