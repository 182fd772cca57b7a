"""Pretrained vectors, put in the order of a fitted vocabulary."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from loopctr_tf.errors import UsageError
from loopctr_tf.features.schema import Schema
from loopctr_tf.features.vectors import checked_vectors

Vectors = Mapping[str, tuple[Sequence[str | int], np.ndarray]]
"""Table -> (distinct values, vectors [values, dim])."""

_ARROW = {"string": pa.large_string(), "int64": pa.int64()}


class Pretrained:
    """Vectors for tables of a schema that is to be fitted.

    Args:
      schema: to be fitted.
      vectors: pretrained vectors by table.

    Attributes:
      facts: for ``stats.json``, set by :meth:`into`: for each table the number of values with a vector,
        and of those left out of the vocabulary for lack of one.

    Raises:
      UsageError: for a table that does not exist or is hashed, values of another type or repeated ones,
        or vectors of another shape.
    """

    def __init__(self, schema: Schema, vectors: Vectors | None):
        self._vectors: dict[str, tuple[pa.Array, np.ndarray]] = {}
        self.facts: dict[str, dict[str, int]] = {}
        tables = {table.name: table for table in schema.tables}
        for name, (values, array) in (vectors or {}).items():
            where = f"vectors of table {name!r}"
            table = tables.get(name)
            if table is None or table.vocabulary is None:
                fitting = ", ".join(t.name for t in schema.tables if t.vocabulary is not None)
                raise UsageError(f"{where} need a table with a vocabulary; these are {fitting}")
            try:
                values = pa.array(values, _ARROW[table.dtype])
            except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
                raise UsageError(f"{where}: the values are not {table.dtype} ({error})") from error
            if len(pc.unique(values)) != len(values):
                raise UsageError(f"{where}: repeated value; keep one row of each")
            self._vectors[name] = values, checked_vectors(array, len(values), table.dim, where)

    def into(self, schema: Schema) -> Schema:
        """The fitted schema with vectors; values without one are removed from the vocabulary."""
        tables = []
        for table in schema.tables:
            if table.name in self._vectors:
                values, array = self._vectors[table.name]
                known = pa.array(table.vocabulary, values.type)
                places = pc.index_in(known, value_set=values)
                kept = known.filter(places.is_valid())
                self.facts[table.name] = {
                    "values": len(kept),
                    "left_out": len(known) - len(kept),
                }
                table = table.replace(
                    vocabulary=kept.to_pylist(), vectors=array[places.drop_null()]
                )
            tables.append(table)
        return schema.replace(tables=tables)
