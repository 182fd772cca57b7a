"""Which earlier events of the user are in each sequence of a row: no SQL window frame leaves ties out.

The events of a part are sorted by user, time and place. The events that meet a sequence's condition are
numbered; a row's history is a span of these numbers. It ends before the row's own time, so that events
of the same time are excluded; with ``exact_order``, only those that come later in the files. The most
recent ``max_length`` events remain.
"""

from collections.abc import Mapping

import numpy as np

Span = tuple[np.ndarray, np.ndarray]
"""(start, end) of each row's history, as numbers of the sequence's events."""


def flat_spans(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The spans ``starts[i]:ends[i]``, concatenated.

    Returns:
      (positions int64, splits int64 [n + 1]): span i is ``positions[splits[i]:splits[i + 1]]``.
    """
    lengths = ends.astype(np.int64) - starts
    splits = np.concatenate([[0], np.cumsum(lengths)])
    return np.repeat(starts - splits[:-1], lengths) + np.arange(splits[-1]), splits


class Histories:
    """Spans of all sequences.

    Args:
      user: codes of the events, equal ones together.
      time: int64 [events], ascending within a user.
      met: by sequence, which events meet its condition, bool [events]; those that others refer to first.
      before: by sequence, the one whose events it precedes, or None.
      most: by sequence, its maximum number of events.
      exact_order: whether events of one time are in each other's history.
    """

    def __init__(
        self,
        user: np.ndarray,
        time: np.ndarray,
        met: Mapping[str, np.ndarray],
        before: Mapping[str, str | None],
        most: Mapping[str, int],
        exact_order: bool = False,
    ):
        positions = np.arange(len(user))
        new_user = np.concatenate([[True], user[1:] != user[:-1]])
        new_time = new_user | np.concatenate([[True], time[1:] != time[:-1]])
        self._first = np.maximum.accumulate(np.where(new_user, positions, 0))
        tied = np.maximum.accumulate(np.where(new_time, positions, 0))
        self._end = positions if exact_order else tied
        self._before, self._most = before, most
        self._positions = {name: np.flatnonzero(which) for name, which in met.items()}
        self._counts = {
            name: np.concatenate([[0], np.cumsum(which, dtype=np.int64)])
            for name, which in met.items()
        }

    def spans(self, rows: np.ndarray) -> dict[str, Span]:
        """The history of the events ``rows`` in every sequence."""
        spans: dict[str, Span] = {}
        first = self._first[rows]
        for name, count in self._counts.items():
            end, other = self._end[rows], self._before[name]
            if other is not None:
                # Ends at the first event of the other sequence, if that has any.
                start, stop = spans[other]
                some = np.flatnonzero(stop > start)
                end[some] = self._positions[other][start[some]]
            low, high = count[first], count[end]
            spans[name] = np.maximum(low, high - self._most[name]), high
        return spans

    def events(self, name: str, span: Span) -> tuple[np.ndarray, np.ndarray]:
        """(positions of the events in a sequence's spans, concatenated; splits of rows)."""
        numbers, splits = flat_spans(*span)
        return self._positions[name][numbers], splits

    def uses(self, name: str, span: Span) -> np.ndarray:
        """In how many of the spans each event is, int64 [events]."""
        positions = self._positions[name]
        change = np.zeros(len(positions) + 1, np.int64)
        np.add.at(change, span[0], 1)
        np.subtract.at(change, span[1], 1)
        found = np.zeros(len(self._first), np.int64)
        found[positions] = np.cumsum(change)[:-1]
        return found
