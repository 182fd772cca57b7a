"""Columns to read, and whether a file's type can be converted to theirs."""

from dataclasses import dataclass

import pyarrow as pa

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare import cells
from loopctr_tf.prepare.times import UNITS

TYPES = (*cells.CONVERTERS, "time")


@dataclass(frozen=True)
class WantedColumn:
    """One column to read from a table.

    Attributes:
      name: of the column.
      type: "string", "int64", "float32", "time" (int64, microseconds since 1970) or "binary" (0 or 1,
        int8).
      separator: text between the values of a cell that holds a list; the column is then a list.
      required: whether a missing value (or an empty list) makes the row bad.
      unit: of numeric times: "s", "ms", "us" or "ns".
      many: whether the column is a list: a list column of Parquet, or cells with a ``separator``.
        Missing values in a list are dropped, and a missing list is empty.
    """

    name: str
    type: str
    separator: str | None = None
    required: bool = False
    unit: str = "s"
    many: bool = False

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
        return self.many or self.separator is not None

    @property
    def arrow_type(self) -> pa.DataType:
        """Arrow type of the converted column."""
        kind = pa.int64() if self.type == "time" else cells.CONVERTERS[self.type][0]
        return pa.list_(kind) if self.is_list else kind


def check_type(column: WantedColumn, kind: pa.DataType, where: str) -> None:
    """UsageError if a column of type ``kind`` in ``where`` cannot be read as ``column``."""
    name, lists = column.name, is_list(kind)
    if column.is_list and not lists and column.separator is None:
        raise UsageError(
            f"column {name!r} of {where} is {kind}, but lists are needed; store lists, or text with "
            "a separator between the values and name it (build: columns)"
        )
    if lists and not column.is_list:
        raise UsageError(
            f"column {name!r} of {where} holds lists ({kind}), but single values are needed; make the "
            "feature multi_categorical, or store one value"
        )
    value = kind_of(kind.value_type if lists else kind)
    fitting = {"string": ("text", "number", "bool", "time"), "time": ("text", "number", "time")}
    if value not in fitting.get(column.type, ("text", "number", "bool")):
        raise UsageError(
            f"column {name!r} of {where} is {kind}, which cannot be read as {column.type}; store it "
            "as another type, or name another column"
        )


def is_list(kind: pa.DataType) -> bool:
    """Whether a value of that type is a list."""
    return (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def kind_of(kind: pa.DataType) -> str:
    """Kind of a type; files may have different types of one kind."""
    if is_list(kind):
        return f"list of {kind_of(kind.value_type)}"
    if pa.types.is_dictionary(kind):
        return kind_of(kind.value_type)
    if cells.is_text(kind) or pa.types.is_null(kind):
        return "text"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    if pa.types.is_boolean(kind):
        return "bool"
    return "time" if pa.types.is_timestamp(kind) or pa.types.is_date(kind) else str(kind)
