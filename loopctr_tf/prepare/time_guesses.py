"""Whether the values of a column could be times, in which format or unit, and which of them are not."""

from dataclasses import dataclass

_YEAR = "(199[5-9]|20[0-2][0-9]|203[0-4])"
_DAY = "(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])"
_HOUR = "([01][0-9]|2[0-3])"
_ISO = (
    r"\d{4}-\d{2}-\d{2}([T ]\d{2}(:\d{2}(:\d{2}(\.\d+)?)?)?)?( ?(Z|UTC|GMT|[+-]\d{2}(:?\d{2})?))?"
)
_FIRST, _LAST = 788_918_400, 2_051_222_400
"""1995 to 2034 in seconds; numbers in that range, in some unit, are taken for timestamps."""

_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_WRITTEN = {
    "ISO": _ISO,
    "YYYYMMDD": _YEAR + _DAY,
    "YYYYMMDDHH": _YEAR + _DAY + _HOUR,
    "YYYYMMDDHHMM": _YEAR + _DAY + _HOUR + "[0-5][0-9]",
    "YYYYMMDDHHMMSS": _YEAR + _DAY + _HOUR + "[0-5][0-9][0-5][0-9]",
    "YYYY/MM/DD": r"\d{4}/\d{1,2}/\d{1,2}([T ].*)?",
    "MM/DD/YYYY": r"\d{1,2}/\d{1,2}/\d{2,4}([T ].*)?",
    "DD.MM.YYYY": r"\d{1,2}\.\d{1,2}\.\d{2,4}([T ].*)?",
    "YYMMDDHH": "[0-3][0-9]" + _DAY + _HOUR,
}
"""Formats by the regular expression of the whole text."""
_READ = ("ISO", "YYYYMMDD", "YYYYMMDDHH", "YYYYMMDDHHMMSS")
"""Those that `loopctr prepare` reads."""
_MOST = 0.9
"""Share of the values that decides."""


@dataclass(frozen=True)
class TimeGuess:
    """How a column holds times.

    Attributes:
      format: of most values, e.g. "YYYYMMDD", or "s", "ms", "us" or "ns" since 1970.
      remark: what other values there are; empty if there are none.
      hint: what to write instead, for a format that `loopctr prepare` does not read; else empty.
    """

    format: str
    remark: str = ""
    hint: str = ""

    @property
    def unit(self) -> str | None:
        """Of numbers since 1970; None for dates."""
        return self.format if self.format in _UNITS else None


def guess_time(database, rows: int) -> TimeGuess | None:
    """The format of the text ``v`` or numbers ``n``, ``c`` times each, of the table ``flat``, if any.

    Most of the ``rows`` values decide; the remark counts the others.
    """
    cases = [
        f"WHEN regexp_full_match(v, '{regex}') THEN '{name}'" for name, regex in _WRITTEN.items()
    ]
    cases += [
        f"WHEN n >= {_FIRST * factor} AND n < {_LAST * factor} THEN '{unit}'"
        for unit, factor in _UNITS.items()
    ]
    found = database.execute(
        f"SELECT CASE {' '.join(cases)} WHEN n = 0 THEN 'zero' ELSE '' END AS format, sum(c)::BIGINT, "
        "first(v ORDER BY place) FROM flat GROUP BY format ORDER BY sum(c) DESC, format"
    ).fetchall()
    best, count, example = next(
        ((f, c, v) for f, c, v in found if f not in ("", "zero")), ("", 0, "")
    )
    units = sum(c for f, c, _ in found if f in _UNITS)
    if max(count, units if best in _UNITS else 0) < _MOST * rows:
        return None
    odd = []
    for name, number, value in found:
        if name != best:
            what = f"others in {name}" if name in _UNITS else f"others like {value!r}"
            odd.append(f"{what}: {number:,} of {rows:,}")
    remark = ", ".join(odd)
    hint = ""
    if best not in (*_READ, *_UNITS):
        hint = f"holds {example!r}, which looks like {best}; write ISO dates such as 2023-11-14 22:14:40"
    return TimeGuess(best, remark, hint)
