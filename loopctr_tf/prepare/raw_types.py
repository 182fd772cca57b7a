"""Kinds of DuckDB's types."""

_KINDS = {
    "text": ("VARCHAR", "BLOB"),
    "whole": ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"),
    "double": ("FLOAT", "DOUBLE"),
    "bool": ("BOOLEAN",),
    "time": ("DATE",),
}


def is_list(raw_type: str) -> bool:
    """Whether a value of that type is a list."""
    return raw_type.endswith("]")


def value_type(raw_type: str) -> str:
    """Type of the values of a list."""
    return raw_type[: raw_type.rindex("[")]


def kind_of(raw_type: str) -> str:
    """Returns "text", "whole", "double", "decimal", "bool", "time", or else the type itself."""
    for prefix, kind in (("ENUM", "text"), ("DECIMAL", "decimal"), ("TIMESTAMP", "time")):
        if raw_type.startswith(prefix) and not is_list(raw_type):
            return kind
    for kind, types in _KINDS.items():
        if raw_type in types or (kind == "whole" and raw_type.removeprefix("U") in types):
            return kind
    return raw_type
