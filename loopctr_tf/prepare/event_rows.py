"""Rows made from events: which events, in which split and order, with which columns.

Within a split, rows are in order of time. Sampled negatives follow their event and share everything
with it except the label and the item's features.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from loopctr_tf.errors import UsageError
from loopctr_tf.features.columns import PADDING
from loopctr_tf.features.prepared import SPLITS
from loopctr_tf.features.records import Wire, WireColumn, wire_values
from loopctr_tf.features.schema import Feature, Schema
from loopctr_tf.prepare.columns import Column, type_name
from loopctr_tf.prepare.histories import Histories
from loopctr_tf.prepare.negatives import sample_negatives
from loopctr_tf.prepare.plan import Plan, Source
from loopctr_tf.prepare.rules import AGES, Rules
from loopctr_tf.prepare.splits import assign_splits
from loopctr_tf.prepare.store import Store

_EVENTS = 1 << 20
"""Maximum history events processed at once."""


class EventRows:
    """See the module docstring.

    Args:
      store: of the events.
      plan: the source of every column.
      schema: to be fitted.
      rules: of the section `build`.

    Attributes:
      store, plan, schema, rules: as given.
      events: int32, the events that become rows, ordered by split, then time.
      counts: split -> number of these events.
      negatives: int32 [events, negatives per event], item codes; None without negatives.
      per_event: rows for each event: itself and its negatives.
      histories: of all sequences.
      facts: for stats.json.
    """

    def __init__(self, store: Store, plan: Plan, schema: Schema, rules: Rules):
        self.store, self.plan, self.schema, self.rules = store, plan, schema, rules
        events = np.arange(len(store), dtype=np.int32)
        if rules.rows is not None:
            events = events[store.matches(rules.rows, schema.label)]
        if not len(events):
            raise UsageError("build: rows: no event meets the condition; check column and values")
        split, self.facts = assign_splits(store, events, rules)
        order = np.lexsort((store.time[events], split))
        self.events, split = events[order], split[order]
        counts = np.bincount(split, minlength=len(SPLITS)).tolist()
        self.counts = dict(zip(SPLITS, counts, strict=True))
        self.negatives, self.per_event = None, 1
        if rules.negatives is not None:
            self.negatives = sample_negatives(
                store.user, store.item, self.events, split, rules.negatives
            )
            self.per_event = 1 + rules.negatives.per_positive
        self.histories = Histories(store, schema, rules)
        self._step = max(1, _EVENTS // sum(sequence.max_length for sequence in schema.sequences))

    def pieces(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Splits a range of ``events`` into parts whose histories fit into memory."""
        for first in range(start, end, self._step):
            yield first, min(first + self._step, end)

    def sampled(self, feature: Feature) -> bool:
        """Whether a feature differs between an event and its negatives."""
        return self.negatives is not None and feature.side == "item"

    def items(self, start: int, end: int) -> np.ndarray:
        """Item codes of all rows of a range of ``events``."""
        own = self.store.item[self.events[start:end]]
        return np.concatenate([own[:, None], self.negatives[start:end]], axis=1).reshape(-1)

    def ages(self, source: Source, events, history, splits) -> np.ndarray:
        """Time between each history event and its row, in the source's unit; float32.

        Args:
          source: of an age field.
          events: of the rows.
          history, splits: as of :meth:`Histories.events`.
        """
        moments = np.repeat(self.store.time[events], np.diff(splits))
        return ((moments - self.store.time[history]) / AGES[source.column]).astype(np.float32)


class RowWriter:
    """Makes wire columns of :class:`EventRows`. Construct it before workers are forked.

    Args:
      rows: the rows.
      schema: fitted.
    """

    def __init__(self, rows: EventRows, schema: Schema):
        self._rows, self._store, self._schema = rows, rows.store, schema
        self._columns: dict[Source, tuple[Column, Wire | None]] = {}
        for source in {*rows.plan.features.values(), *rows.plan.fields.values()}:
            if source.table != "age":
                column = self._store.column(source)
                self._columns[source] = column, _wire(column)

    def columns(self, start: int, end: int) -> tuple[dict[str, WireColumn], dict[str, int]]:
        """All columns of a range of events.

        Returns:
          (columns by name, with ``per_event`` rows per event; counts: "rows", "clicks", and for each
          sequence "SEQUENCE events" and "SEQUENCE empty", the rows with an empty history).
        """
        rows, schema = self._rows, self._schema
        events, repeats = rows.events[start:end], rows.per_event
        shared = None if repeats == 1 else np.repeat(np.arange(end - start), repeats)
        label = np.zeros((end - start, repeats), np.float32)
        label[:, 0] = self._store.label[events]
        counts = {"rows": label.size, "clicks": int(label.sum())}
        columns = {schema.label: WireColumn(wire_values(label.reshape(-1)))}
        if schema.group not in {feature.name for feature in schema.features}:
            source = rows.plan.features[schema.group]
            columns[schema.group] = self._column(source, events, None, shared)
        for feature in schema.features:
            source = rows.plan.features[feature.name]
            if rows.sampled(feature):
                columns[feature.name] = self._sampled(feature, source, rows.items(start, end))
            else:
                entries = self._store.entries(source, events)
                columns[feature.name] = self._column(source, entries, feature, shared)
        spans = rows.histories.spans(events)
        for sequence in schema.sequences:
            span = spans[sequence.name]
            history, splits = rows.histories.events(sequence.name, span)
            counts[f"{sequence.name} events"] = len(history) * repeats
            counts[f"{sequence.name} empty"] = int((span[0] == span[1]).sum()) * repeats
            for field in sequence.fields:
                source = rows.plan.fields[field.name]
                if source.table == "age":
                    wire = wire_values(rows.ages(source, events, history, splits))
                    columns[field.name] = WireColumn(wire, None, splits, shared)
                else:
                    columns[field.name] = self._field(field, source, history, splits, shared)
        return columns, counts

    def _column(self, source: Source, entries, feature: Feature | None, shared) -> WireColumn:
        """A global feature, or the group column (``feature`` None)."""
        column, wire = self._columns[source]
        flat, splits = column.take(entries)
        if wire is None:
            return WireColumn(wire_values(_filled(flat, feature)), None, None, shared)
        return WireColumn(wire, flat, splits, shared)

    def _sampled(self, feature: Feature, source: Source, items: np.ndarray) -> WireColumn:
        """An item feature of events and their sampled items."""
        if source.table == "events":
            return WireColumn(self._columns[source][1], items)  # the id itself
        return self._column(source, self._store.entries(source, None, items), feature, None)

    def _field(self, field: Feature, source: Source, history, splits, shared) -> WireColumn:
        """A field of a sequence: one value per event, or ``max_values`` with padding."""
        column, wire = self._columns[source]
        flat, lists = column.take(self._store.entries(source, history))
        if wire is None:
            return WireColumn(wire_values(_filled(flat, field)), None, splits, shared)
        if field.type == "multi_categorical":
            lists = np.arange(len(flat) + 1) if lists is None else lists
            # The last of the wire's values is the padding.
            codes = np.full((len(history), field.max_values), len(wire.values) - 1, np.int32)
            codes[np.arange(field.max_values) < np.diff(lists)[:, None]] = flat
            flat, splits = codes.reshape(-1), splits * field.max_values
        return WireColumn(wire, flat, splits, shared)


def _wire(column: Column) -> Wire | None:
    """The values of a coded column, followed by the padding value."""
    if column.codes is None:
        return None
    padding = pa.array([PADDING[type_name(column.values)]], column.values.type)
    return wire_values(pa.concat_arrays([column.values, padding]))


def _filled(numbers: np.ndarray, feature: Feature) -> np.ndarray:
    return np.where(np.isnan(numbers), np.float32(feature.default), numbers)
