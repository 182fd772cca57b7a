"""Sampled negatives: for every positive row, items that its user has no event with.

Items are sampled from rows of the same and earlier splits: from training rows for train, from training
and validation rows for valid, from all rows for test. So a training row reveals neither a later item nor
its later popularity. "popularity" draws in proportion to an item's number of rows, "uniform" draws all
items with equal probability. Draws are independent: an item may be drawn twice.
"""

import numpy as np

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.rules import NegativeRule

_ROWS = 1 << 18
"""Rows per step."""
_ROUNDS = 20
"""Rejection rounds before the rest is sampled exactly."""


def sample_negatives(
    user: np.ndarray,
    item: np.ndarray,
    rows: np.ndarray,
    split: np.ndarray,
    rule: NegativeRule,
) -> np.ndarray:
    """Samples items for the rows.

    Args:
      user, item: codes of all events; a user's own items are never sampled for it.
      rows: positions of the events that are rows.
      split: int8 [rows], places in ``prepared.SPLITS``.
      rule: number, kind and seed.

    Returns:
      Codes of items, int32 [rows, per_positive].

    Raises:
      UsageError: if a user has events with every item that could be sampled.
    """
    pool, ends = _pool(item[rows], split, rule.by)
    items = int(item.max()) + 1
    # Sorted numbers of (user, item) pairs, for binary search.
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
    """For each user an item of ``pool[:limit]`` that the user has no event with."""
    found = np.empty(len(users), np.int32)
    left = np.arange(len(users))
    for _ in range(_ROUNDS):
        drawn = pool[rng.integers(0, limits[left])]
        found[left] = drawn
        left = left[_among(users[left] * items + drawn, met)]
        if not len(left):
            return found
    # One group for each user and split.
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
    """(items in the order of splits, the end of each split in them)."""
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
