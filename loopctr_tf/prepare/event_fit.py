"""Fits the schema to the training rows made from events, and to their histories."""

import numpy as np

from loopctr_tf.features.prepared import SPLITS
from loopctr_tf.features.schema import Feature, Schema, Sequence
from loopctr_tf.prepare.event_rows import EventRows
from loopctr_tf.prepare.fitting import Fit
from loopctr_tf.prepare.plan import Source
from loopctr_tf.prepare.splits import TRAIN


def fit_events(rows: EventRows) -> Schema:
    """Fits ``rows.schema``.

    In a vocabulary an event counts once per column if it is a training row, in the history of one, or
    both; sampled negatives do not count. Mean and deviation of a feature are taken over the training
    rows, including negatives; those of a field over the histories of these rows.

    Raises:
      UsageError: for a number that the feature's transform cannot take.
    """
    return _EventFit(rows).schema()


class _EventFit:
    def __init__(self, rows: EventRows):
        self._rows, self._store, self._schema = rows, rows.store, rows.schema
        self._fit = Fit(rows.schema, rows.rules.tables, rows.rules.fixed)
        self._train = rows.counts[SPLITS[TRAIN]]
        # (source, table) -> which events count.
        self._counted: dict[tuple[Source, str], np.ndarray] = {}

    def schema(self) -> Schema:
        rows, fit = self._rows, self._fit
        train = rows.events[: self._train]
        for feature in self._schema.features:
            source = rows.plan.features[feature.name]
            self._count(feature, source, train)
            if feature.name in fit.moments:
                fit.measure(feature, self._numbers(feature, source, train))
        spans = rows.histories.spans(train)
        for sequence in self._schema.sequences:
            uses = rows.histories.uses(sequence.name, spans[sequence.name])
            used = np.flatnonzero(uses)
            for field in sequence.fields:
                source = rows.plan.fields[field.name]
                if source.table == "age":
                    continue
                self._count(field, source, used)
                if field.name in fit.moments:
                    entries = self._store.entries(source, used)
                    fit.measure(field, self._store.column(source).take(entries)[0], uses[used])
            self._measure_ages(sequence)
        for (source, table), counted in self._counted.items():
            column = self._store.column(source)
            codes, _ = column.take(self._store.entries(source, np.flatnonzero(counted)))
            counts = np.bincount(codes, minlength=len(column.values))
            fit.counts[table].add(column.values, counts)
        return fit.schema()

    def _count(self, feature: Feature, source: Source, events: np.ndarray) -> None:
        """Marks events as counting for the feature's table."""
        if feature.table in self._fit.counts:
            none = np.zeros(len(self._store), bool)
            self._counted.setdefault((source, feature.table), none)[events] = True

    def _numbers(self, feature: Feature, source: Source, train: np.ndarray) -> np.ndarray:
        """Values of a numeric feature in all training rows."""
        items = self._rows.items(0, self._train) if self._rows.sampled(feature) else None
        return self._store.column(source).take(self._store.entries(source, train, items))[0]

    def _measure_ages(self, sequence: Sequence) -> None:
        rows = self._rows
        fields = [(field, rows.plan.fields[field.name]) for field in sequence.fields]
        fields = [
            (field, source)
            for field, source in fields
            if source.table == "age" and field.name in self._fit.moments
        ]
        if not fields:
            return
        for start, end in rows.pieces(0, self._train):
            events = rows.events[start:end]
            span = rows.histories.spans(events)[sequence.name]
            history, splits = rows.histories.events(sequence.name, span)
            for field, source in fields:
                self._fit.measure(field, rows.ages(source, events, history, splits))
