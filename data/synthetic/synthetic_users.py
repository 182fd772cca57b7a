"""One block of users simulated event by event: what they do, what they are shown, what they click."""

from dataclasses import dataclass

import numpy as np
from synthetic_truth import (
    ACTIONS,
    LONG_EFFECT,
    PAGES,
    SHORT_EFFECT,
    grid_probability,
    long_match,
    other_logit,
    short_match,
)
from synthetic_world import DAY, DAYS, DEPARTMENTS, REGIONS, START, Options, Users, World

INTERESTS = 3
"""Categories that a user is after at a time."""
STAY = 0.5
"""Events until one of the interests gives way to another, on average, in lengths of the short
sequence."""
STALE_DAYS = 30
"""Age of the newest events that ``category_events`` counts, like the figure of a monthly job."""
PAST_DAYS = 180
RATING_DEFAULT, DISCOUNT_DEFAULT, PRICE_TO_BUDGET_DEFAULT = 4.0, 0.0, 1.5
"""What stands for a missing number, as in schema.yaml; the truth reads no more than the row says."""
HOUR_SHARE = np.array([2, 1, 1, 1, 1, 2, 3, 4, 5, 5, 5, 6, 6, 5, 5, 5, 5, 6, 7, 8, 9, 9, 7, 4])


@dataclass(frozen=True)
class Block:
    """What became of the users of a block.

    Attributes:
      users: the people.
      item, action, time: [users, most events], a user's events from the first to the last; item numbers,
        action codes (1 is ``ACTIONS[0]``), milliseconds since 1970.
      own: bool [users, most events], False where the event is the click on an impression.
      count: events of each user, [users].
      rows: impressions in the order of time, each entry [rows]: ``user`` (place in the block),
        ``before`` (its events so far), ``item``, ``time``, ``probability``, ``label``, and what the
        columns need.
    """

    users: Users
    item: np.ndarray
    action: np.ndarray
    time: np.ndarray
    own: np.ndarray
    count: np.ndarray
    rows: dict[str, np.ndarray]


def simulate(world: World, options: Options, block: int) -> Block:
    """Block number ``block``; its random numbers are its own, so that any worker gives the same."""
    rng = np.random.default_rng([options.seed, 1, block])
    numbers = options.share(options.users, block)
    rows = len(options.share(options.rows, block))
    return _Simulation(world, options, Users(len(numbers), numbers.start, rng), rows, rng).run()


class _Simulation:
    def __init__(self, world: World, options: Options, users: Users, rows: int, rng):
        self.world, self.options, self.users, self.rng = world, options, users, rng
        shown = self._rows_per_user(rows)
        # Events of one's own in the nine days, beside what is shown.
        steps = shown + rng.poisson(0.5 * shown + 2)
        past = self._past_events()
        width = int((past + steps).max())
        shape = (users.count, width)
        self.item = np.zeros(shape, np.int32)
        self.action = np.zeros(shape, np.int8)
        self.time = np.zeros(shape, np.int64)
        self.own = np.zeros(shape, bool)
        self.count = np.zeros(users.count, np.int64)
        self.past, self.shown, self.steps = past, shown, steps
        everybody = np.repeat(np.arange(users.count), INTERESTS)
        self.interests = self._new_interests(everybody).reshape(-1, INTERESTS)

    def _rows_per_user(self, rows: int) -> np.ndarray:
        count = self.users.count
        activity = self.rng.lognormal(0, 1, count)
        return 1 + self.rng.multinomial(rows - count, activity / activity.sum())

    def _past_events(self) -> np.ndarray:
        """Events before the period: none for a few, more than both sequences hold for a few."""
        most = 1.15 * (self.options.short + self.options.long)
        past = np.floor(most * self.rng.beta(0.8, 1.4, self.users.count)).astype(np.int64)
        return np.where(self.rng.random(self.users.count) < 0.04, 0, past)

    def run(self) -> Block:
        times = self._past_times()
        for step in range(int(self.past.max())):
            who = np.flatnonzero(self.past > step)
            self._act(who, times[who, step])
        del times
        times, is_shown = self._period()
        parts = []
        for step in range(int(self.steps.max())):
            there = self.steps > step
            acts = np.flatnonzero(there & ~is_shown[:, step])
            self._act(acts, times[acts, step])
            sees = np.flatnonzero(there & is_shown[:, step])
            if len(sees):
                parts.append(self._show(sees, times[sees, step]))
        rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        order = np.lexsort((rows["user"], rows["time"]))
        rows = {name: values[order] for name, values in rows.items()}
        return Block(self.users, self.item, self.action, self.time, self.own, self.count, rows)

    def _past_times(self) -> np.ndarray:
        """Times [users, most past events] of the events before the period, strictly increasing."""
        most = int(self.past.max())
        gaps = self.rng.exponential(size=(self.users.count, most + 1))
        gaps[np.arange(most + 1) > self.past[:, None]] = 0
        # One more gap than events lies between the last one and the period.
        share = np.cumsum(gaps, axis=1) / gaps.sum(axis=1, keepdims=True)
        span = PAST_DAYS * DAY - most - 1
        first = START - PAST_DAYS * DAY
        return first + (share[:, :-1] * span).astype(np.int64) + np.arange(most)

    def _period(self) -> tuple[np.ndarray, np.ndarray]:
        """Times [users, most steps], strictly increasing, and which steps are impressions."""
        shape = (self.users.count, int(self.steps.max()))
        beyond = np.arange(shape[1]) >= self.steps[:, None]
        hour = self.rng.choice(24, shape, p=HOUR_SHARE / HOUR_SHARE.sum())
        day = self.rng.integers(0, DAYS, shape)
        at = (day * 24 + hour + self.rng.random(shape)) / (DAYS * 24)
        at[beyond] = 1
        at.sort(axis=1)
        times = START + (at * (DAYS * DAY - shape[1])).astype(np.int64) + np.arange(shape[1])
        key = self.rng.random(shape)
        key[beyond] = 2
        place = np.argsort(np.argsort(key, axis=1), axis=1)
        return times, place < self.shown[:, None]

    def _new_interests(self, who: np.ndarray) -> np.ndarray:
        """A category for each of ``who``, of a department to the user's lasting taste."""
        uniform = self.rng.random((2, len(who)))
        department = (uniform[0][:, None] > self.users.preference[who]).sum(axis=1)
        return self.world.category_of_department(
            np.minimum(department, DEPARTMENTS - 1), uniform[1]
        )

    def _drift(self, who: np.ndarray) -> None:
        changing = who[self.rng.random(len(who)) < 1 / (STAY * self.options.short + 1)]
        slot = self.rng.integers(0, INTERESTS, len(changing))
        self.interests[changing, slot] = self._new_interests(changing)

    def _items(self, who: np.ndarray, interested: float, past: float) -> np.ndarray:
        """Items for ``who``: shares of them by interest, like an earlier event, else by popularity."""
        source, pick, slot, uniform = self.rng.random((4, len(who)))
        category = self.world.popular_category(pick)
        current = self.interests[who, (slot * INTERESTS).astype(np.int64)]
        category = np.where(source < interested, current, category)
        count = self.count[who]
        earlier = self.item[who, (pick * count).astype(np.int64)]
        like_earlier = (source >= interested) & (source < interested + past) & (count > 0)
        category = np.where(like_earlier, self.world.category[earlier], category)
        return self.world.item_of_category(category, uniform)

    def _append(self, who, item, action, time, own: bool) -> None:
        at = self.count[who]
        self.item[who, at], self.action[who, at], self.time[who, at] = item, action, time
        self.own[who, at] = own
        self.count[who] += 1

    def _act(self, who: np.ndarray, time: np.ndarray) -> None:
        self._drift(who)
        item = self._items(who, interested=0.8, past=0.0)
        action = 1 + self.rng.choice(len(ACTIONS), len(who), p=[0.7, 0.2, 0.1])
        self._append(who, item, action, time, own=True)

    def _show(self, who: np.ndarray, time: np.ndarray) -> dict[str, np.ndarray]:
        rng, world, users = self.rng, self.world, self.users
        item = self._items(who, interested=0.35, past=0.35)
        category, before = world.category[item], self.count[who]
        department = category % DEPARTMENTS
        short, long = self.options.short, self.options.long
        places = before[:, None] - 1 - np.arange(short + long)
        past_action = np.where(places < 0, 0, self.action[who[:, None], places])
        past_category = world.category[self.item[who[:, None], places]]
        ratio = world.price[item] / users.budget[who]
        last = self.time[who, before - 1]
        stale = self.time[who[:, None], places] < time[:, None] - STALE_DAYS * DAY
        stale &= past_action > 0
        row = {
            "user": who,
            "before": before,
            "item": item,
            "time": time,
            "hour": time // (DAY // 24) % 24,
            "page": rng.choice(len(PAGES), len(who), p=[0.5, 0.25, 0.1, 0.15]),
            "device": rng.choice(3, len(who), p=[0.7, 0.1, 0.2]),
            "system": rng.integers(0, 2, len(who)),
            "network": rng.choice(4, len(who), p=[0.1, 0.5, 0.2, 0.2]),
            "days_since_last": np.where(before > 0, (time - last) / DAY, np.nan).astype(np.float32),
            "price_to_budget": ratio,
            "same_region": world.region[item] == users.city[who] % REGIONS,
            "category_events": ((past_category == category[:, None]) & stale).sum(axis=1),
        }
        read = {
            **row,
            "gender": users.gender[who],
            "department": department,
            "shipping": world.shipping[item],
            "declared": users.declared[who, department],
            "rating": _filled(world.rating[item], RATING_DEFAULT),
            "discount": _filled(world.discount[item], DISCOUNT_DEFAULT),
            "price_to_budget": _filled(ratio, PRICE_TO_BUDGET_DEFAULT),
        }
        recent = short_match(category, past_category[:, :short], past_action[:, :short])
        older = long_match(category, past_category[:, short:], past_action[:, short:])
        other = other_logit(read)
        row["without"] = grid_probability(other)
        row["probability"] = grid_probability(other + SHORT_EFFECT * recent + LONG_EFFECT * older)
        clicked = rng.random(len(who)) < row["probability"]
        row["label"] = clicked.astype(np.float32)
        self._append(who[clicked], item[clicked], 1, time[clicked], own=False)
        return row


def _filled(values: np.ndarray, default: float) -> np.ndarray:
    return np.where(np.isnan(values), np.float32(default), values)
