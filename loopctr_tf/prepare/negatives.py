"""Sampled negatives: for every positive row, items that its user has no event with.

Items are drawn from rows of the same and earlier splits: from training rows for train, from training and
validation rows for valid, from all rows for test. So a training row reveals neither a later item nor its
later popularity. "popularity" draws in proportion to an item's number of rows, "uniform" draws all items
with equal probability. Draws are independent: an item may be drawn twice. A user's draws come from
``Philox(key=[seed, user])``, so that they depend neither on other users nor on who draws them.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.rule_parts import NegativeRule

_ROUNDS = 20
"""Rejection rounds before the rest is drawn exactly."""
_MULTIPLIERS = np.array([0xD2E7470EE14C6C93, 0xCA5A826395121157], np.uint64)
_KEY_STEPS = np.array([0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B], np.uint64)
_BLOCKS = 1 << 14
"""Blocks at a time, which stay in the processor's cache."""


def sample_negatives(
    rule: NegativeRule,
    upto: np.ndarray,
    users: Sequence[str],
    owner: np.ndarray,
    item: np.ndarray,
    rows: np.ndarray,
    split: np.ndarray,
) -> np.ndarray:
    """Draws items for the rows of a part.

    Args:
      rule: number, kind and seed.
      upto: int64 [3, items], rows of each item in the splits up to each one.
      users: ids of the part's users.
      owner: int [events], places in ``users``, ascending.
      item: codes of the events' items; a user's own items are never drawn for it.
      rows: the events that are rows, ascending.
      split: places of their splits in ``prepared.SPLITS``.

    Returns:
      Codes of items, int32 [rows, per_positive].

    Raises:
      UsageError: if a user has events with every item that could be drawn.
    """
    weights = upto if rule.by == "popularity" else (upto > 0).astype(np.int64)
    ends, items = np.cumsum(weights, axis=1), upto.shape[1]
    met = np.unique(owner.astype(np.int64) * items + item)
    keys = np.array([_key(user) for user in users], np.uint64)
    who = np.repeat(owner[rows].astype(np.int64), rule.per_positive)
    which = np.repeat(split, rule.per_positive)
    draws = np.bincount(who, minlength=len(users))  # of each user in a round
    place = np.arange(len(who)) - (np.cumsum(draws) - draws)[who]
    found = np.empty(len(who), np.int32)
    left = np.arange(len(who))
    for turn in range(_ROUNDS):
        position = turn * draws[who[left]] + place[left]
        drawn = _at(ends, which[left], uniform(rule.seed, keys, who[left], position))
        found[left] = drawn
        left = left[_among(who[left] * items + drawn, met)]
        if not len(left):
            break
    if len(left):
        found[left] = _exactly(rule, weights, users, keys, who[left], which[left], met)
    return found.reshape(-1, rule.per_positive)


def _key(user: str) -> int:
    digest = hashlib.md5(user.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:8], "big")


def _at(ends: np.ndarray, split: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The items at ``shares`` of the pool of each split."""
    found = np.empty(len(split), np.int64)
    for number in np.unique(split):
        rows, total = np.flatnonzero(split == number), ends[number, -1]
        if not total:
            raise UsageError(
                "build: negatives: no row of this or an earlier split has an item to sample; change "
                "build: split"
            )
        found[rows] = np.searchsorted(
            ends[number], (shares[rows] * total).astype(np.int64), "right"
        )
    return found


def _exactly(rule, weights, users, keys, who, split, met) -> np.ndarray:
    """Items for draws that kept meeting their user's own items, from what is left of the pool."""
    found, items = np.empty(len(who), np.int64), weights.shape[1]
    for user, number in sorted(set(zip(who.tolist(), split.tolist(), strict=True))):
        draws = np.flatnonzero((who == user) & (split == number))
        own = met[np.searchsorted(met, user * items) : np.searchsorted(met, (user + 1) * items)]
        allowed = weights[number].copy()
        allowed[own - user * items] = 0
        total = np.cumsum(allowed)
        if not total[-1]:
            raise UsageError(
                f"build: negatives: user {users[user]!r} has events with every item that could be "
                "sampled; give more items, or leave such users out"
            )
        key = np.array([rule.seed, keys[user]], np.uint64)
        rng = np.random.Generator(np.random.Philox(key=key, counter=[0, number + 1, 0, 0]))
        found[draws] = np.searchsorted(total, rng.integers(0, total[-1], len(draws)), "right")
    return found


def _among(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which values are in the sorted ``known``."""
    place = np.searchsorted(known, values)
    return known[np.minimum(place, len(known) - 1)] == values


def uniform(seed: int, keys: np.ndarray, who: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1) of many streams at once: ``Generator(Philox(key=[seed, key])).random()``.

    Args:
      seed: first half of all keys.
      keys: uint64, second half of the key of each stream.
      who: stream of each number; equal ones together, positions ascending within them.
      position: of the number in its stream.

    Returns:
      float64 [numbers].
    """
    block = position // 4
    new = np.concatenate([[True], (np.diff(who) != 0) | (np.diff(block) != 0)])
    first = np.flatnonzero(new)
    lanes = np.empty((len(first), 4), np.uint64)
    for start in range(0, len(first), _BLOCKS):
        some = first[start : start + _BLOCKS]
        lanes[start : start + _BLOCKS] = _philox(seed, keys[who[some]], block[some])
    raw = lanes[np.cumsum(new) - 1, position % 4]
    return (raw >> np.uint64(11)) * 2.0**-53


def _philox(seed: int, keys: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Philox4x64-10 (Salmon et al. 2011) of counters ``block + 1``; uint64 [blocks, 4]."""
    first, second = np.full(len(keys), seed, np.uint64), keys.copy()
    zero = np.zeros(len(keys), np.uint64)
    a, b, c, d = block.astype(np.uint64) + np.uint64(1), zero, zero, zero
    for _ in range(10):
        high_a, low_a = _product(_MULTIPLIERS[0], a)
        high_c, low_c = _product(_MULTIPLIERS[1], c)
        a, b, c, d = high_c ^ b ^ first, low_c, high_a ^ d ^ second, low_a
        first, second = first + _KEY_STEPS[0], second + _KEY_STEPS[1]
    return np.stack([a, b, c, d], axis=1)


def _product(one: np.uint64, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(high, low) halves of the 128-bit products of 64-bit numbers."""
    half, low_half = np.uint64(32), np.uint64(0xFFFFFFFF)
    one_high, one_low = one >> half, one & low_half
    high, low = other >> half, other & low_half
    cross = one_high * low + (one_low * low >> half)
    middle = one_low * high + (cross & low_half)
    return one_high * high + (cross >> half) + (middle >> half), one * other
