"""Sampled non-interactions: for every positive row, items that its user never met.

What is sampled from belongs to the past of the split: items of training rows for those, of training and
validation rows for validation, of all rows for test, so that a training row never shows an item, or how
popular it became, before its time. Within these, "popularity" draws in proportion to the number of rows
of an item, "uniform" all items alike. Draws are independent: the same item may come twice.
"""

import numpy as np

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.rules import NegativeRule

_ROWS = 1 << 18
"""Rows that are sampled for at once."""
_ROUNDS = 20
"""Draws that are thrown again, before the few that are left are drawn from what their user may get."""


def sample_negatives(
    user: np.ndarray,
    item: np.ndarray,
    rows: np.ndarray,
    split: np.ndarray,
    rule: NegativeRule,
) -> np.ndarray:
    """Items for the rows.

    Args:
      user, item: codes of all events; an item that a user has any event with is never sampled for it.
      rows: positions of the events that are rows.
      split: int8 [rows], places in ``prepared.SPLITS``.
      rule: number, kind and seed.

    Returns:
      Codes of items, int32 [rows, per_positive].

    Raises:
      UsageError: for a user who met every item that could be sampled.
    """
    pool, ends = _pool(item[rows], split, rule.by)
    items = int(item.max()) + 1
    # User and item in one number, sorted: whether they met is a search.
    met = np.unique(user.astype(np.int64) * items + item)
    rng = np.random.default_rng(rule.seed)
    found = np.empty((len(rows), rule.per_positive), np.int32)
    for start in range(0, len(rows), _ROWS):
        some = slice(start, start + _ROWS)
        users = np.repeat(user[rows[some]].astype(np.int64), rule.per_positive)
        limits = np.repeat(ends[split[some]], rule.per_positive)
        drawn = _draw(users, limits, pool, met, items, rng)
        found[some] = drawn.reshape(-1, rule.per_positive)
    return found


def _draw(users, limits, pool, met, items: int, rng) -> np.ndarray:
    """For each user an item of ``pool[:limit]`` that the user never met."""
    found = np.empty(len(users), np.int32)
    left = np.arange(len(users))
    for _ in range(_ROUNDS):
        drawn = pool[rng.integers(0, limits[left])]
        found[left] = drawn
        left = left[_among(users[left] * items + drawn, met)]
        if not len(left):
            return found
    # Users one after the other; a user's draws of one split together.
    left = left[np.lexsort((limits[left], users[left]))]
    other = (np.diff(users[left]) != 0) | (np.diff(limits[left]) != 0)
    weights = {int(limit): np.bincount(pool[:limit], minlength=items) for limit in set(limits)}
    for draws in np.split(left, np.flatnonzero(other) + 1):
        user, limit = users[draws[0]], int(limits[draws[0]])
        own = met[np.searchsorted(met, user * items) : np.searchsorted(met, (user + 1) * items)]
        allowed = weights[limit].copy()
        allowed[own - user * items] = 0
        total = np.cumsum(allowed)
        if not total[-1]:
            raise UsageError(
                "build: negatives: a user has events with every item that could be sampled; give more "
                "items, or leave such users out"
            )
        found[draws] = np.searchsorted(total, rng.integers(0, total[-1], len(draws)), "right")
    return found


def _pool(item: np.ndarray, split: np.ndarray, by: str) -> tuple[np.ndarray, np.ndarray]:
    """(items one behind the other in the order of splits, the end of each split in them)."""
    order = np.argsort(split, kind="stable")
    pool, of_split = item[order], split[order]
    if by == "uniform":
        _, first = np.unique(pool, return_index=True)
        first.sort()
        pool, of_split = pool[first], of_split[first]
    return pool, np.searchsorted(of_split, np.arange(int(split.max()) + 1), side="right")


def _among(keys: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which keys are in the sorted ``known``."""
    place = np.searchsorted(known, keys)
    return known[np.minimum(place, len(known) - 1)] == keys
