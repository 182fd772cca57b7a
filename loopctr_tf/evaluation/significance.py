"""Are two models different on the same rows? DeLong's test for AUC, a paired bootstrap for GAUC.

Several seeds of each model enter together: differences are averaged over seeds, which removes the noise
of training; the noise of the test rows, which all seeds share, stays whole.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from loopctr_tf.evaluation import exact


class Difference(NamedTuple):
    """A difference of two figures with its interval.

    Attributes:
      value: first minus second.
      low, high: bounds of the 95 % interval.
      p: two-sided p-value.
    """

    value: float
    low: float
    high: float
    p: float


def delong(
    labels: ArrayLike, first: Sequence[ArrayLike], second: Sequence[ArrayLike]
) -> Difference:
    """The difference of two AUCs on the same rows, by DeLong's test.

    Source: DeLong, DeLong and Clarke-Pearson, Comparing the Areas under Two or More Correlated Receiver
    Operating Characteristic Curves, 1988; the placement values by midranks: Sun and Xu, 2014.

    Args:
      labels: [n], 0 or 1, both present.
      first: scores [n] of one model, a vector for each of its seeds.
      second: of the other model, as many; the k-th vectors are compared with each other.

    Returns:
      The mean difference over seeds; its variance is the mean of the seeds' variances.
    """
    positive = np.asarray(labels, bool).reshape(-1)
    values, variances = [], []
    for scores in zip(first, second, strict=True):
        (above_1, below_1), (above_2, below_2) = (_placements(positive, s) for s in scores)
        values.append(above_1.mean() - above_2.mean())
        variances.append(
            np.var(above_1 - above_2, ddof=1) / positive.sum()
            + np.var(below_1 - below_2, ddof=1) / (~positive).sum()
        )
    value, deviation = float(np.mean(values)), float(np.sqrt(np.mean(variances)))
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
    frame = pd.DataFrame({"label": labels, "score": scores, "group": groups})
    both = frame.groupby("group")["label"].transform("nunique") == 2
    return frame[both].groupby("group").apply(lambda rows: exact.auc(rows["label"], rows["score"]))


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
      either side of zero, at least 1 / resamples.
    """
    of_user = (
        pd.concat(first, axis=1).mean(axis=1) - pd.concat(second, axis=1).mean(axis=1)
    ).dropna()
    value = float(of_user.mean())
    found = stats.bootstrap(
        (of_user.to_numpy(),),
        np.mean,
        n_resamples=resamples,
        batch=100,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    means = found.bootstrap_distribution
    smaller = min((means <= 0).mean(), (means >= 0).mean())
    low, high = found.confidence_interval
    return Difference(value, float(low), float(high), float(max(2 * smaller, 1 / resamples)))
