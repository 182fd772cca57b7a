"""SQL in DuckDB's dialect, from marked events to vocabularies, statistics and facts."""

from collections.abc import Iterable

from loopctr_tf.features.schema import Feature
from loopctr_tf.prepare.plan import LABEL, SPLIT, TIME
from loopctr_tf.prepare.statements import DAY, NEGATIVES, ident


def used(sequence: str) -> str:
    """Column: in how many histories of training rows an event is."""
    return f"__used_{sequence}"


def length(sequence: str) -> str:
    """Column: events in the row's history."""
    return f"__length_{sequence}"


def value_counts(column: str, many: bool, sequences: Iterable[str], globally: bool) -> str:
    """(value, n) of a column: each event once that is a training row, or in the history of one.

    Args:
      column: name.
      many: whether it holds lists, whose values all count.
      sequences: those that have a field of this column.
      globally: whether a feature has it.
    """
    which = [f"{SPLIT} = 0"] if globally else []
    which += [f"{ident(used(name))} > 0" for name in sequences]
    value = f"unnest({ident(column)})" if many else ident(column)
    return (
        f"SELECT value, count(*) AS n FROM (SELECT {value} AS value FROM marked "
        f"WHERE {' OR '.join(which)}) GROUP BY value"
    )


def transformed(feature: Feature, value: str) -> str:
    """A number as it is before standardizing (see ``Numeric.transformed``)."""
    double = f"CAST({value} AS DOUBLE)"
    return double if feature.transform == "none" else f"sign({double}) * ln(1 + abs({double}))"


def moments(feature: Feature, values: str, mean: float | None = None) -> str:
    """(weight, total) of a number; with ``mean``, the total is of squared deviations from it.

    Args:
      feature: its transform is used.
      values: a query of (x, weight).
      mean: of the transformed values.
    """
    value = transformed(feature, "x")
    total = value if mean is None else f"({value} - {mean!r}) * ({value} - {mean!r})"
    return (
        f"SELECT coalesce(sum(weight), 0) AS weight, coalesce(sum(weight * ({total})), 0.0) AS total "
        f"FROM ({values}) WHERE x IS NOT NULL AND NOT isnan(x)"
    )


def feature_values(column: str, many: bool = False, sampled: bool = False) -> str:
    """(x, weight) of numbers over the training rows, sampled negatives included."""
    value = f"unnest({ident(column)})" if many else ident(column)
    own = f"SELECT {value} AS x, 1 AS weight FROM marked WHERE {SPLIT} = 0"
    if not sampled:
        return own
    return (
        f"{own} UNION ALL SELECT p.{ident(column)} AS x, n.weight FROM (SELECT code, count(*) AS "
        f"weight FROM (SELECT unnest({NEGATIVES}) AS code FROM marked WHERE {SPLIT} = 0) GROUP BY code) "
        "n JOIN pool p ON p.code = n.code"
    )


def field_values(column: str, sequence: str) -> str:
    """(x, weight) of a numeric field over the histories of the training rows."""
    weight = ident(used(sequence))
    return f"SELECT {ident(column)} AS x, {weight} AS weight FROM marked WHERE {weight} > 0"


def row_facts(sequences: Iterable[str]) -> str:
    """By split: rows, positives, and of each sequence events and empty histories."""
    columns = "".join(
        f", sum({ident(length(name))}) AS {ident(f'{name} events')}, "
        f"count(CASE WHEN {ident(length(name))} = 0 THEN 1 END) AS {ident(f'{name} empty')}"
        for name in sequences
    )
    return (
        f"SELECT {SPLIT} AS split, count(*) AS n, sum({LABEL}) AS positives{columns} FROM marked "
        f"WHERE {SPLIT} >= 0 GROUP BY {SPLIT} ORDER BY {SPLIT}"
    )


def days() -> str:
    """(day since 1970, split, rows, positives)."""
    return (
        f"SELECT CAST(floor({TIME} / {DAY}.0) AS BIGINT) AS day, {SPLIT} AS split, count(*) AS n, "
        f"sum({LABEL}) AS positives FROM marked WHERE {SPLIT} >= 0 GROUP BY 1, 2 ORDER BY 1, 2"
    )
