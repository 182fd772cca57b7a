"""Simple references that a model must beat: item mean CTR and user + item logistic regression."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import OneHotEncoder

from loopctr_tf.errors import UsageError
from loopctr_tf.evaluation import exact as metrics
from loopctr_tf.features.dataset import data_errors, read_dataset
from loopctr_tf.features.schema import Schema

PRIOR_CLICKS = (1.0, 3.0, 10.0, 30.0)
INVERSE_PENALTIES = (0.1, 0.3, 1.0, 3.0)


def reference_metrics(prepared: str | Path, item: str | None = None) -> dict[str, dict[str, Any]]:
    """Exact test metrics of both references by name; see :func:`reference_scores`."""
    labels, groups, scores = reference_scores(prepared, item)
    return {
        name: metrics.evaluate_scores(labels, probabilities, groups)
        for name, probabilities in scores.items()
    }


def reference_scores(
    prepared: str | Path, item: str | None = None
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Test probabilities of both references, fitted on train; validation NE picks the smoothing.

    Args:
      prepared: prepared folder.
      item: column of the item's id; the first categorical item feature by default.

    Returns:
      (labels [n], groups [n], name -> probabilities [n]), in the order of the test split's rows.

    Raises:
      UsageError: for a schema without such a feature.
    """
    schema = Schema.load(prepared)
    item = item or _item_column(schema)
    train, valid, test = (_columns(prepared, split, schema, item) for split in _SPLITS)

    def best(candidates):
        scored = [
            (metrics.normalized_entropy(valid["label"], score(valid)), index, score)
            for index, score in enumerate(candidates)
        ]
        return min(scored)[2](test)

    scores = {
        "item_mean_ctr": best([_item_mean_ctr(train, prior) for prior in PRIOR_CLICKS]),
        "user_item_logistic_regression": best(_logistic_regressions(train)),
    }
    return test["label"].to_numpy(), test["group"].to_numpy(), scores


_SPLITS = ("train", "valid", "test")


def _item_column(schema: Schema) -> str:
    for feature in schema.features:
        if feature.side == "item" and feature.type == "categorical":
            return feature.name
    raise UsageError(
        "the schema has no categorical item feature that could be the item's id; give item="
    )


def _columns(prepared, split, schema, item) -> pd.DataFrame:
    parts = []
    with data_errors():
        for features, label, *_ in read_dataset(
            Path(prepared) / split, schema, batch_size=4096, group=True
        ):
            parts.append(
                pd.DataFrame(
                    {
                        "label": label.numpy(),
                        "item": features[item].numpy(),
                        "group": features[schema.group].numpy(),
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)


def _item_mean_ctr(train: pd.DataFrame, prior: float):
    rate = train["label"].mean()
    counts = train.groupby("item")["label"].agg(["sum", "count"])
    means = (counts["sum"] + prior * rate) / (counts["count"] + prior)
    return lambda rows: rows["item"].map(means).fillna(rate).to_numpy()


def _logistic_regressions(train: pd.DataFrame):
    encoder = OneHotEncoder(handle_unknown="ignore")
    rows = encoder.fit_transform(train[["group", "item"]])

    def fitted(inverse_penalty):
        model = LogisticRegression(C=inverse_penalty, max_iter=500).fit(rows, train["label"])
        return lambda frame: model.predict_proba(encoder.transform(frame[["group", "item"]]))[
            :, 1
        ].astype(np.float64)

    return [fitted(inverse_penalty) for inverse_penalty in INVERSE_PENALTIES]
