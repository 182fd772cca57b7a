"""How a raw value is spelt, whatever it came as: one rule for Python's values and Arrow's arrays.

- ``MISSING_WORDS`` (in any case, with or without blanks around), None and NaN are missing values.
- A whole number may come as any integer, as a double below 2^53, or as text ("117", "117.0", "1e3").
  From 2^53 on doubles stand for several whole numbers: such a double, or its text, is refused, never
  rounded.
- Text is taken without blanks around it; whole doubles lose their fraction (``117.0`` and "117.0" are
  "117"), decimals the zeros at their end ("5.50" is "5.5"), truth values are "true" and "false", and as
  numbers 1 and 0. Everything else stays as it is: "007", "1e5", "a.0".

The functions of one value are the rule; those of many apply it to each different value once, and only
where something may change. Needs neither TensorFlow nor pandas.
"""

import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MISSING_WORDS = ("", "nan", "null", "none", "na", "n/a", "\\n")
"""Compared in lower case, without blanks around."""
EXACT = 2**53
"""Doubles from here on stand for several whole numbers."""
INEXACT = "beyond 2^53 and not stored as a whole number; store it as int64 or as text"

_BLANKS = r"[\s\p{Z}\x{85}\x0b\x1c-\x1f]"
_RESPELT = (
    rf"(?i)^{_BLANKS}|{_BLANKS}$|^(nan|null|none|na|n/a|\\n|true|false)?$|^-?[0-9]+\.[0-9]*0$"
)
_PLAIN = r"^-?[0-9]{1,18}$"
_WHOLE = re.compile(r"[+-]?[0-9]+")
_WHOLE_DOUBLE = re.compile(r"(-?(?:0|[1-9][0-9]*))\.0+")
_ENDS_IN_ZERO = re.compile(r"(-?(?:0|[1-9][0-9]*)\.[0-9]*?)0+")
_TRUTH = {"false": 0, "true": 1}
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf(inity)?", re.I)


class BadValueError(ValueError):
    """A value that cannot be taken.

    Attributes:
      position: of the first such value, from 0.
      value: as it came.
      problem: what is wrong with it, and the remedy.
    """

    def __init__(self, position: int, value: Any, problem: str):
        super().__init__(f"value {position} is {value!r}, {problem}")
        self.position, self.value, self.problem = position, value, problem


def id_text(value: Any, exact: int = EXACT) -> str | None:
    """``value`` as an id of a table with ``dtype: string``; None if it is missing.

    Args:
      value: text, a number, a truth value, or None.
      exact: where doubles begin to stand for several whole numbers; less for narrower floats.

    Raises:
      ValueError: whose text is the problem.
    """
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (float, np.floating)):
        if math.isnan(value):
            return None
        return str(_whole_double(value, exact)) if _is_whole(value) else repr(float(value))
    if value is None:
        return None
    text = str(value).strip()
    lower = text.lower()
    if lower in MISSING_WORDS:
        return None
    if lower in ("true", "false"):
        return lower
    whole = _WHOLE_DOUBLE.fullmatch(text)
    if whole is None:
        ends_in_zero = _ENDS_IN_ZERO.fullmatch(text)
        return text if ends_in_zero is None else ends_in_zero[1]
    if not isinstance(value, Decimal):
        _whole_double(float(text), exact)
    return "0" if whole[1] == "-0" else whole[1]


def whole_number(value: Any, exact: int = EXACT) -> int | None:
    """``value`` as int64; None if it is missing. Args and errors are those of :func:`id_text`."""
    if isinstance(value, (str, bytes)):
        text = value.decode() if isinstance(value, bytes) else value
        text = text.strip()
        if text.lower() in MISSING_WORDS:
            return None
        if text.lower() in _TRUTH:
            return _TRUTH[text.lower()]
        if _WHOLE.fullmatch(text):
            # Python refuses to make an int of thousands of digits.
            digits = text.lstrip("+-").lstrip("0")
            value = int(text) if len(digits) <= 19 else 2**64
        elif _NUMBER.fullmatch(text):
            value = float(text)
        else:
            raise ValueError("not a whole number")
    if value is None:
        return None
    if isinstance(value, (float, np.floating)):
        if math.isnan(value):
            return None
        if not _is_whole(value):
            raise ValueError("not a whole number")
        return _whole_double(value, exact)
    if isinstance(value, Decimal) and value != value.to_integral_value():
        raise ValueError("not a whole number")
    if not isinstance(value, (int, np.integer, np.bool_, Decimal)):
        raise ValueError("not a whole number")
    number = int(value)
    if not -(2**63) <= number < 2**63:
        raise ValueError("beyond int64")
    return number


def number(value: Any) -> float | None:
    """``value`` as a float; None if it is missing. ValueError, whose text is the problem."""
    if isinstance(value, (str, bytes)):
        text = value.decode() if isinstance(value, bytes) else value
        text = text.strip()
        if text.lower() in MISSING_WORDS:
            return None
        if text.lower() in _TRUTH:
            return float(_TRUTH[text.lower()])
        if not _NUMBER.fullmatch(text):
            raise ValueError("not a number")
        value = text
    try:
        found = float("nan" if value is None else value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError("not a number") from error
    return None if math.isnan(found) else found


def _is_whole(value: float) -> bool:
    return math.isfinite(value) and value == math.floor(value)


def _whole_double(value: float, exact: int) -> int:
    if abs(value) >= exact:
        raise ValueError(INEXACT.replace("2^53", f"2^{exact.bit_length() - 1}"))
    return int(value)


def exact_limit(dtype: np.dtype) -> int:
    """:data:`EXACT` for a floating type of any width."""
    return 2 ** (np.finfo(dtype).nmant + 1)


def id_texts(values: pa.Array | Sequence[Any]) -> pa.Array:
    """:func:`id_text` of each, as string with null for missing ones; BadValueError."""
    if not isinstance(values, pa.Array):
        return pa.array(_each(values, id_text), pa.string())
    if pa.types.is_integer(values.type):
        return values.cast(pa.string())
    if _is_text(values.type):
        values = _utf8(values)
        odd = pc.match_substring_regex(values, _RESPELT)
        if not pc.any(odd).as_py():
            return values
    return _by_value(values, id_text, pa.string())


def whole_numbers(values: pa.Array | Sequence[Any]) -> pa.Array:
    """:func:`whole_number` of each, as int64 with null for missing ones; BadValueError."""
    if not isinstance(values, pa.Array):
        return pa.array(_each(values, whole_number), pa.int64())
    kind = values.type
    if pa.types.is_boolean(kind) or (pa.types.is_integer(kind) and kind != pa.uint64()):
        return values.cast(pa.int64())
    if pa.types.is_floating(kind):
        floats = pc.fill_null(values, np.nan).to_numpy(zero_copy_only=False)
        return pa.array(whole_floats(floats, missing=-1), mask=np.isnan(floats))
    if _is_text(kind):
        values = _utf8(values)
        if pc.all(pc.match_substring_regex(values, _PLAIN)).as_py():
            return values.cast(pa.int64())
    return _by_value(values, whole_number, pa.int64())


def numbers(values: pa.Array | Sequence[Any]) -> pa.Array:
    """:func:`number` of each, as float64 with null for missing ones; BadValueError."""
    if not isinstance(values, pa.Array):
        return pa.array(_each(values, number), pa.float64())
    if pa.types.is_floating(values.type) or pa.types.is_integer(values.type):
        return values.cast(pa.float64(), safe=False)
    return _by_value(values, number, pa.float64())


def whole_floats(values: np.ndarray, missing: int | None = None) -> np.ndarray:
    """Floats as int64, exactly.

    Args:
      values: of any shape.
      missing: what stands for NaN; None refuses it.

    Raises:
      BadValueError: with a position in the flattened ``values``.
    """
    nan = np.isnan(values)
    exact = exact_limit(values.dtype)
    with np.errstate(invalid="ignore"):
        bad = ~(np.abs(values) < exact) | (values != np.rint(values))
    if missing is not None:
        bad &= ~nan
    if bad.any():
        position = int(np.flatnonzero(bad)[0])
        value = values.ravel()[position].item()
        if not math.isfinite(value) or value != math.floor(value):
            raise BadValueError(position, value, "not a whole number")
        try:
            _whole_double(value, exact)
        except ValueError as error:
            raise BadValueError(position, value, str(error)) from None
    return np.where(nan, 0 if missing is None else missing, values).astype(np.int64)


def respelt(texts: list[str]) -> list[str]:
    """:func:`id_text` of each of a list of text, "" for missing ones; fast where nothing changes."""
    array = pa.array(texts, pa.string())
    odd = pc.match_substring_regex(array, _RESPELT)
    # An empty text is its own spelling, and the most frequent one in padding.
    places = pc.indices_nonzero(pc.and_(odd, pc.not_equal(array, ""))).to_pylist()
    if not places:
        return texts
    found = list(texts)
    for place in places:
        try:
            found[place] = id_text(texts[place]) or ""
        except ValueError as error:
            raise BadValueError(place, texts[place], str(error)) from None
    return found


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return kind in (
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.large_binary(),
    )


def _utf8(values: pa.Array) -> pa.Array:
    try:
        return values.cast(pa.string())
    except pa.ArrowInvalid as error:
        raise BadValueError(0, "bytes", "not UTF-8; convert it") from error


def _each(values: Sequence[Any], rule: Callable[[Any], Any]) -> list[Any]:
    found = []
    for position, value in enumerate(values):
        try:
            found.append(rule(value))
        except ValueError as error:
            raise BadValueError(position, value, str(error)) from None
    return found


def _by_value(values: pa.Array, rule: Callable[..., Any], kind: pa.DataType) -> pa.Array:
    """``rule`` of each different value."""
    exact = EXACT
    if pa.types.is_floating(values.type):
        exact = exact_limit(values.type.to_pandas_dtype())
    coded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
    made = []
    for code, value in enumerate(coded.dictionary.to_pylist()):
        try:
            made.append(rule(value) if rule is number else rule(value, exact))
        except ValueError as error:
            position = pc.index(coded.indices, code).as_py()
            if position >= 0:  # a dictionary may hold more than is used
                raise BadValueError(position, value, str(error)) from None
            made.append(None)
    return pa.array(made, kind).take(coded.indices)
