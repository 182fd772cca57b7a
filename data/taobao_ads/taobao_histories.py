"""Impressions with their histories out of the shop's log of 700 million behaviors, in bounded memory.

Impressions and behaviors are parted by user into temporary Parquet files. Of the log only behaviors stay
that can be used: of users with impressions, and earlier than the user's last impression. One part at a
time is then sorted, and every impression gets the span of its history; behaviors in no span are dropped.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from taobao_partitions import Partitions

from loopctr_tf.prepare.columns import flat_spans

PARTS = 128
"""Each has 0.2 million of the real impressions and at most 5.7 million behaviors: 1 GB at work."""

IMPRESSION = pa.schema(
    {
        "user": pa.int64(),
        "time_stamp": pa.int64(),
        "adgroup_id": pa.int64(),
        "pid": pa.string(),
        "clk": pa.int8(),
    }
)
BEHAVIOR = pa.schema(
    {
        "user": pa.int64(),
        "time_stamp": pa.int64(),
        "btag": pa.string(),
        "cate": pa.int64(),
        "brand": pa.int64(),
    }
)
_BATCH = 1 << 15


def history_spans(
    users: np.ndarray,
    times: np.ndarray,
    event_users: np.ndarray,
    event_times: np.ndarray,
    most: int,
) -> tuple[np.ndarray, np.ndarray]:
    """For each impression the ``most`` recent events of its user at strictly earlier times.

    Args:
      users, times: int64 [impressions].
      event_users, event_times: int64 [events], sorted by user, then time.
      most: events.

    Returns:
      (starts, ends), int64 [impressions]: the events ``starts[i]:ends[i]``.
    """
    # Ranks instead of the times themselves: no product of theirs overflows.
    moments = np.unique(np.concatenate([times, event_times]))
    people = np.unique(np.concatenate([users, event_users]))

    def keys(user, time):
        return np.searchsorted(people, user) * len(moments) + np.searchsorted(moments, time)

    ends = np.searchsorted(keys(event_users, event_times), keys(users, times))
    first = np.searchsorted(event_users, users)
    return np.maximum(first, ends - most), ends


class Histories:
    """Impressions with their histories, parted by user.

    Args:
      folder: for temporary files.
      impressions: tables of the schema ``IMPRESSION``.
      behaviors: tables of the schema ``BEHAVIOR``; read after all impressions.
      most: behaviors of a history.
      parts: files.
      progress: called with the number of behaviors that were read.

    Attributes:
      facts: counts for ``stats.json``.
    """

    def __init__(
        self,
        folder: Path,
        impressions: Iterable[pa.Table],
        behaviors: Iterable[pa.Table],
        most: int,
        parts: int = PARTS,
        progress: Callable[[int], Any] = lambda rows: None,
    ):
        self._folder, self._parts = folder, parts
        parted = Partitions(folder, "impressions", IMPRESSION, parts)
        count = 0
        for table in impressions:
            parted.add(table)
            count += len(table)
        parted.close()
        users, last = self._sort_impressions(parted)
        self.facts = {"impressions": count, "users": len(users), "behaviors": 0}
        log = Partitions(folder, "log", BEHAVIOR, parts)
        for table in behaviors:
            self.facts["behaviors"] += len(table)
            log.add(table.filter(pa.array(_usable(table, users, last))))
            progress(len(table))
        log.close()
        self.facts["behaviors_in_a_history"] = sum(
            self._give_spans(part, log.take(part), most) for part in range(parts)
        )

    def batches(self, first: int | None, end: int | None) -> Iterator[pa.Table]:
        """Impressions with ``first`` <= time < ``end`` (None: no bound), part by part, oldest first.

        Beside the columns of an impression there are lists of equal length: cate, brand and btag.
        """
        for part in range(self._parts):
            if not self._path("rows", part).exists():
                continue
            rows = pq.read_table(self._path("rows", part)).combine_chunks()
            times = rows["time_stamp"].to_numpy()
            chosen = np.ones(len(rows), bool) if first is None else times >= first
            if end is not None:
                chosen &= times < end
            rows = rows.filter(pa.array(chosen))
            if not len(rows):
                continue
            events = pq.read_table(self._path("events", part)).combine_chunks()
            for start in range(0, len(rows), _BATCH):
                yield _with_lists(rows.slice(start, _BATCH), events)

    def _path(self, what: str, part: int) -> Path:
        return self._folder / f"{what}-{part:05d}.parquet"

    def _sort_impressions(self, parted: Partitions) -> tuple[np.ndarray, np.ndarray]:
        """Sorts every part by time; all users, sorted, and the time of the last impression of each."""
        users, last = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for part in range(self._parts):
            table = parted.take(part)
            if not len(table):
                continue
            order = np.argsort(table["time_stamp"].to_numpy(), kind="stable")
            table = table.take(pa.array(order))
            pq.write_table(table, self._path("rows", part))
            # The first of the reversed rows is a user's last one.
            people, place = np.unique(table["user"].to_numpy()[::-1], return_index=True)
            users.append(people)
            last.append(table["time_stamp"].to_numpy()[::-1][place])
        users, last = np.concatenate(users), np.concatenate(last)
        order = np.argsort(users)
        return users[order], last[order]

    def _give_spans(self, part: int, events: pa.Table, most: int) -> int:
        """Writes the histories of a part; the number of behaviors in them."""
        if not self._path("rows", part).exists():
            return 0
        rows = pq.read_table(self._path("rows", part))
        users, times = (events[name].to_numpy() for name in ("user", "time_stamp"))
        order = np.lexsort((times, users))  # Stable: equal times stay in the order of the file.
        starts, ends = history_spans(
            rows["user"].to_numpy(), rows["time_stamp"].to_numpy(), users[order], times[order], most
        )
        # Spans overlap: a position counts where more of them have begun than ended.
        open_spans = np.bincount(starts, minlength=len(order) + 1).cumsum()
        open_spans -= np.bincount(ends, minlength=len(order) + 1).cumsum()
        used = open_spans[:-1] > 0
        place = np.concatenate([[0], np.cumsum(used)])
        rows = rows.append_column("start", pa.array(place[starts]))
        rows = rows.append_column("end", pa.array(place[ends]))
        events = events.select(["btag", "cate", "brand"]).take(pa.array(order[used]))
        pq.write_table(rows, self._path("rows", part))
        pq.write_table(events, self._path("events", part))
        return int(used.sum())


def _usable(table: pa.Table, users: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Which behaviors are of a user with impressions and before the last one."""
    if not len(users):
        return np.zeros(len(table), bool)
    people = table["user"].to_numpy()
    place = np.minimum(np.searchsorted(users, people), len(users) - 1)
    return (users[place] == people) & (table["time_stamp"].to_numpy() < last[place])


def _with_lists(rows: pa.Table, events: pa.Table) -> pa.Table:
    positions, splits = flat_spans(rows["start"].to_numpy(), rows["end"].to_numpy())
    taken = events.take(pa.array(positions))
    offsets = pa.array(splits, pa.int32())
    rows = rows.drop_columns(["start", "end"])
    for name in taken.column_names:
        lists = pa.ListArray.from_arrays(offsets, taken[name].combine_chunks())
        rows = rows.append_column(name, lists)
    return rows
