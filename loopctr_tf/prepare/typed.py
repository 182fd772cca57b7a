"""SQL that converts a raw column to a wanted type, and says what is wrong with a cell.

One value has one spelling, whatever the file's format and the column's type in it:

- ``string``: whole numbers without ".0" (117.0 is 117), other decimals without zeros at the end (5.50 is
  5.5), true and false in lower case, no blanks around text. 0117 and 1e5 stay as they are.
- ``int64``: whole numbers; also "3.0" and doubles up to 2^53, and booleans as 0 and 1.
- ``float32``: finite numbers, and booleans as 0 and 1.
- ``binary``: 0 or 1, also as 0.0, 1.0, false and true.
- ``time``: microseconds since 1970, see ``time_sql``.
- Lists are lists of Parquet or JSON, text with a separator, or text such as [1, 2] and ['a', 'b'].

``MISSING_WORDS`` and NaN are missing values in every type. Expressions are in DuckDB's dialect, and in
functions that sqlglot can respell for Spark. Sessions must run in UTC.
"""

from dataclasses import dataclass, replace

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare import cell_sql
from loopctr_tf.prepare.cell_sql import (
    MISSING,
    MISSING_WORDS,
    is_missing_word,
    scalar,
    text_of,
    trimmed,
)
from loopctr_tf.prepare.raw_types import is_list, kind_of, value_type
from loopctr_tf.prepare.text_scan import literal, quoted
from loopctr_tf.prepare.time_sql import UNITS, Cases, cases

__all__ = ["MISSING_WORDS", "REMEDIES", "TYPES", "Typed", "WantedColumn", "check_type", "typed"]

NOT_LIST = "not a list"
REMEDIES = {
    **cell_sql.REMEDIES,
    NOT_LIST: "write lists as [1, 2], or name the separator between values (build: columns)",
}
"""Reason of a problem -> remedy, for the one line of an error."""

_SQL_TYPES = {
    "string": "VARCHAR",
    "int64": "BIGINT",
    "float32": "REAL",
    "binary": "TINYINT",
    "time": "BIGINT",
}
TYPES = tuple(_SQL_TYPES)
# Values of a list in brackets, and whether one is in quotes.
_TOKENS = """'[^,"'' ][^,]*|"[^"]*"|''[^'']*'''"""
_QUOTED = """left(t, 1) IN ('"', '''')"""


@dataclass(frozen=True)
class WantedColumn:
    """One column to read from a table.

    Attributes:
      name: of the column.
      type: "string", "int64", "float32", "time" (int64, microseconds since 1970) or "binary" (0 or 1).
      separator: text between the values of a cell that holds a list; the column is then a list.
      required: whether a missing value (or an empty list) makes the row bad.
      unit: of numeric times: "s", "ms", "us" or "ns".
      many: whether the column is a list: a list column of Parquet or JSON, text such as [1, 2], or cells
        with a ``separator``. Missing values in a list are dropped, and a missing list is empty.
      source: name of the raw column; None means ``name``.
      gaps: whether missing values in a list stay, as NULL.
      nested: whether the column is a list of lists, which text cannot be.
    """

    name: str
    type: str
    separator: str | None = None
    required: bool = False
    unit: str = "s"
    many: bool = False
    source: str | None = None
    gaps: bool = False
    nested: bool = False

    def __post_init__(self):
        if self.type not in TYPES:
            raise UsageError(
                f"column {self.name!r}: type is {self.type!r}; choose {', '.join(TYPES)}"
            )
        if self.unit not in UNITS:
            raise UsageError(
                f"column {self.name!r}: time_unit is {self.unit!r}; choose {', '.join(UNITS)}"
            )
        if self.separator == "":
            raise UsageError(
                f"column {self.name!r}: separator is empty; give the text between two values"
            )

    @property
    def is_list(self) -> bool:
        """Whether a row holds a list of values."""
        return self.many or self.nested or self.separator is not None

    @property
    def raw(self) -> str:
        """Name of the raw column."""
        return self.name if self.source is None else self.source

    @property
    def sql_type(self) -> str:
        """DuckDB type of the converted column."""
        return _SQL_TYPES[self.type] + "[]" * (self.is_list + self.nested)


@dataclass(frozen=True)
class Typed:
    """Expressions over the raw column.

    Attributes:
      value: of the column's ``sql_type``; meaningless where there is a problem.
      problem: a key of ``REMEDIES``, or NULL.
    """

    value: str
    problem: str


def typed(column: WantedColumn, raw_type: str) -> Typed:
    """The expressions that convert a raw column of DuckDB's type ``raw_type``."""
    raw = quoted(column.raw)
    if column.nested:
        cell = _typed_list(replace(column, nested=False, many=True), "l", value_type(raw_type))
        lists = f"list_transform({raw}, lambda l: {cell.value})"
        problem = f"list_min(list_transform({raw}, lambda l: {cell.problem}))"
        return Typed(f"COALESCE({lists}, CAST([] AS {column.sql_type}))", problem)
    if column.is_list:
        return _typed_list(column, raw, raw_type)
    cell = scalar(column.type, column.unit, raw, raw_type)
    reason = literal(MISSING) if column.required else "NULL"
    return Typed(cell.value, cell.problem(reason))


def _typed_list(column: WantedColumn, raw: str, raw_type: str) -> Typed:
    first: list[tuple[str, str]] = []
    if is_list(raw_type):
        elements, element_type = raw, value_type(raw_type)
    elif kind_of(raw_type) == "text":
        elements, first = _elements_of_text(column, raw, raw_type)
        element_type = "VARCHAR"
    else:
        elements, element_type = f"[{raw}]", raw_type
    cell = scalar(column.type, column.unit, "e", element_type)
    values = f"list_transform({elements}, lambda e: {cell.value})"
    empty = f"CAST([] AS {column.sql_type})"
    present = values if column.gaps else f"list_filter({values}, lambda v: v IS NOT NULL)"
    value = f"COALESCE({present}, {empty})"
    problem = f"list_min(list_transform({elements}, lambda e: {cell.problem()}))"
    problem = cases(first, otherwise=problem)
    if column.required:
        nothing = cases([(f"array_length({value}) = 0", literal(MISSING))])
        problem = f"COALESCE({problem}, {nothing})"
    return Typed(value, problem)


def _elements_of_text(column: WantedColumn, raw: str, raw_type: str) -> tuple[str, Cases]:
    """(list of the texts in a cell, problems of the whole cell)."""
    text, checks = text_of(raw, raw_type, one_line=False)
    cell = trimmed(text)
    bracketed = f"{cell} LIKE '[%]'"
    unquoted = cases([(_QUOTED, "substr(t, 2, length(t) - 2)")], "t")
    tokens = f"regexp_extract_all(substr({cell}, 2, length({cell}) - 2), {_TOKENS})"
    tokens = f"list_transform({tokens}, lambda t: {unquoted})"
    if column.separator is None:
        wrong = f"NOT ({bracketed}) AND NOT {is_missing_word(cell)}"
        return cases([(bracketed, tokens)]), [*checks, (wrong, literal(NOT_LIST))]
    split = f"string_split({text}, {literal(column.separator)})"
    if column.gaps:  # A missing cell is an empty list, and not one with a missing value.
        split = cases([(is_missing_word(cell), "NULL")], split)
    return cases([(bracketed, tokens)], split), checks


def check_type(column: WantedColumn, raw_type: str, where: str) -> None:
    """UsageError if a column of DuckDB's type ``raw_type`` in ``where`` cannot be read as ``column``."""
    name, lists = column.raw, is_list(raw_type)
    if column.nested:
        if not (lists and is_list(value_type(raw_type))):
            raise UsageError(
                f"column {name!r} of {where} is {raw_type}, but a multi-valued field of a sequence "
                "needs lists of lists; store them in Parquet files, or drop the field"
            )
        raw_type = value_type(raw_type)
    kind = kind_of(value_type(raw_type) if lists else raw_type)
    if column.is_list and not lists and column.separator is None and kind != "text":
        raise UsageError(
            f"column {name!r} of {where} is {raw_type}, but lists are needed; store lists, or text with "
            "a separator between the values and name it (build: columns)"
        )
    if lists and not column.is_list:
        raise UsageError(
            f"column {name!r} of {where} holds lists ({raw_type}), but single values are needed; make "
            "the feature multi_categorical, or store one value"
        )
    numbers = ("text", "whole", "double", "decimal", "bool")
    fitting = {"string": (*numbers, "time"), "time": ("text", "whole", "double", "decimal", "time")}
    if kind not in fitting.get(column.type, numbers):
        raise UsageError(
            f"column {name!r} of {where} is {raw_type}, which cannot be read as {column.type}; store it "
            "as another type, or name another column"
        )
