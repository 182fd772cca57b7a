"""Which earlier events of the user are in each sequence of a row.

The events that meet a sequence's condition are numbered; a row's history is a span of these numbers. It
ends before the row's own time, so events of the same time are excluded; with ``exact_order``, only those
that come later in the files. The most recent ``max_length`` events remain.
"""

import numpy as np

from loopctr_tf.features.schema import Schema
from loopctr_tf.prepare.columns import flat_spans
from loopctr_tf.prepare.rules import Condition, Rules
from loopctr_tf.prepare.store import Store

Span = tuple[np.ndarray, np.ndarray]
"""(start, end) of each row's history, as numbers of the sequence's events."""


class Histories:
    """Spans of all sequences; takes 8 bytes per event for each distinct condition.

    Args:
      store: of the events.
      schema, rules: of the sequences.
    """

    def __init__(self, store: Store, schema: Schema, rules: Rules):
        self._store, self._rules = store, rules
        self._most = {sequence.name: sequence.max_length for sequence in schema.sequences}
        kept = {
            rule.where: _numbered(store, rule.where, schema.label)
            for rule in rules.sequences.values()
        }
        self._kept = {name: kept[rule.where] for name, rule in rules.sequences.items()}

    def spans(self, events: np.ndarray) -> dict[str, Span]:
        """The history of the rows ``events`` in every sequence."""
        store, spans = self._store, {}
        first = store.user_start[events]
        own = events if self._rules.exact_order else store.time_start[events]
        # The rules list a sequence after the one that it precedes.
        for name, rule in self._rules.sequences.items():
            end = own
            if rule.before is not None:
                other, (start, stop) = self._kept[rule.before], spans[rule.before]
                # Ends at the first event of the other sequence, if it has any.
                some = np.flatnonzero(stop > start)
                end = own.copy()
                end[some] = other.positions(start[some])
            count = self._kept[name].count
            low, high = count(first), count(end)
            spans[name] = np.maximum(low, high - self._most[name]), high
        return spans

    def events(self, name: str, span: Span) -> tuple[np.ndarray, np.ndarray]:
        """(positions of the events in a sequence's spans, concatenated; splits of rows)."""
        numbers, splits = flat_spans(*span)
        return self._kept[name].positions(numbers), splits

    def uses(self, name: str, span: Span) -> np.ndarray:
        """In how many of the spans each event is, int64 [events]."""
        kept = self._kept[name]
        change = np.zeros(kept.total + 1, np.int64)
        change += np.bincount(span[0], minlength=len(change))
        change -= np.bincount(span[1], minlength=len(change))
        found = np.zeros(len(self._store), np.int64)
        found[kept.positions(np.arange(kept.total))] = np.cumsum(change)[:-1]
        return found


class _AllEvents:
    """All events: an event's number is its position."""

    def __init__(self, total: int):
        self.total = total

    def count(self, positions: np.ndarray) -> np.ndarray:
        return positions

    def positions(self, numbers: np.ndarray) -> np.ndarray:
        return numbers


class _MatchingEvents:
    """The events that meet a condition, numbered."""

    def __init__(self, met: np.ndarray):
        self._positions = np.flatnonzero(met).astype(np.int32)
        self._before = np.concatenate([[0], np.cumsum(met, dtype=np.int32)]).astype(np.int32)
        self.total = len(self._positions)

    def count(self, positions: np.ndarray) -> np.ndarray:
        """How many of the events are before each position."""
        return self._before[positions]

    def positions(self, numbers: np.ndarray) -> np.ndarray:
        """Positions of the events with these numbers."""
        return self._positions[numbers]


def _numbered(store: Store, where: Condition | None, label: str) -> _AllEvents | _MatchingEvents:
    return _AllEvents(len(store)) if where is None else _MatchingEvents(store.matches(where, label))
