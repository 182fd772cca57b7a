"""Are two models different on the same rows? DeLong's test for AUC, a paired bootstrap for GAUC.

Both speak of the trained models that are given: a model's seeds are averaged first, and what is left is
the noise of the test rows, of which those of one user belong together.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from loopctr_tf.evaluation.exact import auc_by_group


class Difference(NamedTuple):
    """A difference of two figures with its interval; NaN where the rows do not define it.

    Attributes:
      value: first minus second.
      low, high: bounds of the 95 % interval.
      p: two-sided p-value.
    """

    value: float
    low: float
    high: float
    p: float


UNDEFINED = Difference(math.nan, math.nan, math.nan, math.nan)


def delong(
    labels: ArrayLike,
    first: Sequence[ArrayLike],
    second: Sequence[ArrayLike],
    groups: ArrayLike | None = None,
) -> Difference:
    """The difference of two AUCs on the same rows, by DeLong's test.

    Sources: DeLong, DeLong and Clarke-Pearson, Comparing the Areas under Two or More Correlated Receiver
    Operating Characteristic Curves, 1988; placements by midranks: Sun and Xu, 2014; rows in clusters:
    Obuchowski, Nonparametric Analysis of Clustered ROC Curve Data, 1997.

    Args:
      labels: [n], 0 or 1.
      first: scores [n] of one model, a vector for each of its seeds; their placements are averaged.
      second: of the other model.
      groups: [n], users, whose rows are not independent of each other; None takes each row by itself.
    """
    positive = np.asarray(labels).reshape(-1) > 0.5
    if positive.all() or not positive.any():
        return UNDEFINED
    (above_1, below_1), (above_2, below_2) = (
        tuple(
            np.mean(parts, axis=0)
            for parts in zip(*(_placements(positive, s) for s in scores), strict=True)
        )
        for scores in (first, second)
    )
    above, below = above_1 - above_2, below_1 - below_2
    value = float(above.mean())
    if groups is None:
        variance = above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below)
    else:
        shares = np.empty(len(positive))
        shares[positive] = (above - value) / len(above)
        shares[~positive] = (below - value) / len(below)
        by_user = np.bincount(pd.factorize(np.asarray(groups))[0], weights=shares)
        variance = np.sum(by_user**2) * len(by_user) / max(len(by_user) - 1, 1)
    deviation = float(np.sqrt(variance))
    if deviation == 0:
        return Difference(value, value, value, 1.0 if value == 0 else 0.0)
    reach = stats.norm.ppf(0.975) * deviation
    p = 2 * stats.norm.sf(abs(value) / deviation)
    return Difference(value, value - reach, value + reach, float(p))


def _placements(positive: np.ndarray, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Of each positive the share of negatives below it; of each negative that of positives above."""
    scores = np.asarray(scores, np.float64).reshape(-1)
    ranks = stats.rankdata(scores)
    above = (ranks[positive] - stats.rankdata(scores[positive])) / (~positive).sum()
    below = 1 - (ranks[~positive] - stats.rankdata(scores[~positive])) / positive.sum()
    return above, below


def user_aucs(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike) -> pd.Series:
    """The AUC of each user whose rows have both labels, by user."""
    codes, users = pd.factorize(np.asarray(groups))
    labels, scores = (np.asarray(values, np.float64).reshape(-1) for values in (labels, scores))
    return pd.Series(auc_by_group(labels, scores, codes, len(users)).auc, index=users).dropna()


def gauc_bootstrap(
    first: Sequence[pd.Series],
    second: Sequence[pd.Series],
    resamples: int = 2000,
    seed: int = 0,
) -> Difference:
    """The difference of two GAUCs (plain mean over users), by a paired bootstrap over users.

    Args:
      first: results of :func:`user_aucs`, one for each seed of one model.
      second: of the other model, on the same rows.
      resamples: of the users.
      seed: of the resampling.

    Returns:
      The mean difference with the percentile interval; p is twice the smaller share of resamples on
      either side of zero.
    """
    means = [pd.concat(list(series), axis=1).mean(axis=1) for series in (first, second)]
    of_user = (means[0] - means[1]).to_numpy()
    if len(of_user) < 2:
        return UNDEFINED
    found = stats.bootstrap(
        (of_user,),
        np.mean,
        n_resamples=resamples,
        batch=100,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    drawn = found.bootstrap_distribution
    smaller = min((drawn <= 0).sum(), (drawn >= 0).sum())
    low, high = found.confidence_interval
    p = min(1.0, 2 * (smaller + 1) / (resamples + 1))
    return Difference(float(of_user.mean()), float(low), float(high), p)
