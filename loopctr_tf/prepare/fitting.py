"""Fits vocabularies and numeric statistics of the schema to training rows."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from loopctr_tf.features.columns import PADDING
from loopctr_tf.features.schema import Feature, Schema
from loopctr_tf.prepare.rules import TableRule

_CONSOLIDATE = 1 << 22
"""Rows of partial counts before they are summed."""


@dataclass
class Moments:
    """Running count, mean and sum of squared deviations (Chan et al. 1979)."""

    count: float = 0.0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, values: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Adds numbers, each ``weights`` times; NaN is skipped."""
        known = ~np.isnan(values)
        values = values[known].astype(np.float64)
        weights = np.ones(len(values)) if weights is None else weights[known].astype(np.float64)
        count = weights.sum()
        if count:
            mean = (weights * values).sum() / count
            self.merge(Moments(count, mean, (weights * (values - mean) ** 2).sum()))

    def merge(self, other: "Moments") -> None:
        """Adds another instance's numbers."""
        total, apart = self.count + other.count, other.mean - self.mean
        if total:
            self.squares += other.squares + apart**2 * self.count * other.count / total
            self.mean += apart * other.count / total
            self.count = total

    def scale(self) -> float:
        """The standard deviation; 1 for a constant or no numbers."""
        std = math.sqrt(self.squares / self.count) if self.count else 0.0
        # Smaller deviations are rounding errors of float32.
        return std if std > 1e-7 * abs(self.mean) else 1.0


@dataclass
class Counts:
    """How often each value was seen."""

    _parts: list[pa.Table] = field(default_factory=list)
    _rows: int = 0

    def add(self, values: pa.Array, counts: np.ndarray) -> None:
        """Adds ``counts`` of ``values``, which may repeat."""
        seen = np.flatnonzero(counts)
        part = pa.table({"value": values.take(pa.array(seen)), "count": counts[seen]})
        self._parts.append(part)
        self._rows += len(part)
        if self._rows > _CONSOLIDATE:
            self._parts, self._rows = [self._summed()], 0

    def add_values(self, values: np.ndarray) -> None:
        """Counts text or whole numbers."""
        text = values.dtype.kind in "OUT"
        array = pa.array(values, pa.large_string() if text else pa.int64()).dictionary_encode()
        codes = array.indices.to_numpy()
        self.add(array.dictionary, np.bincount(codes, minlength=len(array.dictionary)))

    def merge(self, other: "Counts") -> None:
        """Adds another instance's counts."""
        for part in other._parts:
            self.add(part["value"].combine_chunks(), part["count"].to_numpy())

    def _summed(self) -> pa.Table:
        table = pa.concat_tables(self._parts).group_by("value", use_threads=False)
        return table.aggregate([("count", "sum")]).rename_columns(["value", "count"])

    def vocabulary(self, rule: TableRule, dtype: str) -> tuple[str | int, ...]:
        """The values that the rule keeps, the most common first, ties sorted by value.

        Missing values are excluded.
        """
        if not self._parts:
            return ()
        table = self._summed()
        kept = pc.and_(
            pc.greater_equal(table["count"], rule.min_count),
            pc.not_equal(table["value"], pa.scalar(PADDING[dtype], table["value"].type)),
        )
        order = [("count", "descending"), ("value", "ascending")]
        return tuple(table.filter(kept).sort_by(order)["value"][: rule.max_size].to_pylist())


class Fit:
    """Collects values of training rows, then fits the schema.

    Args:
      schema: to be fitted: tables with an empty vocabulary, and numbers.
      tables: a rule for each table to be fitted.
      fixed: numbers that keep mean, std and default.

    Attributes:
      draft: the schema as given.
      counts: by table to be fitted.
      moments: by numeric feature to be fitted.
    """

    def __init__(self, schema: Schema, tables: Mapping[str, TableRule], fixed: Collection[str]):
        self.draft, self._rules, self._fixed = schema, tables, fixed
        self.counts = {name: Counts() for name in tables}
        self.moments = {
            feature.name: Moments()
            for feature in schema.all_fields()
            if feature.type == "numeric" and feature.name not in fixed
        }

    def empty(self) -> "Fit":
        """An empty Fit with the same rules."""
        return Fit(self.draft, self._rules, self._fixed)

    def measure(self, feature: Feature, values: np.ndarray, weights=None) -> None:
        """Adds numbers of a feature, each ``weights`` times; does nothing if it is fixed."""
        if feature.name not in self.moments:
            return
        if weights is not None:
            values, weights = values[weights > 0], weights[weights > 0]
        if feature.transform != "none":
            values = feature.transformed(values.astype(np.float64))
        self.moments[feature.name].add(values, weights)

    def merge(self, other: "Fit") -> None:
        """Adds what another instance for the same schema collected."""
        for name, counts in self.counts.items():
            counts.merge(other.counts[name])
        for name, moments in self.moments.items():
            moments.merge(other.moments[name])

    def schema(self) -> Schema:
        """The fitted schema; the default of a number is its mean."""
        tables = [
            table.replace(
                vocabulary=self.counts[table.name].vocabulary(self._rules[table.name], table.dtype),
            )
            if table.name in self.counts
            else table
            for table in self.draft.tables
        ]
        return self.draft.replace(
            tables=tables,
            features=[self._fitted(feature) for feature in self.draft.features],
            sequences=[
                s.replace(fields=[self._fitted(feature) for feature in s.fields])
                for s in self.draft.sequences
            ],
        )

    def _fitted(self, feature: Feature) -> Feature:
        moments = self.moments.get(feature.name)
        if moments is None:
            return feature
        mean = float(moments.mean)
        return feature.replace(mean=mean, std=moments.scale(), default=feature.inverse(mean))
