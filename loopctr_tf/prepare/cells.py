"""Converts Arrow arrays of any type to a wanted type, and says which rows are bad and why.

Accepted values by wanted type (an empty cell of a text file is missing; missing values become null):

- ``string``: text of one line without NUL. Numbers become digits, whole ones without ".0".
- ``int64``: whole numbers; also "3.0" and columns of doubles, up to 2^53, where doubles are exact.
- ``float32``: finite numbers.
- ``binary``: 0 or 1, also as 0.0, 1.0, false and true; int8.
- ``time``: see ``times``.

In numeric columns NaN and ``MISSING_WORDS`` are missing values. Spaces around numbers are ignored.
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from loopctr_tf.prepare.rejects import Problem

MISSING_WORDS = ("", "nan", "null", "none", "na", "n/a", "\\n")
EXACT = 2**53
"""Doubles hold all whole numbers up to this one exactly."""
INT64 = np.iinfo(np.int64)

NUL = Problem("NUL byte", "the file is damaged there, write it again")
NOT_UTF8 = Problem("not UTF-8", "convert the file, e.g. with iconv -t UTF-8")
LINE_BREAK = Problem("line break in a value", "replace line breaks in it")
NOT_NUMBER = Problem("not a number", "write a number, and nothing for a missing one")
NOT_WHOLE = Problem("not a whole number", "write a whole number, or give the table dtype: string")
TOO_LARGE = Problem("beyond int64", "give the table dtype: string")
INEXACT = Problem(
    "beyond 2^53 and not stored as a whole number", "store the column as int64 or as text"
)
INFINITE = Problem("infinite or beyond float32", "replace it by a number, or by nothing")
NOT_BINARY = Problem("label other than 0 and 1", "write 0 or 1")

Problems = list[tuple[Problem, np.ndarray]]
"""Problems, each with a bool [rows] mask; a row has at most one."""

_WHOLE = r"^[+-]?[0-9]+$"
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_INFINITY = r"^[+-]?inf(inity)?$"
_BINARY = ({"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1}).items()


def bools(array: pa.Array) -> np.ndarray:
    """A boolean Arrow array as a NumPy array; null becomes False."""
    return pc.fill_null(array, False).to_numpy(zero_copy_only=False)


def without(array: pa.Array, rows: np.ndarray) -> pa.Array:
    """``array`` with null where ``rows`` is true."""
    return pc.if_else(pa.array(rows), pa.scalar(None, array.type), array) if rows.any() else array


def occurring(*problems: tuple[Problem, np.ndarray]) -> Problems:
    """The ``problems`` that at least one row has."""
    return [(problem, rows) for problem, rows in problems if rows.any()]


def cast_or_none(array: pa.Array, kind: pa.DataType) -> pa.Array | None:
    """``array`` as ``kind``, or None if one of its values does not fit."""
    try:
        return array.cast(kind)
    except pa.ArrowInvalid:
        return None


def checked_text(array: pa.Array, most: int, one_line: bool) -> tuple[pa.Array, Problems]:
    """Bytes as text; empty cells become null.

    Args:
      array: text or binary.
      most: maximum bytes of a cell.
      one_line: whether a line break is a problem.

    Returns:
      (string array with null for bad cells, the problems).
    """
    if pa.types.is_large_string(array.type):
        array = array.cast(pa.large_binary())
    raw = array.cast(pa.binary())
    sizes = np.diff(_offsets(raw))
    long = sizes > most
    problems = occurring((too_long(most), long))
    raw = without(raw, long | (sizes == 0))
    start, end = _offsets(raw)[[0, -1]]
    if end > start:
        # Scan all bytes once; search cell by cell only if a control character occurs.
        least = np.frombuffer(raw.buffers()[2], np.uint8)[start:end].min()
        if least == 0:
            nul = bools(pc.match_substring(raw, "\0"))
            raw, problems = without(raw, nul), problems + occurring((NUL, nul))
        if least <= 13 and one_line:
            broken = bools(pc.match_substring_regex(raw, r"[\r\n]"))
            raw, problems = without(raw, broken), problems + occurring((LINE_BREAK, broken))
    text = cast_or_none(raw, pa.string())
    if text is None:
        wrong = np.array([not _is_utf8(value) for value in raw.to_pylist()])
        text, problems = without(raw, wrong).cast(pa.string()), [*problems, (NOT_UTF8, wrong)]
    return text, problems


def _offsets(raw: pa.BinaryArray) -> np.ndarray:
    return np.frombuffer(raw.buffers()[1], np.int32)[raw.offset : raw.offset + len(raw) + 1]


def too_long(most: int) -> Problem:
    """The problem of a cell with more than ``most`` bytes."""
    return Problem(f"cell of more than {most:,} bytes", "shorten it or leave the column out")


def _is_utf8(value: bytes | None) -> bool:
    try:
        (value or b"").decode()
    except UnicodeDecodeError:
        return False
    return True


def trimmed(text: pa.Array) -> pa.Array:
    """Numbers as text without surrounding spaces; null for ``MISSING_WORDS``."""
    text = pc.utf8_trim_whitespace(text)
    missing = pc.is_in(pc.utf8_lower(text), value_set=pa.array(MISSING_WORDS))
    return without(text, bools(missing))


def strings(array: pa.Array) -> tuple[pa.Array, Problems]:
    """Text unchanged, other types as text."""
    if pa.types.is_floating(array.type):
        values, valid = floats(array)
        inexact = valid & (np.abs(values) > EXACT)
        whole = valid & ~inexact & (values == np.rint(values))
        digits = pa.array(np.where(whole, values, 0).astype(np.int64)).cast(pa.string())
        other = pa.array(values, mask=~valid | inexact).cast(pa.string())
        return pc.if_else(pa.array(whole), digits, other), occurring((INEXACT, inexact))
    return array.cast(pa.string()), []


def floats(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(float64 values, which rows have a value); NaN is missing."""
    doubles = array.cast(pa.float64(), safe=False)
    values = pc.fill_null(doubles, np.nan).to_numpy(zero_copy_only=False)
    return values, ~np.isnan(values)


def whole_numbers(array: pa.Array) -> tuple[pa.Array, Problems]:
    """int64 from text, floats, integers of any width and booleans."""
    if pa.types.is_boolean(array.type):
        return array.cast(pa.int64()), []
    if pa.types.is_integer(array.type):
        beyond = np.zeros(len(array), bool)
        if array.type == pa.uint64():
            beyond = bools(pc.greater(array, pa.scalar(INT64.max, pa.uint64())))
        return without(array, beyond).cast(pa.int64()), occurring((TOO_LARGE, beyond))
    if pa.types.is_floating(array.type):
        return _whole_doubles(*floats(array))
    # Arrow would read 0x10 as 16.
    if not pc.any(pc.match_substring_regex(array, "[xX]")).as_py():
        numbers = cast_or_none(array, pa.int64())
        if numbers is not None:
            return numbers, []
    text = trimmed(array)
    plain = bools(pc.match_substring_regex(text, _WHOLE))
    digits = pc.replace_substring_regex(without(text, ~plain), r"^\+", "")
    beyond = np.zeros(len(text), bool)
    # 2^63 - 1 has 19 digits; shorter numbers fit.
    for row in np.flatnonzero(bools(pc.greater_equal(pc.binary_length(digits), 19))):
        beyond[row] = not _fits_int64(digits[row].as_py())
    exact = without(digits, beyond).cast(pa.int64())
    numbers, rest = numbers_of_text(without(text, plain))
    doubles, problems = _whole_doubles(*floats(numbers))
    both = pc.coalesce(exact, doubles)
    return both, [*occurring((TOO_LARGE, beyond)), *rest, *problems]


def _fits_int64(digits: str) -> bool:
    size = digits.lstrip("-").lstrip("0")
    # Python refuses to make an int of thousands of digits.
    if len(size) > 19:
        return False
    return int(size or 0) <= (-int(INT64.min) if digits[0] == "-" else INT64.max)


def _whole_doubles(values: np.ndarray, valid: np.ndarray) -> tuple[pa.Array, Problems]:
    with np.errstate(invalid="ignore"):
        broken = valid & (values != np.rint(values)) | np.isinf(values)
        inexact = valid & ~broken & (np.abs(values) > EXACT)
    good = valid & ~broken & ~inexact
    whole = np.where(good, values, 0).astype(np.int64)
    return pa.array(whole, mask=~good), occurring((NOT_WHOLE, broken), (INEXACT, inexact))


def numbers_of_text(text: pa.Array) -> tuple[pa.Array, Problems]:
    """float64 from text; may contain NaN and infinities, which the caller checks."""
    numbers = cast_or_none(text, pa.float64())
    if numbers is not None:
        return numbers, []
    text = trimmed(text)
    well = bools(pc.match_substring_regex(text, NUMBER))
    well |= bools(pc.match_substring_regex(text, _INFINITY, ignore_case=True))
    wrong = ~well & bools(text.is_valid())
    return without(text, ~well).cast(pa.float64()), occurring((NOT_NUMBER, wrong))


def finite_numbers(array: pa.Array) -> tuple[pa.Array, Problems]:
    """float32 from text and numbers of any type."""
    problems: Problems = []
    if is_text(array.type):
        array, problems = numbers_of_text(array)
    values, valid = floats(array)
    beyond = valid & ~(np.abs(values) <= np.finfo(np.float32).max)
    good = valid & ~beyond
    narrow = np.where(good, values, 0).astype(np.float32)
    return pa.array(narrow, mask=~good), problems + occurring((INFINITE, beyond))


def binary_labels(array: pa.Array) -> tuple[pa.Array, Problems]:
    """int8, 0 or 1, from text, numbers and booleans."""
    if is_text(array.type):
        text = pc.utf8_lower(trimmed(array))
        known = pa.array([word for word, _ in _BINARY])
        labels = pa.array([label for _, label in _BINARY], pa.int8())
        values = labels.take(pc.index_in(text, value_set=known))
        wrong = bools(pc.and_(text.is_valid(), values.is_null()))
        return values, occurring((NOT_BINARY, wrong))
    values, valid = floats(array.cast(pa.int8()) if pa.types.is_boolean(array.type) else array)
    good = valid & np.isin(values, (0.0, 1.0))
    labels = np.where(good, values, 0).astype(np.int8)
    return pa.array(labels, mask=~good), occurring((NOT_BINARY, valid & ~good))


def is_text(kind: pa.DataType) -> bool:
    """Whether ``kind`` is text or bytes."""
    return any(
        is_kind(kind)
        for is_kind in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_fixed_size_binary,
        )
    )


CONVERTERS: dict[str, tuple[pa.DataType, Callable[[pa.Array], tuple[pa.Array, Problems]]]] = {
    "string": (pa.string(), strings),
    "int64": (pa.int64(), whole_numbers),
    "float32": (pa.float32(), finite_numbers),
    "binary": (pa.int8(), binary_labels),
}
"""WantedColumn type -> (Arrow type of its values, converter)."""
