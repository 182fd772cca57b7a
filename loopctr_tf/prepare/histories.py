"""Which earlier events of the user stand in each sequence of a row.

Of every sequence the events that meet its condition are numbered; a row's history is a span of these
numbers. It ends before the row's own moment: all events of the same time are left out, or, where the
order is exact, those that come later in the files. The most recent ``max_length`` events of it stay.
"""

import numpy as np

from loopctr_tf.features.schema import Schema
from loopctr_tf.prepare.columns import flat_spans
from loopctr_tf.prepare.rules import Condition, Rules
from loopctr_tf.prepare.store import Store

Span = tuple[np.ndarray, np.ndarray]
"""(start, end) of each row's history, in the numbers of the sequence's events."""


class Histories:
    """Spans of all sequences; memory is 8 bytes an event for each different condition.

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
        # For each sequence: events before a position that meet the condition, and where these are.
        self._kept = {name: kept[rule.where] for name, rule in rules.sequences.items()}

    def spans(self, events: np.ndarray) -> dict[str, Span]:
        """The history of rows that are ``events``, for every sequence."""
        store, spans = self._store, {}
        first = store.user_start[events]
        own = events if self._rules.exact_order else store.time_start[events]
        # A sequence that stands before another is after it in the rules.
        for name, rule in self._rules.sequences.items():
            end = own
            if rule.before is not None:
                other, (start, stop) = self._kept[rule.before], spans[rule.before]
                # Up to the first event that the other keeps, where it keeps any.
                some = np.flatnonzero(stop > start)
                end = own.copy()
                end[some] = other.positions(start[some])
            count = self._kept[name].count
            low, high = count(first), count(end)
            spans[name] = np.maximum(low, high - self._most[name]), high
        return spans

    def events(self, name: str, span: Span) -> tuple[np.ndarray, np.ndarray]:
        """(positions of the events in a sequence's spans one behind the other, splits of rows)."""
        numbers, splits = flat_spans(*span)
        return self._kept[name].positions(numbers), splits

    def uses(self, name: str, span: Span) -> np.ndarray:
        """In how many of the spans every event is, int64 [events]."""
        kept = self._kept[name]
        change = np.zeros(kept.total + 1, np.int64)
        change += np.bincount(span[0], minlength=len(change))
        change -= np.bincount(span[1], minlength=len(change))
        found = np.zeros(len(self._store), np.int64)
        found[kept.positions(np.arange(kept.total))] = np.cumsum(change)[:-1]
        return found


class _All:
    """Every event is kept: its number is its position."""

    def __init__(self, total: int):
        self.total = total

    def count(self, positions: np.ndarray) -> np.ndarray:
        return positions

    def positions(self, numbers: np.ndarray) -> np.ndarray:
        return numbers


class _Some:
    """Events that meet a condition are kept and numbered."""

    def __init__(self, met: np.ndarray):
        self._positions = np.flatnonzero(met).astype(np.int32)
        self._before = np.concatenate([[0], np.cumsum(met, dtype=np.int32)]).astype(np.int32)
        self.total = len(self._positions)

    def count(self, positions: np.ndarray) -> np.ndarray:
        """How many are kept before a position."""
        return self._before[positions]

    def positions(self, numbers: np.ndarray) -> np.ndarray:
        """Where the kept events of these numbers are."""
        return self._positions[numbers]


def _numbered(store: Store, where: Condition | None, label: str) -> _All | _Some:
    return _All(len(store)) if where is None else _Some(store.matches(where, label))
