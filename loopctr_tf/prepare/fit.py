"""Fits vocabularies and numeric statistics of the schema to the training rows, by an engine's counts."""

import math
from collections.abc import Collection, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from loopctr_tf.features.columns import PADDING
from loopctr_tf.features.schema import Feature, Schema
from loopctr_tf.prepare import count_statements, statements
from loopctr_tf.prepare.engine import Engine
from loopctr_tf.prepare.kernel import Job, squares_of, sum_of
from loopctr_tf.prepare.plan import Source
from loopctr_tf.prepare.rule_parts import TableRule

_DIGITS = 9
"""Significant digits of a statistic: sums of doubles depend on their order in the digits behind."""


def fit_events(engine: Engine, job: Job) -> Schema:
    """Fits ``job.schema`` to the table ``marked``.

    In a vocabulary an event counts once per column if it is a training row, in the history of one, or
    both; sampled negatives do not count. Mean and deviation of a feature are taken over the training
    rows, including negatives; those of a field over the histories of these rows.
    """
    schema, plan, rules = job.schema, job.plan, job.rules
    # (table, source) -> (sequences with a field of it, whether a feature has it).
    uses: dict[tuple[str, Source], tuple[list[str], bool]] = {}
    for feature in schema.features:
        if feature.table in rules.tables:
            uses[feature.table, plan.features[feature.name]] = [], True
    for sequence in schema.sequences:
        for field in sequence.fields:
            if field.table in rules.tables:
                key = field.table, plan.fields[field.name]
                uses.setdefault(key, ([], False))[0].append(sequence.name)
    counts: dict[str, list[pa.Table]] = {name: [] for name in rules.tables}
    for (table, source), (sequences, globally) in uses.items():
        counts[table].append(
            engine.query(
                count_statements.value_counts(
                    source.name, source.many, dict.fromkeys(sequences), globally
                )
            )
        )

    def statistics(feature: Feature, sequence: str | None) -> tuple[float, float]:
        source = (plan.features if sequence is None else plan.fields)[feature.name]
        if source.table == "age":
            return _of_ages(engine, feature, sequence)
        if sequence is None:
            sampled = rules.negatives is not None and feature.side == "item"
            values = count_statements.feature_values(source.name, sampled=sampled)
        else:
            values = count_statements.field_values(source.name, sequence)
        return moments(engine, feature, values)

    return with_statistics(schema, rules.tables, rules.fixed, counts, statistics)


def with_statistics(
    schema: Schema,
    tables: Mapping[str, TableRule],
    fixed: Collection[str],
    counts: Mapping[str, list[pa.Table]],
    statistics,
) -> Schema:
    """The schema with vocabularies and statistics; the default of a number is its mean.

    Args:
      schema: to be fitted.
      tables: a rule for each table to be fitted.
      fixed: numbers that keep mean, std and default.
      counts: by table, tables of (value, n).
      statistics: (feature, its sequence or None) -> (mean, standard deviation).
    """

    def fitted(feature: Feature, sequence: str | None) -> Feature:
        if feature.type != "numeric" or feature.name in fixed:
            return feature
        mean, std = statistics(feature, sequence)
        return feature.replace(mean=mean, std=std, default=feature.inverse(mean))

    return schema.replace(
        tables=[
            table.replace(
                vocabulary=vocabulary(counts[table.name], tables[table.name], table.dtype)
            )
            if table.name in tables
            else table
            for table in schema.tables
        ],
        features=[fitted(feature, None) for feature in schema.features],
        sequences=[
            s.replace(fields=[fitted(field, s.name) for field in s.fields])
            for s in schema.sequences
        ],
    )


def vocabulary(counts: list[pa.Table], rule: TableRule, dtype: str) -> list[str | int]:
    """The values that the rule keeps, the most common first, ties sorted by value; none is missing."""
    if not counts:
        return []
    table = pa.concat_tables(counts, promote_options="permissive")
    table = table.group_by("value", use_threads=False).aggregate([("n", "sum")])
    padding = pa.scalar(PADDING[dtype], table["value"].type)
    known = pc.and_(pc.greater_equal(table["n_sum"], rule.min_count), table["value"].is_valid())
    table = table.filter(pc.and_(known, pc.not_equal(table["value"], padding)))
    table = table.sort_by([("n_sum", "descending"), ("value", "ascending")])
    return table["value"][: rule.max_size].to_pylist()


def moments(engine: Engine, feature: Feature, values: str) -> tuple[float, float]:
    """(mean, standard deviation) of the transformed numbers of a query of (x, weight)."""
    weight, total = _pair(engine.query(count_statements.moments(feature, values)))
    if not weight:
        return 0.0, 1.0
    mean = _rounded(total / weight)
    _, squares = _pair(engine.query(count_statements.moments(feature, values, mean)))
    return mean, _scale(squares / weight, mean)


def _of_ages(engine: Engine, feature: Feature, sequence: str) -> tuple[float, float]:
    names = (count_statements.length(sequence), sum_of(feature.name), squares_of(feature.name))
    sums = ", ".join(f"coalesce(sum({statements.ident(name)}), 0)" for name in names)
    found = engine.query(f"SELECT {sums} FROM marked WHERE {statements.SPLIT} = 0")
    count, total, squares = (float(column[0].as_py()) for column in found.columns)
    if not count:
        return 0.0, 1.0
    mean = total / count
    return _rounded(mean), _scale(squares / count - mean**2, mean)


def _pair(found: pa.Table) -> tuple[float, float]:
    return float(found["weight"][0].as_py()), float(found["total"][0].as_py())


def _scale(variance: float, mean: float) -> float:
    """The standard deviation; 1 for a constant."""
    std = math.sqrt(max(variance, 0.0))
    # Smaller deviations are rounding errors of float32.
    return _rounded(std) if std > 1e-7 * abs(mean) else 1.0


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
