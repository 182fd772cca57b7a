"""Converts times to int64 microseconds since 1970-01-01T00:00:00Z.

Accepts numbers in a given unit, ISO 8601 dates and date-times (UTC unless they have a zone; truncated to
microseconds), and the timestamps and dates of Parquet. A file must not mix numbers and dates.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from loopctr_tf.prepare.cells import (
    NUMBER,
    Problems,
    bools,
    cast_or_none,
    floats,
    is_text,
    numbers_of_text,
    occurring,
    trimmed,
    without,
)
from loopctr_tf.prepare.rejects import Problem

UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 0.001}
"""Microseconds per unit."""
EARLIEST, LATEST = -62_135_596_800_000_000, 32_503_680_000_000_000
"""The years 1 to 2999; other times are rejected."""

_ISO = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}(:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?)?)?"
_ZONE = r"(Z|[+-][0-9]{2}:?[0-9]{2}|[+-][0-9]{2})$"
_NAMED_ZONE = r"[ ]?(UTC|GMT|Z)$"


class Times:
    """Converts a time column of one file, batch by batch.

    Args:
      unit: "s", "ms", "us" or "ns", of numbers.
    """

    def __init__(self, unit: str):
        self._unit = unit
        self._dates: bool | None = None  # Set by the first text cell that is not missing.
        example = "an ISO date such as 2024-01-31 or 2024-01-31T12:00:00Z"
        self._not_time = Problem("not a time", f"write a number (time_unit is {unit}) or {example}")
        self._mixed = Problem(
            "a number among dates, or a date among numbers", "use one format for all times"
        )
        self._outside = Problem(
            "time outside the years 1 to 2999", f"is the unit right? time_unit is {unit}"
        )

    def __call__(self, array: pa.Array) -> tuple[pa.Array, Problems]:
        """(int64 microseconds, null for missing and bad cells; problems)."""
        if is_text(array.type):
            return self._of_text(array)
        if pa.types.is_temporal(array.type):
            return self._inside(_instants(array.cast(pa.timestamp("us"), safe=False)))
        return self._of_numbers(array)

    def _of_text(self, text: pa.Array) -> tuple[pa.Array, Problems]:
        if text.null_count == len(text):
            return pa.nulls(len(text), pa.int64()), []
        if self._dates is None:
            first = text.drop_null()[:1]
            self._dates = bool(bools(pc.match_substring_regex(trimmed(first), "^[0-9]{4}-"))[0])
        return self._of_dates(text) if self._dates else self._of_number_text(text)

    def _of_number_text(self, text: pa.Array) -> tuple[pa.Array, Problems]:
        whole = None
        if not pc.any(pc.match_substring_regex(text, "[xX]")).as_py():
            whole = cast_or_none(text, pa.int64())
        if whole is not None:
            return self._of_numbers(whole)
        numbers, problems = numbers_of_text(text)
        times, more = self._of_numbers(numbers)
        wrong = np.zeros(len(text), bool)
        for _, rows in problems:
            wrong |= rows
        dates = bools(pc.match_substring_regex(text, r"^\s*[0-9]{4}-"))
        return times, occurring(
            (self._mixed, wrong & dates), (self._not_time, wrong & ~dates)
        ) + more

    def _of_numbers(self, array: pa.Array) -> tuple[pa.Array, Problems]:
        factor = UNITS[self._unit]
        values, valid = floats(array)
        outside = valid & ~((values >= EARLIEST / factor) & (values < LATEST / factor))
        good = valid & ~outside
        if pa.types.is_integer(array.type):
            whole = without(array, ~good).cast(pa.int64()).fill_null(0).to_numpy()
            times = whole // 1000 if self._unit == "ns" else whole * factor
        else:
            times = np.rint(np.where(good, values, 0) * factor).astype(np.int64)
        return pa.array(times, mask=~good), occurring((self._outside, outside))

    def _of_dates(self, text: pa.Array) -> tuple[pa.Array, Problems]:
        times = cast_or_none(text, pa.timestamp("us"))
        if times is None:
            times = cast_or_none(text, pa.timestamp("us", "UTC"))
        if times is not None:
            return self._inside(_instants(times))
        text = pc.replace_substring_regex(trimmed(text), _NAMED_ZONE, "Z")
        text = pc.replace_substring_regex(text, r"(\.[0-9]{6})[0-9]+", r"\1")
        iso = bools(pc.match_substring_regex(text, _ISO + "$"))
        zoned = bools(pc.match_substring_regex(text, _ISO + _ZONE))
        plain_times = _calendar(without(text, ~iso), pa.timestamp("us"))
        zoned_times = _calendar(without(text, ~zoned), pa.timestamp("us", "UTC"))
        times = pc.coalesce(plain_times, zoned_times)
        wrong = bools(pc.and_(text.is_valid(), times.is_null()))
        numbers = bools(pc.match_substring_regex(text, NUMBER))
        times, outside = self._inside(times)
        mixed = occurring((self._mixed, wrong & numbers), (self._not_time, wrong & ~numbers))
        return times, mixed + outside

    def _inside(self, times: pa.Array) -> tuple[pa.Array, Problems]:
        outside = bools(pc.or_(pc.less(times, EARLIEST), pc.greater_equal(times, LATEST)))
        return without(times, outside), occurring((self._outside, outside))


def _instants(times: pa.Array) -> pa.Array:
    return times.cast(pa.int64())


def _calendar(text: pa.Array, kind: pa.DataType) -> pa.Array:
    """int64 microseconds of well-formed dates; null for impossible ones (February 30)."""
    times = cast_or_none(text, kind)
    if times is None:
        cells = [cast_or_none(text[row : row + 1], kind) for row in range(len(text))]
        nothing = pa.nulls(1, kind)
        times = pa.concat_arrays([nothing if cell is None else cell for cell in cells])
    return _instants(times)
