"""All events in memory, sorted by user and time, with the item and user tables."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from loopctr_tf.errors import UsageError
from loopctr_tf.features.schema import Schema
from loopctr_tf.prepare.columns import Column
from loopctr_tf.prepare.loading import LoadedTable, load_table
from loopctr_tf.prepare.plan import FILES, Plan, Source
from loopctr_tf.prepare.rejects import Problem, Rejects
from loopctr_tf.prepare.rules import Condition, Rules

DUPLICATE = Problem("duplicate event", "remove it, or write build: {duplicates: keep}")
TWICE = Problem("key is in the table twice", "keep one row for each")


class Store:
    """The events, sorted by user, time and place in the files; an event is a position in this order.

    Attributes:
      user: int32 [events], user codes.
      time: int64 [events], microseconds since 1970.
      label: int8 [events], 0 or 1; always 1 with sampled negatives.
      user_start, time_start: int32 [events], first event of the user, and of the user and time.
      facts: counts of what was read, for stats.json.
    """

    def __init__(self, tables: Mapping[str, LoadedTable], plan: Plan, schema: Schema, rules: Rules):
        events = tables["events"]
        # Stable: events of the same user and time stay in file order.
        order = np.lexsort((events.columns[rules.time].values, events.columns[rules.user].codes))
        duplicates = np.zeros(0, np.int64)
        if rules.duplicates == "reject":
            order, duplicates = _without_duplicates(order, events, rules)
        self._columns: dict[tuple[str, str], Column] = {}
        # One column at a time, so that at most one is held twice.
        for name in list(events.columns):
            self._columns["events", name] = events.columns.pop(name).reordered(order)
        self._rules = rules
        self.user = self._columns["events", rules.user].codes
        self.time = self._columns.pop(("events", rules.time)).values
        self.label = self._labels(schema)
        self.user_start, self.time_start = _starts(self.user, self.time)
        self.facts = {
            "events": {
                "read": events.read,
                "used": len(self.user),
                "bad": events.read - events.rows,
                "duplicates": len(duplicates),
            },
            "users": int((np.diff(self.user_start, prepend=-1) != 0).sum()),
        }
        if rules.item is not None:
            self.item = self._columns["events", rules.item].codes
            self.facts["items"] = int(np.count_nonzero(np.bincount(self.item)))
        # User or item code -> row in its table; the last row is a missing one.
        self._rows: dict[str, np.ndarray] = {}
        for table, key in (("items", rules.item), ("users", rules.user)):
            if table in tables:
                self._join(table, key, tables[table])
        self._check_lengths(schema, plan)

    def __len__(self) -> int:
        return len(self.user)

    def _labels(self, schema: Schema) -> np.ndarray:
        if self._rules.negatives is not None:
            return np.ones(len(self), np.int8)
        if self._rules.label is not None:
            return self.matches(self._rules.label).astype(np.int8)
        return self._columns.pop(("events", schema.label)).values

    def matches(self, condition: Condition, label: str | None = None) -> np.ndarray:
        """Which events meet a condition, bool [events].

        Args:
          condition: on a column of the events.
          label: column name that means the label.
        """
        if condition.column == label:
            values = np.char.mod("%d", np.arange(2))
            met = (
                np.arange(2) >= condition.at_least
                if condition.values is None
                else np.isin(values, condition.values)
            )
            return met[self.label]
        column = self._columns["events", condition.column]
        if condition.values is None:
            return column.as_type("float32", condition.column).values >= condition.at_least
        wanted = pa.array(condition.values, pa.large_string())
        met = pc.is_in(column.values, value_set=wanted).to_numpy(zero_copy_only=False)
        return met[column.codes]

    def text(self, name: str) -> Column:
        """A text column of the events."""
        return self._columns["events", name]

    def column(self, source: Source) -> Column:
        """The column of a source, in its type."""
        if source.table == "label":
            if source.type == "float32":
                return Column(self.label.astype(np.float32))
            digits = pa.array([0, 1], pa.int64())
            return Column(digits, self.label.astype(np.int32)).as_type(source.type, source.column)
        return self._columns[source.table, source.column].as_type(source.type, source.column)

    def entries(self, source: Source, events: np.ndarray | None, items: np.ndarray | None = None):
        """Entries of ``column(source)`` that belong to events, or to items.

        Args:
          source: not an age.
          events: positions.
          items: item codes, instead of events, for a source in the item table.
        """
        if source.table == "items":
            return self._rows["items"][self.item[events] if items is None else items]
        if source.table == "users":
            return self._rows["users"][self.user[events]]
        return events

    def _join(self, table: str, key: str, loaded: LoadedTable) -> None:
        """Stores an item or user table and looks up its row for each key of the events."""
        keys = loaded.columns.pop(key)
        _, first = np.unique(keys.codes, return_index=True)
        repeated = np.setdiff1d(np.arange(len(keys)), first)
        texts = (str(keys.values[code].as_py()) for code in keys.codes[repeated].tolist())
        loaded.reject(repeated, key, TWICE, texts)
        for name, column in loaded.columns.items():
            self._columns[table, name] = column.with_missing()
        row_of_key = np.empty(len(keys.values), np.int64)
        row_of_key[keys.codes[first]] = first
        own = self._columns["events", key]
        found = pc.index_in(own.values, value_set=keys.values).fill_null(-1).to_numpy()
        self._rows[table] = np.where(found < 0, len(keys), row_of_key[found])
        known = np.zeros(len(own.values), bool)
        known[own.codes] = True
        self.facts[f"{table}_without_row"] = int((known & (found < 0)).sum())
        self.facts[f"{table}_table_rows"] = loaded.rows - len(repeated)

    def _check_lengths(self, schema: Schema, plan: Plan) -> None:
        sources = {**plan.features, **plan.fields}
        for feature in schema.all_fields():
            source = sources[feature.name]
            if feature.max_values is None or source.table == "label":
                continue
            longest = self._columns[source.table, source.column].longest()
            if longest > feature.max_values:
                raise UsageError(
                    f"column {source.column!r} of {FILES[source.table]} has up to {longest} values in a "
                    f"cell; max_values of feature {feature.name!r} is {feature.max_values}; raise it, "
                    "or store fewer"
                )


def load_store(
    paths: Mapping[str, Sequence[str | Path]],
    plan: Plan,
    schema: Schema,
    rules: Rules,
    rejects: Rejects,
    progress: Callable[[int], Any],
) -> Store:
    """Reads the files of each table ("events", "items", "users") into a :class:`Store`."""
    tables = {
        table: load_table(paths[table], wanted, rejects, FILES[table], progress)
        for table, wanted in plan.wanted.items()
    }
    return Store(tables, plan, schema, rules)


def _starts(user: np.ndarray, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    positions = np.arange(len(user), dtype=np.int32)
    new_user = np.concatenate([[True], user[1:] != user[:-1]])
    new_time = new_user | np.concatenate([[True], time[1:] != time[:-1]])
    return (
        np.maximum.accumulate(np.where(new_user, positions, np.int32(0))),
        np.maximum.accumulate(np.where(new_time, positions, np.int32(0))),
    )


def _without_duplicates(order: np.ndarray, events: LoadedTable, rules: Rules):
    """(``order`` without duplicates of earlier events, the duplicates)."""
    user, time = events.columns[rules.user].codes, events.columns[rules.time].values
    same = np.zeros(len(order) + 1, bool)
    ordered = user[order]
    same[1:-1] = ordered[1:] == ordered[:-1]
    ordered = time[order]
    same[1:-1] &= ordered[1:] == ordered[:-1]
    doubtful = order[same[1:] | same[:-1]]
    doubtful.sort()
    # Rows with equal codes are equal in the columns seen so far.
    codes = np.zeros(len(doubtful), np.int64)
    for column in events.columns.values():
        codes = codes * (len(doubtful) + 1) + _equal_codes(column, doubtful)
        codes = np.unique(codes, return_inverse=True)[1]
    _, first = np.unique(codes, return_index=True)
    repeated = np.setdiff1d(np.arange(len(doubtful)), first)
    duplicates = doubtful[repeated]
    users = events.columns[rules.user]
    texts = (f"user {users.values[code]}" for code in users.codes[duplicates].tolist())
    events.reject(duplicates, "", DUPLICATE, texts)
    keep = np.ones(len(order), bool)
    keep[duplicates] = False
    return order[keep[order]], duplicates


def _equal_codes(column: Column, rows: np.ndarray) -> np.ndarray:
    """Codes of the entries ``rows``, equal for equal entries, below the number of rows."""
    flat, splits = column.take(rows)
    if splits is None:
        return np.unique(flat, return_inverse=True)[1]
    lists = [flat[start:end].tobytes() for start, end in itertools.pairwise(splits)]
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(values, len(numbers)) for values in lists], np.int64)
