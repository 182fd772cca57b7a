"""SQL that reads times as int64 microseconds since 1970-01-01T00:00:00Z.

Takes numbers in a unit, ISO 8601 dates and date-times (UTC unless they have a zone; truncated to
microseconds), and timestamps and dates. If the unit is "s", whole numbers that are plausible dates
(YYYYMMDD, YYYYMMDDHH or YYYYMMDDHHMMSS of the years 1990 to 2035) are dates.
"""

from loopctr_tf.prepare.text_scan import literal

UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 0.001}
"""Microseconds per unit."""
EARLIEST, LATEST = -62_135_596_800_000_000, 32_503_680_000_000_000
"""The years 1 to 2999; other times are rejected."""
NOT_TIME = "not a time"
SLASHED = "a date with slashes or dots"
OUTSIDE = "time outside the years 1 to 2999"

_PLAIN = {"s": (20_360_000, 1_990_000_000)}
"""Numbers that are no dates by any reading."""

Cases = list[tuple[str, str]]
"""(condition, expression) pairs, of which the first true condition counts."""

_DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_SHORT = f"'^{_DAY}([T ][0-9]{{2}}:[0-9]{{2}}(:[0-9]{{2}})?)?$'"
_ZONE = "( ?(Z|UTC|GMT)|[+-][0-9]{2}:?[0-9]{2}|[+-][0-9]{2})"
_CLOCK = "[T ][0-9]{2}(:[0-9]{2}(:[0-9]{2}([.][0-9]+)?)?)?"
_LONG = f"'^{_DAY}({_CLOCK}{_ZONE}?| ?(Z|UTC|GMT))?$'"
_WHOLE = "'^[+-]?[0-9]+$'"
_NUMBER = "'^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?$'"
_SLASHES = "'^[0-9]{1,4}[/.][0-9]{1,2}[/.][0-9]{1,4}'"


def cases(whens: Cases, otherwise: str = "NULL") -> str:
    """A CASE expression."""
    if not whens:
        return otherwise
    return f"CASE {' '.join(f'WHEN {c} THEN {e}' for c, e in whens)} ELSE {otherwise} END"


class TimeSql:
    """Expressions of times.

    Args:
      unit: "s", "ms", "us" or "ns", of numbers.
    """

    def __init__(self, unit: str):
        self._unit, self._factor = unit, UNITS[unit]
        self._least = int(EARLIEST / self._factor)
        self._most = int(LATEST / self._factor) - 1

    def of_text(self, x: str, text: str) -> tuple[str, str, Cases]:
        """Expressions of a cell ``x``, which is ``text`` without blanks around it.

        Returns:
          (microseconds, whether the cell is plainly fine, problems of others).
        """
        whole, stamp = f"TRY_CAST({x} AS BIGINT)", f"TRY_CAST({x} AS TIMESTAMP)"
        low, high = _PLAIN.get(self._unit, (self._least, self._most))
        # Nested, because DuckDB evaluates both sides of AND in the order it likes.
        is_dashed = f"{x} LIKE '____-__-__%'"
        span = "BETWEEN TIMESTAMP '0001-01-01 00:00:00' AND TIMESTAMP '2999-12-31 23:59:59'"
        iso = cases([(f"regexp_matches({x}, {_SHORT})", f"{stamp} {span}")], "FALSE")
        digits = cases(
            [(f"{whole} BETWEEN {low} AND {high}", f"CAST({whole} AS VARCHAR) = {x}")], "FALSE"
        )
        plain = cases([(is_dashed, iso)], digits)
        number = f"regexp_matches({text}, {_NUMBER})"
        long = f"regexp_matches({text}, {_LONG})"
        zoned = _zoned(text)
        odd = cases(
            [
                (f"regexp_matches({text}, {_WHOLE})", self._whole(f"TRY_CAST({text} AS BIGINT)")),
                (number, self._double(f"TRY_CAST({text} AS DOUBLE)")),
                (long, _inside(zoned)),
            ]
        )
        known = cases([(is_dashed, _instant(stamp))], self._micros(whole))
        return (
            cases([(plain, known)], odd),
            plain,
            [
                (f"({odd}) IS NOT NULL", "NULL"),
                (number, literal(OUTSIDE)),
                (f"{long} AND {zoned} IS NOT NULL", literal(OUTSIDE)),
                (f"regexp_matches({text}, {_SLASHES})", literal(SLASHED)),
                ("TRUE", literal(NOT_TIME)),
            ],
        )

    def of_whole(self, x: str) -> tuple[str, Cases]:
        """(microseconds, problems) of a whole number of any width."""
        return _checked(self._whole(f"TRY_CAST({x} AS BIGINT)"))

    def of_double(self, x: str) -> tuple[str, Cases]:
        """(microseconds, problems) of a double."""
        return _checked(self._double(x))

    def of_timestamp(self, x: str) -> tuple[str, Cases]:
        """(microseconds, problems) of a timestamp."""
        return _checked(_inside(_instant(x)))

    def _micros(self, n: str) -> str:
        if self._unit == "ns":
            return f"({n} - ({n} % 1000 + 1000) % 1000) // 1000"
        return f"{n} * {self._factor}"

    def _whole(self, n: str) -> str:
        """Microseconds of a whole number, which may be a date; NULL outside the years."""
        micros = self._micros(n)
        inside = (f"{n} BETWEEN {self._least} AND {self._most}", micros)
        if self._unit != "s":
            return cases([inside])
        day, hour, second = (_calendar(n, cut) for cut in (1, 100, 1_000_000))
        clock = f"{n} // 10000 % 100 * 3600 + {n} // 100 % 100 * 60 + {n} % 100"
        return cases(
            [
                ("{} BETWEEN {} AND {}".format(n, *_PLAIN["s"]), micros),
                (f"{n} BETWEEN 19900101 AND 20351231 AND {day} IS NOT NULL", _days(day)),
                (
                    f"{n} BETWEEN 1990010100 AND 2035123123 AND {n} % 100 < 24 AND {hour} IS NOT NULL",
                    f"{_days(hour)} + {n} % 100 * 3600000000",
                ),
                (
                    f"{n} BETWEEN 19900101000000 AND 20351231235959 AND {n} // 10000 % 100 < 24 "
                    f"AND {n} // 100 % 100 < 60 AND {n} % 100 < 60 AND {second} IS NOT NULL",
                    f"{_days(second)} + ({clock}) * 1000000",
                ),
                inside,
            ]
        )

    def _double(self, d: str) -> str:
        low, high, factor = (float(v) for v in (self._least, self._most + 1, self._factor))
        return cases(
            [
                (f"{d} = floor({d}) AND abs({d}) < 9e15", self._whole(f"CAST({d} AS BIGINT)")),
                (f"{d} >= {low!r} AND {d} < {high!r}", f"CAST(round({d} * {factor!r}) AS BIGINT)"),
            ]
        )


def _checked(value: str) -> tuple[str, Cases]:
    return value, [(f"({value}) IS NULL", literal(OUTSIDE))]


def _calendar(n: str, cut: int) -> str:
    """The date whose digits YYYYMMDD are those of ``n`` // ``cut``; NULL if there is none."""
    text = f"CAST({n} // {cut} AS VARCHAR)"
    digits = f"substr({text}, 1, 4) || '-' || substr({text}, 5, 2) || '-' || substr({text}, 7, 2)"
    return f"TRY_CAST({digits} AS DATE)"


def _days(date: str) -> str:
    return f"CAST(date_diff('day', DATE '1970-01-01', {date}) AS BIGINT) * 86400000000"


def _instant(timestamp: str) -> str:
    return f"date_diff('microsecond', TIMESTAMP '1970-01-01 00:00:00', {timestamp})"


def _inside(micros: str) -> str:
    return cases([(f"{micros} BETWEEN {EARLIEST} AND {LATEST - 1}", micros)])


def _zoned(text: str) -> str:
    """Microseconds of an ISO date-time that may have a zone."""
    without = f"regexp_replace({text}, '{_ZONE}$', '')"
    local = cases([(f"length({text}) > 10", without)], text)
    zone = f"substr({text}, length({local}) + 1)"
    minutes = cases([(f"length({zone}) > 3", f"TRY_CAST(right({zone}, 2) AS BIGINT)")], "0")
    offset = f"(TRY_CAST(substr({zone}, 2, 2) AS BIGINT) * 60 + {minutes}) * 60000000"
    moment = cases([(f"length({local}) = 13", f"{local} || ':00'")], f"left({local}, 26)")
    shift = cases([(f"{zone} LIKE '+%'", offset), (f"{zone} LIKE '-%'", f"-{offset}")], "0")
    return f"({_instant(f'TRY_CAST({moment} AS TIMESTAMP)')} - {shift})"
