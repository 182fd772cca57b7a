"""Spans worked out by hand; random logs are compared with plain loops in test_prepare."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from loopctr_tf.prepare.histories import Histories
from loopctr_tf.prepare.rules import Condition, SequenceRule

CLICK, LIKE = (
    Condition(column="kind", values=("click",)),
    Condition(column="kind", values=("like",)),
)


class Log:
    """Events of one user after the other, by time, as the store keeps them."""

    def __init__(self, users: str, times: list[int], kinds: str = ""):
        self._kinds = np.array(list(kinds or " " * len(times)))
        starts = [users.index(user) for user in users]
        self.user_start = np.array(starts)
        self.time_start = np.array(
            [
                next(k for k in range(starts[i], i + 1) if times[k] == times[i])
                for i in range(len(times))
            ]
        )

    def __len__(self):
        return len(self._kinds)

    def matches(self, condition, label):
        assert label == "label"
        return self._kinds == condition.values[0][0]


def histories(log, exact_order=False, **sequences):
    """Sequences given as (max_length, where, before)."""
    schema = SimpleNamespace(
        label="label",
        sequences=[
            SimpleNamespace(name=name, max_length=most) for name, (most, *_) in sequences.items()
        ],
    )
    rules = SimpleNamespace(
        exact_order=exact_order,
        sequences={
            name: SequenceRule(fields={}, where=where, before=before)
            for name, (_, where, before) in sequences.items()
        },
    )
    return Histories(log, schema, rules)


def events_of(found: Histories, name: str, rows) -> list[list[int]]:
    positions, splits = found.events(name, found.spans(np.array(rows))[name])
    return [positions[a:b].tolist() for a, b in pairwise(splits)]


TWO_USERS = Log("aaaaabb", [1, 2, 2, 3, 5, 1, 4])


def test_events_of_one_time_do_not_see_each_other():
    found = histories(TWO_USERS, recent=(2, None, None))
    assert events_of(found, "recent", range(7)) == [[], [0], [0], [1, 2], [2, 3], [], [5]]


def test_in_exact_order_an_event_sees_those_before_it():
    found = histories(TWO_USERS, exact_order=True, recent=(2, None, None))
    assert events_of(found, "recent", range(7)) == [[], [0], [0, 1], [1, 2], [2, 3], [], [5]]


def test_rows_may_be_any_events_in_any_order():
    found = histories(TWO_USERS, recent=(9, None, None))
    assert events_of(found, "recent", [6, 4, 4]) == [[5], [0, 1, 2, 3], [0, 1, 2, 3]]


def test_only_events_of_the_kind_count():
    log = Log("aaaaaa", [1, 2, 3, 3, 4, 5], "cc c c")
    found = histories(log, clicks=(2, CLICK, None))
    assert events_of(found, "clicks", range(6)) == [[], [0], [0, 1], [0, 1], [1, 3], [1, 3]]


def test_long_sequences_end_where_shorter_ones_begin():
    log = Log("a" * 8, [1, 2, 3, 4, 5, 6, 7, 8])
    found = histories(
        log,
        short=(1, None, None),
        middle=(2, None, "short"),
        long=(3, None, "middle"),
    )
    row = [7, 2, 0]
    assert events_of(found, "short", row) == [[6], [1], []]
    assert events_of(found, "middle", row) == [[4, 5], [0], []]
    assert events_of(found, "long", row) == [[1, 2, 3], [], []]


def test_what_stands_before_another_kind_ends_before_the_first_of_them():
    #                 0 1 2 3 4 5 6 7
    log = Log("a" * 8, [1, 2, 3, 4, 5, 6, 7, 8], "lclllcl ")
    found = histories(log, clicks=(1, CLICK, None), likes=(2, LIKE, "clicks"))
    # Without a click every like is before.
    assert events_of(found, "likes", [1, 5, 7]) == [[0], [0], [3, 4]]
    assert events_of(found, "clicks", [1, 5, 7]) == [[], [1], [5]]


def test_ties_that_the_short_one_leaves_out_are_in_the_long_one():
    """Events 0 to 2 have one time; the short sequence keeps the last two of the files."""
    log = Log("aaaa", [1, 1, 1, 2])
    found = histories(log, short=(2, None, None), long=(5, None, "short"))
    assert events_of(found, "short", [3]) == [[1, 2]]
    assert events_of(found, "long", [3]) == [[0]]


@pytest.mark.parametrize("where", [None, CLICK])
def test_uses_count_the_rows_that_hold_an_event(where):
    log = Log("aaaaaabb", [1, 2, 2, 3, 4, 5, 1, 2], "cclccccl")
    found = histories(log, recent=(2, where, None))
    rows = [1, 3, 5, 5, 7]
    expected = np.zeros(8, int)
    for events in events_of(found, "recent", rows):
        for event in events:
            expected[event] += 1
    span = found.spans(np.array(rows))["recent"]
    assert found.uses("recent", span).tolist() == expected.tolist()
