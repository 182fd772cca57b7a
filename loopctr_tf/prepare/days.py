"""Rows and clicks of every day, for ``stats.json``."""

import numpy as np

from loopctr_tf.features.prepared import SPLITS

_DAY = 86_400_000_000
_AT_ONCE = 1 << 20
_FIRST = np.datetime64("1990-01-01", "us").astype(np.int64)
"""If all values are below this, they are ranks, not timestamps."""


def rows_by_day(
    time: np.ndarray, split: np.ndarray, clicks: np.ndarray, rows_per_event: int = 1
) -> dict[str, dict[str, list[int]]]:
    """Day (UTC) -> split -> [rows, clicks].

    Args:
      time: int64 [events], microseconds since 1970.
      split: int [events], places in ``prepared.SPLITS``.
      clicks: 0 or 1 [events].
      rows_per_event: rows for each event: itself and its sampled negatives.

    Returns:
      The days in order, each with the splits that have rows; empty if the times are ranks.
    """
    if not len(time) or time.max() < _FIRST:
        return {}
    found: dict[int, np.ndarray] = {}
    for start in range(0, len(time), _AT_ONCE):
        piece = slice(start, start + _AT_ONCE)
        days, places = np.unique(time[piece] // _DAY, return_inverse=True)
        counts = np.zeros((len(days), len(SPLITS), 2), np.int64)
        np.add.at(counts, (places, split[piece], 0), rows_per_event)
        np.add.at(counts, (places, split[piece], 1), clicks[piece] > 0)
        for day, count in zip(days.tolist(), counts, strict=True):
            found[day] = found.get(day, 0) + count
    return {
        str(np.datetime64(day, "D")): {
            name: counts.tolist()
            for name, counts in zip(SPLITS, found[day], strict=True)
            if counts[0]
        }
        for day in sorted(found)
    }
