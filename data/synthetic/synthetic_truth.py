"""The click probability of a row, from columns of that row alone, and the best figures it allows.

Because nothing hidden enters, a model that reads all columns can come as near to the best figures as
its data and its shape let it.
"""

import math

import numpy as np
from synthetic_world import DEPARTMENTS, GENDERS

from loopctr_tf.evaluation import exact as metrics

GRID = 1 << 20
"""Probabilities are whole multiples of 1 / GRID, drawn from as such: a histogram with one bin a
multiple holds all that the exact AUC needs, however many rows there are. float32 holds them exactly."""

ACTIONS = ("click", "cart", "buy")
ACTION_WEIGHT = np.array([0.0, 1.0, 1.5, -1.0])
"""Of action codes; 0 is no event. A purchase ends the interest."""
PAGES = ("home", "search", "cart", "detail")
PAGE_EFFECT = np.array([0.0, 0.5, -0.4, 0.1])
SHIPPING_EFFECT = np.array([0.2, 0.0, -0.2])
HOUR_EFFECT = 0.25 * np.sin((np.arange(24) - 14) * math.pi / 12)
GENDER_DEPARTMENT_EFFECT = 0.35 * np.array(
    [[0.0] * DEPARTMENTS, [1, -1, 0.5, 0, -0.5, 1, -1, 0], [-1, 1, 0, 0.5, 0, -0.5, 1, -1]]
)
assert GENDER_DEPARTMENT_EFFECT.shape == (len(GENDERS), DEPARTMENTS)
BIAS, SHORT_EFFECT, LONG_EFFECT = -3.0, 5.0, 1.5
RATING_EFFECT, DISCOUNT_EFFECT, PRICE_EFFECT = 0.5, 1.0, -0.5
DECLARED_EFFECT, REGION_EFFECT = 0.4, 0.2


def short_match(category, past_category, past_action) -> np.ndarray:
    """How much the recent events speak for a category, the last one the most.

    sum_j w_j a_j ([category_j = category] + [department_j = department]) / 2 / sum_j w_j with
    w_j = 2^(-j / h), over the events j = 0, 1, ... counted back from the last one; h is a fifth of the
    sequence's most events, a_j the action's weight; 0 without events.

    Args:
      category: of the candidates, [n].
      past_category, past_action: codes of the short sequence, the last event first, action 0 where there
        is none, [n, short].
    """
    half_life = past_category.shape[1] / 5
    recency = 2.0 ** (-np.arange(past_category.shape[1]) / half_life)
    weight = recency * (past_action > 0)
    alike = (past_category == category[:, None]) + _same_department(category, past_category)
    speaks = (weight * ACTION_WEIGHT[past_action] * alike).sum(axis=1) / 2
    return speaks / np.maximum(weight.sum(axis=1), 1e-9)


def long_match(category, past_category, past_action) -> np.ndarray:
    """Mean over the long sequence of a_j [department_j = department]; 0 without events.

    Arguments as of :func:`short_match`.
    """
    same = _same_department(category, past_category)
    speaks = (ACTION_WEIGHT[past_action] * same).sum(axis=1)
    return speaks / np.maximum((past_action > 0).sum(axis=1), 1)


def _same_department(category, past_category) -> np.ndarray:
    """1 or 0, [n, events]."""
    return (past_category % DEPARTMENTS == category[:, None] % DEPARTMENTS).astype(np.int64)


def other_logit(row: dict[str, np.ndarray]) -> np.ndarray:
    """The logit without what the histories add, float64 [n].

    Args:
      row: codes ``page``, ``hour``, ``shipping``, ``gender``, ``department``; numbers as they are
        written, defaults in place of missing ones, ``rating``, ``discount``, ``price_to_budget``; bool
        ``declared`` (the department is a favourite that the user named) and ``same_region``.
    """
    return (
        BIAS
        + PAGE_EFFECT[row["page"]]
        + HOUR_EFFECT[row["hour"]]
        + SHIPPING_EFFECT[row["shipping"]]
        + GENDER_DEPARTMENT_EFFECT[row["gender"], row["department"]]
        + RATING_EFFECT * (row["rating"].astype(np.float64) - 4)
        + DISCOUNT_EFFECT * row["discount"].astype(np.float64)
        + PRICE_EFFECT * np.abs(np.log(row["price_to_budget"].astype(np.float64)))
        + DECLARED_EFFECT * row["declared"]
        + REGION_EFFECT * row["same_region"]
    )


def grid_probability(logit: np.ndarray) -> np.ndarray:
    """sigmoid(logit) as a whole multiple of 1 / GRID, never 0 or 1, float64 [n]."""
    codes = np.round(GRID / (1.0 + np.exp(-logit)))
    return np.clip(codes, 1, GRID - 1) / GRID


def summarize(probability, label, user) -> dict:
    """What :class:`Best` needs of the rows of some users, all rows of each; small, to be sent around.

    Args:
      probability: of :func:`grid_probability`, [n].
      label: 0 or 1, [n].
      user: any integers, [n].
    """
    if not len(label):
        return {"keys": np.empty(0, np.int64), "counts": np.empty(0, np.int64), "gauc": (0.0, 0, 0)}
    codes = np.round(probability * GRID).astype(np.int64)
    keys, counts = np.unique(codes * 2 + label.astype(np.int64), return_counts=True)
    group = metrics.gauc(label, probability, user)
    total = group.value * group.groups_used if group.groups_used else 0.0
    return {
        "keys": keys,
        "counts": counts,
        "gauc": (total, group.groups_used, group.groups_skipped),
    }


class Best:
    """Exact AUC, GAUC, NE, log-loss and calibration of the true probabilities, in bounded memory."""

    def __init__(self):
        self._counts = np.zeros(2 * (GRID + 1), np.int64)
        self._total, self._used, self._skipped = 0.0, 0, 0

    def add(self, summary: dict) -> None:
        """Adds what :func:`summarize` gave; every user in one summary only."""
        self._counts[summary["keys"]] += summary["counts"]
        total, used, skipped = summary["gauc"]
        self._total += total
        self._used += used
        self._skipped += skipped

    def figures(self) -> dict[str, float | int | None]:
        """As ``metrics.evaluate_scores`` names them; None where the rows do not define a figure."""
        negatives, positives = self._counts.reshape(-1, 2).T.astype(np.float64)
        probability = np.arange(GRID + 1) / GRID
        clicks, rows = positives.sum(), self._counts.sum()
        lower = np.cumsum(negatives) - negatives
        area = (positives * (lower + 0.5 * negatives)).sum()
        inner = slice(1, GRID)
        nats = -(
            positives[inner] @ np.log(probability[inner])
            + negatives[inner] @ np.log1p(-probability[inner])
        )
        both = 0 < clicks < rows
        rate = clicks / max(rows, 1)
        entropy = -rate * math.log(rate) - (1 - rate) * math.log1p(-rate) if both else math.nan
        promised = float((positives + negatives) @ probability)
        return {
            "auc": float(area / (clicks * (rows - clicks))) if both else None,
            "gauc": self._total / self._used if self._used else None,
            "ne": float(nats / rows / entropy) if both else None,
            "log_loss": float(nats / rows) if rows else None,
            "calibration": float(promised / clicks) if clicks else None,
            "groups_used": self._used,
            "groups_skipped": self._skipped,
            "rows": int(rows),
        }
