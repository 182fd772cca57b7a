"""Rows by day, worked out by hand."""

import numpy as np

from loopctr_tf.prepare.days import rows_by_day

DAY = 86_400 * 1_000_000
NEW_YEAR = 19_723 * DAY  # 2024-01-01


def test_rows_and_clicks_of_days_and_splits():
    time = NEW_YEAR + np.array([0, DAY - 1, DAY, DAY, 4 * DAY])
    split, clicks = np.array([0, 0, 0, 1, 2]), np.array([1, 0, 1, 1, 0])
    assert rows_by_day(time, split, clicks) == {
        "2024-01-01": {"train": [2, 1]},
        "2024-01-02": {"train": [1, 1], "valid": [1, 1]},
        "2024-01-05": {"test": [1, 0]},
    }
    # Four sampled negatives beside each event.
    assert rows_by_day(time[:3], split[:3], np.ones(3), rows_per_event=5) == {
        "2024-01-01": {"train": [10, 2]},
        "2024-01-02": {"train": [5, 1]},
    }


def test_many_events_are_counted_in_parts(monkeypatch):
    monkeypatch.setattr("loopctr_tf.prepare.days._AT_ONCE", 2)
    test_rows_and_clicks_of_days_and_splits()


def test_positions_have_no_days():
    nothing = np.zeros(0, np.int64)
    assert rows_by_day(nothing, nothing, nothing) == {}
    positions = np.arange(3) * 1_000_000
    assert rows_by_day(positions, np.zeros(3, int), np.ones(3)) == {}
    # One moment among them makes them times, also those before 1970.
    assert rows_by_day(np.array([-1, NEW_YEAR]), np.zeros(2, int), np.ones(2)) == {
        "1969-12-31": {"train": [1, 1]},
        "2024-01-01": {"train": [1, 1]},
    }
