"""Describes the columns of a sample: what they hold, and how it is written."""

from dataclasses import dataclass
from typing import Any

from loopctr_tf.prepare.files import quoted
from loopctr_tf.prepare.raw_types import is_list, kind_of
from loopctr_tf.prepare.text_scan import literal
from loopctr_tf.prepare.time_guesses import TimeGuess, guess_time
from loopctr_tf.prepare.typed import WantedColumn, typed

PLACE = "__place"
"""Column of a sample that numbers its rows."""
_SEPARATORS = "|;^, "
_NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_COMMAS = r"[+-]?(\d{1,3}(,\d{3})+(\.\d+)?|\d+,\d{1,2}|\d+(\.\d+)?)"


@dataclass(frozen=True)
class Profile:
    """A column of the sample.

    Attributes:
      name: of the column.
      kind: "whole" (numbers), "number", "text", "date" (any format), "bool" or "other" (no values).
      rows: number of values (of list elements).
      missing: rows without a value.
      distinct: number of distinct values (list elements).
      commonest: up to six values, the most common first.
      most_common: share of the most common value.
      least, most, median: of numbers.
      characters: mean length of text.
      time: how the values could be times.
      longest: length of the longest list; None for a column of single values.
      typical, usual: lengths that half and 99% of the lists have at most.
      separator: between the elements of a list in text; None for lists in brackets.
      remark: what is odd about the values.
      looked_at: number of rows in the sample.
      absent: number of files that lack the column.
    """

    name: str
    kind: str
    rows: int
    missing: int
    distinct: int
    commonest: tuple[str, ...] = ()
    most_common: float = 0.0
    least: float = 0.0
    most: float = 0.0
    median: float = 0.0
    characters: float = 0.0
    time: TimeGuess | None = None
    longest: int | None = None
    typical: int = 0
    usual: int = 0
    separator: str | None = None
    remark: str = ""
    looked_at: int = 0
    absent: int = 0


def profile_of(database, name: str, kind: str) -> Profile:
    """The profile of a column; a column of lists in text becomes one of lists."""
    column, listed, separator = quoted(name), is_list(kind), None
    if kind == "VARCHAR":
        split, separator = _split(database, name)
        if split is not None:
            database.execute(f"ALTER TABLE sample ALTER {column} TYPE VARCHAR[] USING {split}")
            listed = True
    facts: dict[str, Any] = {"name": name, "separator": separator}
    missing = f"coalesce(len({column}), 0) = 0" if listed else f"{column} IS NULL"
    facts["missing"] = _one(database, f"SELECT count(*) FROM sample WHERE {missing}")[0]
    if listed:
        lengths = _one(
            database,
            "SELECT max(n), quantile_disc(n, 0.5), quantile_disc(n, 0.99) "
            f"FROM (SELECT len({column}) AS n FROM sample) WHERE n > 0",
        )
        facts |= zip(("longest", "typical", "usual"), (n or 0 for n in lengths), strict=True)
    # Each different value with its number of rows.
    number = f"CASE WHEN regexp_full_match(v, {literal(_NUMBER)}) THEN TRY_CAST(v AS DOUBLE) END"
    value = f"unnest({column})" if listed else column
    database.execute(
        f"CREATE OR REPLACE TEMP TABLE flat AS SELECT v, {number} AS n, count(*) AS c, "
        f"min(place) AS place FROM (SELECT {value} AS v, {PLACE} AS place FROM sample) "
        "WHERE v IS NOT NULL GROUP BY v"
    )
    rows, distinct, characters, numbers, least, most, whole, zeros = _one(
        database,
        "SELECT coalesce(sum(c), 0)::BIGINT, count(*), sum(c * length(v)) / sum(c), "
        "coalesce(sum(c) FILTER (WHERE n IS NOT NULL), 0)::BIGINT, min(n), max(n), "
        "bool_and(n = trunc(n)), count(*) FILTER (WHERE regexp_matches(v, '^0[0-9]')) FROM flat",
    )
    facts |= {"rows": rows, "distinct": distinct}
    if not rows:
        return Profile(kind="other", **facts)
    common = database.execute("SELECT v, c FROM flat ORDER BY c DESC, place LIMIT 6").fetchall()
    facts |= {"commonest": tuple(v for v, _ in common), "most_common": common[0][1] / rows}
    facts["characters"] = characters
    if kind_of(kind) in ("bool", "time"):
        return Profile(kind={"bool": "bool", "time": "date"}[kind_of(kind)], **facts)
    if set(facts["commonest"]) <= {"true", "false"}:
        return Profile(kind="bool", **facts)
    facts["time"] = None if listed else guess_time(database, rows)
    # As a number, a code such as 00123 would lose its zeros.
    if numbers == rows and not (kind == "VARCHAR" and zeros):
        (median,) = _one(
            database,
            "SELECT min(n) FROM (SELECT n, sum(c) OVER (ORDER BY n) AS upto FROM flat) "
            f"WHERE 2 * upto >= {rows}",
        )
        facts |= {"least": least, "most": most, "median": median}
        return Profile(kind="whole" if whole else "number", **facts)
    if facts["time"] is not None and facts["time"].unit is None:
        return Profile(kind="date", **facts)
    return Profile(kind="text", remark=_remark(database, rows, numbers), **facts)


def _remark(database, rows: int, numbers: int) -> str:
    """What is odd about text that is nearly all numbers."""
    commas, odd = _one(
        database,
        f"SELECT sum(c) FILTER (WHERE regexp_full_match(v, {literal(_COMMAS)})), "
        "first(v ORDER BY place) FILTER (WHERE n IS NULL) FROM flat",
    )
    if (commas or 0) >= 0.9 * rows > numbers:
        return "looks like numbers with commas: write 1234.00"
    if rows > numbers >= 0.9 * rows:
        return f"{rows - numbers:,} of {rows:,} values are not numbers, such as {odd!r}"
    return ""


def _one(database, sql: str) -> tuple:
    return database.execute(sql).fetchone()


def _split(database, name: str) -> tuple[str | None, str | None]:
    """(SQL that makes lists of a column that seems to hold lists in text, the separator)."""
    column = quoted(name)
    rows, brackets, commas, cells = _one(
        database,
        rf"SELECT count(*), count(*) FILTER (WHERE regexp_full_match({column}, '\[.*\]')), "
        f"count(*) FILTER (WHERE regexp_full_match({column}, {literal(_COMMAS)})), "
        f"count(DISTINCT {column}) FROM (SELECT {column} FROM sample WHERE {column} IS NOT NULL)",
    )
    if not rows:
        return None, None
    if brackets == rows:
        return _elements(name), None
    for separator in _SEPARATORS:
        if separator == "," and commas >= 0.9 * rows:
            continue
        split = _elements(name, separator)
        (holding,) = _one(
            database, f"SELECT count(*) FROM sample WHERE contains({column}, {literal(separator)})"
        )
        if holding < 0.2 * rows:
            continue
        values, plain, longest = _one(
            database,
            "SELECT count(DISTINCT v), bool_and(regexp_full_match(v, '[A-Za-z0-9_.:-]+')), "
            f"max(length(v)) FROM (SELECT unnest({split}) AS v FROM sample)",
        )
        # Lists share values; sentences and addresses rarely do.
        if values * 2 <= cells and longest <= 40:
            if separator in "|;^" or plain:
                return split, separator
        elif separator in "|^" and plain:
            return split, separator
    return None, None


def _elements(name: str, separator: str | None = None) -> str:
    return typed(WantedColumn(name, "string", separator, many=True), "VARCHAR").value
