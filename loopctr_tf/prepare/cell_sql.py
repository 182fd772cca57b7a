"""SQL of single cells: values of a wanted type, and what is wrong with them. See ``typed``."""

from typing import NamedTuple

from loopctr_tf.features.values import EXACT, MISSING_WORDS
from loopctr_tf.prepare.raw_types import kind_of
from loopctr_tf.prepare.text_scan import literal
from loopctr_tf.prepare.time_sql import NOT_TIME, OUTSIDE, SLASHED, Cases, TimeSql, cases

CELL_LIMIT = 1 << 20
"""Maximum characters of a cell of text."""

MISSING = "missing"
LONG = f"cell of more than {CELL_LIMIT:,} characters"
NUL = "NUL byte"
NOT_UTF8 = "not UTF-8"
LINE_BREAK = "line break in a value"
NOT_NUMBER = "not a number"
NOT_WHOLE = "not a whole number"
TOO_LARGE = "beyond int64"
INEXACT = "beyond 2^53 and not stored as a whole number"
INFINITE = "infinite or beyond float32"
NOT_BINARY = "label other than 0 and 1"
REMEDIES = {
    MISSING: "fill it in",
    LONG: "shorten it or leave the column out",
    NUL: "the file is damaged there, write it again",
    NOT_UTF8: "convert the file, e.g. with iconv -t UTF-8",
    LINE_BREAK: "replace line breaks in it",
    NOT_NUMBER: "write a number such as 1234.00 (no commas), and nothing for a missing one",
    NOT_WHOLE: "write a whole number, or give the table dtype: string",
    TOO_LARGE: "give the table dtype: string",
    INEXACT: "store the column as int64 or as text",
    INFINITE: "replace it by a number, or by nothing",
    NOT_BINARY: "write 0 or 1",
    NOT_TIME: "write a number in the time_unit, or an ISO date such as 2024-01-31T12:00:00Z",
    SLASHED: "write ISO dates such as 2024-01-31 or 2024-01-31T12:00:00Z",
    OUTSIDE: "is the time_unit right?",
}
"""Reason of a problem -> remedy."""

_WHOLE = "'^[+-]?[0-9]+$'"
_NUMBER = "'^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?$'"
_INFINITY = "'^[+-]?inf(inity)?$'"
_WHOLE_POINT = "'^-?(0|[1-9][0-9]*)[.]0+$'"
_ENDS_IN_ZERO = "'^-?(0|[1-9][0-9]*)[.][0-9]*0$'"
# Texts that may not be their own spelling: with blanks, control characters or points, and words.
_SPECIAL = "|".join([*MISSING_WORDS[:-1], r"[\\]n", "true", "false"])
_ODD = f"'[^!--/-~\u00a1-\uffff]|^(?i:{_SPECIAL})$'"
_FLOAT_MAX = "3.4028234663852886e38"
_WORDS = ", ".join(literal(word) for word in MISSING_WORDS)


class Scalar(NamedTuple):
    """Expressions of a cell.

    Attributes:
      value: converted.
      cases: problems as (condition, reason), in which NULL is no problem. Cells that are plainly fine
        come first, so that most cells take no further tests.
      missing: whether the cell is missing; tested after the first of ``cases`` if that is no problem.
    """

    value: str
    cases: Cases
    missing: str

    def problem(self, reason: str = "NULL") -> str:
        """The reason of a problem or NULL; ``reason`` is that of missing cells."""
        plain = self.cases[:1] if self.cases and self.cases[0][1] == "NULL" else []
        return cases([*plain, (self.missing, reason), *self.cases[len(plain) :]])


def scalar(wanted: str, unit: str, x: str, raw_type: str) -> Scalar:
    """The expression ``x`` of DuckDB's type ``raw_type``, as a value of type ``wanted``."""
    kind = kind_of(raw_type)
    if kind == "decimal":
        x, kind, raw_type = f"CAST({x} AS VARCHAR)", "text", "VARCHAR"
        x = cases([(f"contains({x}, '.')", f"regexp_replace({x}, '[.]?0+$', '')")], x)
    if kind == "text":
        text, checks = text_of(x, raw_type, one_line=wanted == "string")
        if wanted == "time":
            value, plain, problems = TimeSql(unit).of_text(text, trimmed(text))
        else:
            value, plain, problems = _OF_TEXT[wanted](text)
        missing = f"({x} IS NULL OR {is_missing_word(trimmed(text))})"
        return Scalar(value, [(plain, "NULL"), *checks, *problems], missing)
    if kind == "time":
        if wanted == "time":
            return Scalar(*TimeSql(unit).of_timestamp(f"CAST({x} AS TIMESTAMP)"), f"{x} IS NULL")
        return Scalar(f"CAST(CAST({x} AS TIMESTAMP) AS VARCHAR)", [], f"{x} IS NULL")
    if wanted == "time":
        of_kind = TimeSql(unit).of_double if kind == "double" else TimeSql(unit).of_whole
        value, problems = of_kind(x)
    else:
        value, problems = _OF_NUMBER[wanted](x, kind)
    if kind != "double":
        return Scalar(value, problems, f"{x} IS NULL")
    return Scalar(cases([(f"isnan({x})", "NULL")], value), problems, f"({x} IS NULL OR isnan({x}))")


def trimmed(x: str) -> str:
    """Text without surrounding blanks and line breaks."""
    return f"trim({x}, ' \t\r\n')"


def is_missing_word(text: str) -> str:
    """Whether a cell, trimmed, is one of the ``MISSING_WORDS``."""
    # Of IN with many words DuckDB makes a join, which loses the order of rows.
    return f"list_contains([{_WORDS}], lower({text}))"


def text_of(x: str, raw_type: str, one_line: bool) -> tuple[str, Cases]:
    """(text, problems) of text, bytes or an enumeration."""
    checks: Cases = []
    if raw_type == "BLOB":
        text = f"TRY(decode({x}))"
        checks.append((f"{x} IS NOT NULL AND {text} IS NULL", literal(NOT_UTF8)))
    else:
        text = x if raw_type == "VARCHAR" else f"CAST({x} AS VARCHAR)"
    checks.append((f"length({text}) > {CELL_LIMIT}", literal(LONG)))
    checks.append((f"contains({text}, chr(0))", literal(NUL)))
    if one_line:
        for code in (10, 13):
            inside = f"contains({trimmed(text)}, chr({code}))"
            broken = cases([(f"contains({text}, chr({code}))", inside)], "FALSE")
            checks.append((broken, literal(LINE_BREAK)))
    return text, checks


def _string_of_text(x: str) -> tuple[str, str, Cases]:
    # Text with blanks is common; DuckDB is five times as fast without a list of characters.
    control = " OR ".join(f"contains({x}, chr({code}))" for code in (9, 10, 13))
    text = cases([(control, trimmed(x))], f"trim({x})")
    plain = f"NOT regexp_matches({x}, {_ODD}) AND length({x}) <= {CELL_LIMIT}"
    short = f"regexp_replace({text}, '[.]?0+$', '')"
    value = cases(
        [
            (plain, x),
            (is_missing_word(text), "NULL"),
            (
                f"contains({x}, '.') AND regexp_matches({text}, {_ENDS_IN_ZERO})",
                cases([(f"{short} = '-0'", "'0'")], short),
            ),
            (f"lower({text}) IN ('true', 'false')", f"lower({text})"),
        ],
        text,
    )
    inexact = f"abs(TRY_CAST({text} AS DOUBLE)) >= {EXACT}"
    whole = f"contains({x}, '.') AND regexp_matches({text}, {_WHOLE_POINT})"
    return value, plain, [(f"{whole} AND {inexact}", literal(INEXACT))]


def _int64_of_text(x: str) -> tuple[str, str, Cases]:
    # What prints as it was needs no pattern, which spares most cells.
    text, plain = trimmed(x), f"CAST(TRY_CAST({x} AS BIGINT) AS VARCHAR) = {x}"
    whole, number = f"regexp_matches({text}, {_WHOLE})", f"regexp_matches({text}, {_NUMBER})"
    of_double, double_cases = _int64_of_number(f"TRY_CAST({text} AS DOUBLE)", "double")
    value = cases(
        [
            (plain, f"TRY_CAST({x} AS BIGINT)"),
            (whole, f"TRY_CAST({text} AS BIGINT)"),
            (number, of_double),
            *_booleans(text, "BIGINT"),
        ]
    )
    problem = cases(
        [
            (whole, cases([(f"TRY_CAST({text} AS BIGINT) IS NULL", literal(TOO_LARGE))])),
            (number, cases(double_cases)),
            (f"lower({text}) IN ('true', 'false')", "NULL"),
            (f"regexp_matches(lower({text}), {_INFINITY})", literal(NOT_WHOLE)),
        ],
        literal(NOT_NUMBER),
    )
    return value, plain, [("TRUE", problem)]


def _float32_of_text(x: str) -> tuple[str, str, Cases]:
    text, double = trimmed(x), f"TRY_CAST({x} AS DOUBLE)"
    plain = f"regexp_matches({x}, {_NUMBER}) AND abs({double}) <= {_FLOAT_MAX}"
    number = f"regexp_matches({text}, {_NUMBER})"
    of_double, double_cases = _float32_of_number(f"TRY_CAST({text} AS DOUBLE)", "double")
    problem = cases(
        [
            (number, cases(double_cases)),
            (f"lower({text}) IN ('true', 'false')", "NULL"),
            (f"regexp_matches(lower({text}), {_INFINITY})", literal(INFINITE)),
        ],
        literal(NOT_NUMBER),
    )
    whens = [(plain, f"CAST({double} AS REAL)"), (number, of_double), *_booleans(text, "REAL")]
    return cases(whens), plain, [("TRUE", problem)]


def _binary_of_text(x: str) -> tuple[str, str, Cases]:
    word = f"lower({trimmed(x)})"
    one = f"{word} = 'true' OR regexp_matches({word}, '^1([.]0*)?$')"
    zero = f"{word} = 'false' OR regexp_matches({word}, '^0([.]0*)?$')"
    labels = ((f"{x} = '0'", 0), (f"{x} = '1'", 1), (zero, 0), (one, 1))
    value = cases([(when, f"CAST({label} AS TINYINT)") for when, label in labels])
    return value, f"{x} IN ('0', '1')", [(f"NOT ({zero} OR {one})", literal(NOT_BINARY))]


def _booleans(text: str, sql_type: str) -> Cases:
    words = (("true", 1), ("false", 0))
    return [(f"lower({text}) = '{word}'", f"CAST({n} AS {sql_type})") for word, n in words]


def _string_of_number(x: str, kind: str) -> tuple[str, Cases]:
    if kind == "bool":
        return cases([(x, "'true'"), (f"NOT {x}", "'false'")]), []
    if kind == "whole":
        return f"CAST({x} AS VARCHAR)", []
    # Digits alone, whatever the engine prints: 0.00001 and not 1e-05.
    digits = f"CAST(CAST(CAST({x} AS VARCHAR) AS DECIMAL(38, 22)) AS VARCHAR)"
    value = cases(
        [
            (f"abs({x}) >= {EXACT}", "NULL"),
            (f"{x} = floor({x})", f"CAST(CAST({x} AS BIGINT) AS VARCHAR)"),
            (f"abs({x}) >= 1e-6", f"regexp_replace({digits}, '0+$', '')"),
        ],
        f"CAST({x} AS VARCHAR)",
    )
    return value, [(f"abs({x}) >= {EXACT}", literal(INEXACT))]


def _int64_of_number(x: str, kind: str) -> tuple[str, Cases]:
    if kind == "bool":
        return f"CAST({x} AS BIGINT)", []
    if kind == "whole":
        value = f"TRY_CAST({x} AS BIGINT)"
        return value, [(f"{value} IS NULL", literal(TOO_LARGE))]
    fraction, inexact = f"abs({x}) > 1e308 OR {x} <> floor({x})", f"abs({x}) >= {EXACT}"
    value = cases([(f"{fraction} OR {inexact}", "NULL")], f"CAST({x} AS BIGINT)")
    return value, [(fraction, literal(NOT_WHOLE)), (inexact, literal(INEXACT))]


def _float32_of_number(x: str, kind: str) -> tuple[str, Cases]:
    if kind != "double":
        return f"CAST({'CAST(' + x + ' AS INTEGER)' if kind == 'bool' else x} AS REAL)", []
    beyond = f"abs({x}) > {_FLOAT_MAX}"
    return cases([(beyond, "NULL")], f"CAST({x} AS REAL)"), [(beyond, literal(INFINITE))]


def _binary_of_number(x: str, kind: str) -> tuple[str, Cases]:
    if kind == "bool":
        return f"CAST({x} AS TINYINT)", []
    value = cases([(f"{x} = {label}", f"CAST({label} AS TINYINT)") for label in (0, 1)])
    return value, [(f"{x} <> 0 AND {x} <> 1", literal(NOT_BINARY))]


_OF_TEXT = {
    "string": _string_of_text,
    "int64": _int64_of_text,
    "float32": _float32_of_text,
    "binary": _binary_of_text,
}
_OF_NUMBER = {
    "string": _string_of_number,
    "int64": _int64_of_number,
    "float32": _float32_of_number,
    "binary": _binary_of_number,
}
