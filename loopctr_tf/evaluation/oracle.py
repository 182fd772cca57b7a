"""What could be gained by choosing a depth for each row: the oracle, its null control, honest rivals.

The oracle looks at the label, so that most of its gap is the luck of selection. The null control shows
how much: the same oracle on depths whose deviations from their mean belong to other rows.
"""

from typing import NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

BINS = 20
"""Bins of the mean logit within which the null control permutes: the depths' spread grows with it."""


class DepthLogits(NamedTuple):
    """One split as a model scored it.

    Attributes:
      labels: [n], 0 or 1.
      logits: [n, depths].
      history: [n], events of the row.
    """

    labels: np.ndarray
    logits: np.ndarray
    history: np.ndarray


def logits_of(probabilities: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)), of probabilities clipped to [1e-7, 1 - 1e-7]."""
    clipped = np.clip(np.asarray(probabilities, np.float64), 1e-7, 1 - 1e-7)
    return np.log(clipped / (1 - clipped))


def oracle(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """The logit [n] of least loss: a positive row's largest, a negative row's smallest."""
    labels = np.asarray(labels).reshape(-1)
    return np.where(labels > 0.5, logits.max(axis=1), logits.min(axis=1))


def null_control(labels: np.ndarray, logits: np.ndarray, seed: int = 0) -> np.ndarray:
    """The oracle [n] where the depths' deviations from their mean come from another row.

    The other row is one of the same of :data:`BINS` bins of the mean logit. What the oracle gains over
    this is real headroom; what this gains over a depth is luck.
    """
    rng = np.random.default_rng(seed)
    mean = logits.mean(axis=1, keepdims=True)
    deviations, order = logits - mean, np.argsort(mean[:, 0], kind="stable")
    for rows in np.array_split(order, BINS):
        deviations[rows] = deviations[rng.permutation(rows)]
    return oracle(labels, mean + deviations)


def honest_selector(fitted_on: DepthLogits, applied_to: DepthLogits) -> np.ndarray:
    """Probabilities [n] of a logistic regression over the depths, which never sees these rows' labels.

    Its features are the logits, log1p of the history's length and the products of both, so that it can
    trust one depth on long histories and another on short ones.

    Args:
      fitted_on: the validation split.
      applied_to: the test split; its labels are not read.
    """
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(_selector_features(fitted_on), fitted_on.labels.reshape(-1))
    return model.predict_proba(_selector_features(applied_to))[:, 1]


def _selector_features(rows: DepthLogits) -> np.ndarray:
    length = np.log1p(rows.history)[:, None]
    return np.column_stack([rows.logits, length, rows.logits * length])
