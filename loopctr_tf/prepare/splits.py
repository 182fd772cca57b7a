"""The split of every row: by time, by the last rows of each user, or by a column."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from loopctr_tf.errors import UsageError
from loopctr_tf.features.prepared import SPLITS
from loopctr_tf.prepare.rules import ColumnSplit, LastSplit, Rules, TimeSplit
from loopctr_tf.prepare.store import Store
from loopctr_tf.prepare.times import Times

TRAIN, VALID, TEST = range(3)
"""Places in SPLITS."""


def assign_splits(store: Store, rows: np.ndarray, rules: Rules) -> tuple[np.ndarray, dict]:
    """Splits of the rows.

    By time, rows of the same time stay together. By last rows, all rows of a user who has no more than
    ``valid + test`` are in train.

    Args:
      store: of the events.
      rows: positions of the events that are rows, ascending.
      rules: their ``split`` is used.

    Returns:
      (int8 [rows], places in ``prepared.SPLITS``; facts for stats.json).

    Raises:
      UsageError: for a text in the split column that the rules do not name, an invalid date, or a
        requested split without rows.
    """
    rule = rules.split
    if isinstance(rule, TimeSplit):
        split, facts = _by_time(store.time[rows], rule, rules.time_unit)
    elif isinstance(rule, LastSplit):
        split, facts = _by_last(store.user[rows], rule)
    else:
        split, facts = _by_column(store, rows, rule)
    counts = np.bincount(split, minlength=len(SPLITS))
    for name, count, asked in zip(SPLITS, counts, _asked(rule), strict=True):
        if asked and not count:
            others = ", ".join(f"{s} {c:,}" for s, c in zip(SPLITS, counts, strict=True) if c)
            raise UsageError(
                f"build: split leaves {name} without rows (of {len(rows):,} rows: {others}); change it, "
                "or give more events"
            )
    return split, facts


def _asked(rule: TimeSplit | LastSplit | ColumnSplit) -> tuple[bool, bool, bool]:
    if isinstance(rule, ColumnSplit):
        return tuple(split in rule.values.values() for split in SPLITS)
    if isinstance(rule, TimeSplit) and rule.valid is None:
        return True, True, True
    return True, rule.valid > 0, rule.test > 0


def _by_time(time: np.ndarray, rule: TimeSplit, unit: str) -> tuple[np.ndarray, dict]:
    if rule.valid is None:
        begin = [_microseconds(getattr(rule, name), unit, name) for name in _MOMENTS]
        if begin[0] >= begin[1]:
            raise UsageError(
                f"build: split: valid_from is {rule.valid_from} and test_from {rule.test_from}; "
                "test comes after valid"
            )
    else:
        begin = []
        for share in (rule.valid + rule.test, rule.test):
            # Rounded, because 0.1 + 0.2 > 0.3.
            first = len(time) - int(round(share * len(time), 6))
            # With a share of 0 the split begins after the last row.
            begin.append(
                int(np.partition(time, first)[first]) if first < len(time) else int(time.max()) + 1
            )
    split = np.zeros(len(time), np.int8)
    split[time >= begin[0]] = VALID
    split[time >= begin[1]] = TEST
    return split, dict(zip(_MOMENTS, map(_iso, begin), strict=True))


_MOMENTS = ("valid_from", "test_from")


def _microseconds(moment: str | float, unit: str, name: str) -> int:
    text = moment if isinstance(moment, str) else repr(moment)
    times, problems = Times(unit)(pa.array([text]))
    if problems or not times[0].is_valid:
        raise UsageError(
            f"build: split: {name} is {moment!r}; give a date such as 2024-01-31, or a number in {unit}"
        )
    return times[0].as_py()


def _iso(microseconds: int) -> str:
    """ISO date; the number itself if it is out of the calendar's range."""
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)).isoformat()
    except OverflowError:
        return str(microseconds)


def _by_last(user: np.ndarray, rule: LastSplit) -> tuple[np.ndarray, dict]:
    positions = np.arange(len(user))
    new = np.concatenate([[True], user[1:] != user[:-1]])
    of_user = np.cumsum(new) - 1
    count = np.bincount(of_user)[of_user]
    start = np.flatnonzero(new)[of_user]
    from_end = start + count - 1 - positions
    split = np.zeros(len(user), np.int8)
    split[from_end < rule.valid + rule.test] = VALID
    split[from_end < rule.test] = TEST
    few = count <= rule.valid + rule.test
    split[few] = TRAIN
    return split, {"users_wholly_in_train": int((few & new).sum())}


def _by_column(store: Store, rows: np.ndarray, rule: ColumnSplit) -> tuple[np.ndarray, dict]:
    column = store.text(rule.column)
    splits = np.array(
        [SPLITS.index(rule.values.get(text, SPLITS[0])) for text in column.values.to_pylist()],
        np.int8,
    )
    known = np.array([text in rule.values for text in column.values.to_pylist()])
    codes = column.codes[rows]
    unknown = ~known[codes]
    if unknown.any():
        text = column.values[int(codes[unknown][0])].as_py()
        raise UsageError(
            f"build: split: column {rule.column!r} holds {text!r} in a row, and the rules name "
            f"{', '.join(rule.values)}; add it to train, valid or test, or leave such rows out with "
            "build: rows"
        )
    return splits[codes], {}
