"""Exact AUC, GAUC, normalised entropy, log-loss and calibration of a scored table, in NumPy.

Every report uses these figures; nothing here is binned or sampled. The three measures of the
LoopCTR paper (section 4.1) are AUC, GAUC and NE. All sums are float64.

Labels are 0 or 1; labels, scores and probabilities have shape [n] or [n, 1] and are array-likes of
NumPy, pandas or eager TensorFlow. A value that the data do not define, such as the AUC of rows of one
class, is NaN. `UsageError` is raised for labels other than 0 and 1, unequal lengths, no rows, numbers
that are not finite, and probabilities outside [0, 1].
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from loopctr_tf.errors import UsageError

EPSILON = 1e-7
"""Probabilities are clipped to [EPSILON, 1 - EPSILON] before their logarithm is taken.

In float32, 1 - 1e-8 equals 1, so a smaller bound would treat the two classes unequally.
"""

WEIGHTINGS = ("plain", "impressions", "clicks")
"""The ways in which `gauc` can average over groups."""


@dataclass(frozen=True)
class GAUCResult:
    """A GAUC and the number of groups behind it.

    Attributes:
        value: the weighted mean of the groups' AUCs; NaN when no group has both classes.
        groups_used: the number of groups with both classes.
        groups_skipped: the number of groups with one class only, whose AUC is undefined.
    """

    value: float
    groups_used: int
    groups_skipped: int


def auc(labels: ArrayLike, scores: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
    """The area under the ROC curve: P(positive scored above negative), ties counting half.

    Args:
        labels: 0 or 1, shape [n].
        scores: finite numbers that grow with the probability, shape [n].
        sample_weight: weights >= 0, shape [n]; all 1 when None. A pair of rows weighs the product
            of its two weights.

    Returns:
        The exact AUC, or NaN when the rows of positive weight are all of one class.
    """
    labels = _labels(labels)
    scores = _floats("scores", scores, len(labels))
    weights = None
    if sample_weight is not None:
        weights = _floats("sample_weight", sample_weight, len(labels))
        _require("sample_weight must not be negative", weights >= 0, weights, "give 0 or more")
    codes = np.zeros(len(labels), np.intp)
    return float(auc_by_group(labels, scores, codes, 1, weights).auc[0])


def gauc(
    labels: ArrayLike, scores: ArrayLike, groups: ArrayLike, weighting: str = "plain"
) -> GAUCResult:
    """Group AUC: the AUC inside each group (user), averaged over groups.

    GAUC = sum_g w_g AUC_g / sum_g w_g over the groups that have both classes, where w_g is 1
    (``plain``, as in the LoopCTR paper, section 4.1), the group's rows (``impressions``) or its
    positives (``clicks``), both from DIN (Zhou et al., "Deep Interest Network for Click-Through
    Rate Prediction", KDD 2018). Ties count half.

    Args:
        labels: 0 or 1, shape [n].
        scores: finite numbers that grow with the probability, shape [n].
        groups: the group of each row, shape [n]: strings, bytes, integers or other hashable values;
            UsageError for a missing one.
        weighting: "plain", "impressions" or "clicks".
    """
    if weighting not in WEIGHTINGS:
        raise UsageError(f"unknown weighting {weighting!r}; choose one of {', '.join(WEIGHTINGS)}")
    labels = _labels(labels)
    scores = _floats("scores", scores, len(labels))
    return _average(auc_by_group(labels, scores, *_groups(groups, len(labels))), weighting)


def log_loss(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean binary cross-entropy in nats, of probabilities clipped by `EPSILON`.

    Args:
        labels: 0 or 1, shape [n].
        probabilities: predicted P(label = 1), shape [n].
    """
    labels = _labels(labels)
    clipped = np.clip(_probabilities(probabilities, len(labels)), EPSILON, 1.0 - EPSILON)
    return float(-np.log(np.where(labels == 1.0, clipped, 1.0 - clipped)).mean())


def normalized_entropy(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Normalised entropy: log-loss divided by the entropy of the empirical CTR; lower is better.

    NE = mean_i[-y_i log p_i - (1 - y_i) log(1 - p_i)] / [-c log c - (1 - c) log(1 - c)] with c the
    mean label (LoopCTR paper, section 4.1; He et al., "Practical Lessons from Predicting Clicks on
    Ads at Facebook", ADKDD 2014, equation 1). Always predicting c gives 1. NaN when all labels are
    equal, because their entropy is 0. The arguments are those of `log_loss`.
    """
    loss, rate = log_loss(labels, probabilities), float(_labels(labels).mean())
    if rate in (0.0, 1.0):
        return math.nan
    return loss / (-rate * math.log(rate) - (1.0 - rate) * math.log1p(-rate))


def calibration(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean predicted probability over mean label; above 1, the model predicts too many clicks.

    The definition is that of He et al. (ADKDD 2014, section 2). Nothing is clipped. NaN when no
    label is 1. The arguments are those of `log_loss`.
    """
    labels = _labels(labels)
    predicted, clicks = _probabilities(probabilities, len(labels)).sum(), float(labels.sum())
    return float(predicted) / clicks if clicks else math.nan


def evaluate_scores(
    labels: ArrayLike, probabilities: ArrayLike, groups: ArrayLike
) -> dict[str, float | int]:
    """Every exact metric of one scored table.

    Args:
        labels: 0 or 1, shape [n].
        probabilities: predicted P(label = 1), shape [n].
        groups: the group (user) of each row, shape [n].

    Returns:
        Plain floats and ints: ``auc``, ``gauc`` (plain), ``gauc_impressions``, ``gauc_clicks``,
        ``ne``, ``log_loss``, ``calibration``, ``groups_used``, ``groups_skipped``, ``rows``.
    """
    labels = _labels(labels)
    probabilities = _probabilities(probabilities, len(labels))
    by_group = auc_by_group(labels, probabilities, *_groups(groups, len(labels)))
    plain = _average(by_group, "plain")
    return {
        "auc": auc(labels, probabilities),
        "gauc": plain.value,
        "gauc_impressions": _average(by_group, "impressions").value,
        "gauc_clicks": _average(by_group, "clicks").value,
        "ne": normalized_entropy(labels, probabilities),
        "log_loss": log_loss(labels, probabilities),
        "calibration": calibration(labels, probabilities),
        "groups_used": plain.groups_used,
        "groups_skipped": plain.groups_skipped,
        "rows": len(labels),
    }


class _GroupAUCs(NamedTuple):
    """Per group, each of shape [groups]; `auc` is NaN where a group has one class."""

    auc: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray


def auc_by_group(labels, scores, codes, num_groups: int, weights=None) -> _GroupAUCs:
    """AUC of each group by one sort: a positive beats all lower negatives, and half of its ties.

    `codes` are integers in [0, num_groups). Rows of equal group and score form a block; the area is
    a sum over blocks of positives * (negatives in lower blocks of the group + half of its own).
    """
    order = np.lexsort((scores, codes))
    labels, scores, codes = labels[order], scores[order], codes[order]
    weights = np.ones(len(labels)) if weights is None else weights[order]
    changes = (np.diff(codes) != 0) | (np.diff(scores) != 0)
    starts = np.flatnonzero(np.concatenate(([True], changes)))  # [blocks]
    block_positives = np.add.reduceat(weights * labels, starts)
    block_negatives = np.add.reduceat(weights * (1.0 - labels), starts)
    block_group = codes[starts]

    def per_group(values):
        return np.bincount(block_group, weights=values, minlength=num_groups)

    positives, negatives = per_group(block_positives), per_group(block_negatives)
    earlier_groups = np.cumsum(negatives) - negatives
    lower = np.cumsum(block_negatives) - block_negatives - earlier_groups[block_group]
    area = per_group(block_positives * (lower + 0.5 * block_negatives))
    pairs = positives * negatives
    value = np.divide(area, pairs, out=np.full(num_groups, np.nan), where=pairs > 0)
    return _GroupAUCs(value, positives, negatives)


def _average(by_group: _GroupAUCs, weighting: str) -> GAUCResult:
    used = (by_group.positives > 0) & (by_group.negatives > 0)
    groups_used = int(used.sum())
    value = math.nan
    if groups_used:
        weight = {
            "plain": np.ones_like(by_group.positives),
            "impressions": by_group.positives + by_group.negatives,
            "clicks": by_group.positives,
        }[weighting][used]
        value = float(np.average(by_group.auc[used], weights=weight))
    return GAUCResult(value, groups_used, len(used) - groups_used)


def _labels(labels) -> np.ndarray:
    labels = _floats("labels", labels)
    remedy = "turn them into clicks first, for example (rating >= 4)"
    _require("labels must be 0 or 1", (labels == 0.0) | (labels == 1.0), labels, remedy)
    return labels


def _probabilities(values, rows: int) -> np.ndarray:
    values = _floats("probabilities", values, rows)
    remedy = "if these are logits, apply the sigmoid first"
    _require("probabilities must lie in [0, 1]", (values >= 0.0) & (values <= 1.0), values, remedy)
    return values


def _floats(name: str, values, rows: int | None = None) -> np.ndarray:
    """`values` as finite float64 of shape [rows]."""
    try:
        values = np.asarray(values).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} must be numbers ({error}); convert them first") from None
    values = _column(name, values, rows)
    _require(f"{name} must be finite", np.isfinite(values), values, "drop or repair these rows")
    return values


def _groups(groups, rows: int) -> tuple[np.ndarray, int]:
    """Integer codes of shape [rows], and the number of distinct groups."""
    if isinstance(groups, (list, tuple)):
        groups = np.asarray(groups, object)  # without a dtype, [1, "a"] would become strings
    elif not isinstance(groups, (pd.Series, pd.Index, pd.api.extensions.ExtensionArray)):
        groups = np.asarray(groups)
    groups = _column("groups", groups, rows)
    codes, distinct = pd.factorize(groups)
    remedy = "drop these rows or give them a group of their own"
    _require("groups must not be missing", codes >= 0, groups, remedy)
    return codes, len(distinct)


def _column(name: str, values, rows: int | None):
    """`values` of shape [n] or [n, 1] as [n]; UsageError when n is 0 or differs from `rows`."""
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise UsageError(f"{name} must have shape [rows], got {list(values.shape)}; reshape it")
    if len(values) == 0:
        raise UsageError(f"{name} is empty, got 0 rows; metrics need at least one row")
    if rows is not None and len(values) != rows:
        raise UsageError(
            f"{name} has {len(values)} rows but labels has {rows}; pass one value for each label"
        )
    return values


def _require(rule: str, good: np.ndarray, values, remedy: str) -> None:
    """UsageError that names the first row where `good` is False."""
    bad = np.flatnonzero(~good)
    if bad.size:
        value = np.asarray(values)[bad[0]]
        raise UsageError(f"{rule}, got {value} in row {bad[0]} ({bad.size} such rows); {remedy}")
