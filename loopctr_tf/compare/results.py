"""The figures of a comparison: by system and head over seeds, against a base, and of the oracle."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from loopctr_tf.compare.protocol import Comparison, Row
from loopctr_tf.compare.runs import chosen, seed_folder
from loopctr_tf.evaluation import exact, oracle
from loopctr_tf.evaluation.significance import delong, gauc_bootstrap, user_aucs

FIGURES = ("auc", "gauc", "ne")
NULLS = 5
"""Permutations that the null control averages over."""


class Scored(NamedTuple):
    """One split as one run scored it.

    Attributes:
      labels: [n].
      groups: [n], users.
      probabilities: [n, heads].
      heads: their names.
      history: [n], events of the row.
    """

    labels: np.ndarray
    groups: np.ndarray
    probabilities: np.ndarray
    heads: list[str]
    history: np.ndarray

    def depths(self) -> oracle.DepthLogits:
        """As the oracle wants it."""
        return oracle.DepthLogits(self.labels, oracle.logits_of(self.probabilities), self.history)


def scored(run: Path, split: str) -> Scored:
    """What :func:`~loopctr_tf.compare.runs.score_split` wrote."""
    with np.load(run / f"{split}.npz") as arrays:
        return Scored(
            arrays["labels"],
            arrays["groups"],
            arrays["probabilities"],
            arrays["heads"].tolist(),
            arrays["history"],
        )


def gather(
    out: Path, comparison: Comparison, rows: Sequence[Row], efficiency: Mapping[str, Any]
) -> dict[str, Any]:
    """All figures of the finished ``rows``.

    Args:
      out: folder of the comparison.
      comparison: what was compared.
      rows: those whose runs are all there.
      efficiency: result of :func:`~loopctr_tf.compare.efficiency.measure`.

    Returns:
      ``heads``: a row for each head of each system with ``row``, ``kind``, ``head``, ``label``, the
      three figures as ``{"mean", "deviation", "values"}``, the difference of AUC and GAUC to the base
      (``auc_difference``, ``gauc_difference``), what it costs, and ``ratios`` of that to the base.
      ``base``: label of the row that differences and ratios refer to: LoopCTR at zero loops, or the
      first row. ``oracle``: by system with several heads. ``search``: what was chosen, by row.
    """
    costs = {(cost["row"], cost["head"]): cost for cost in efficiency["heads"]}
    seeds = range(1, comparison.protocol.seeds + 1)
    tests = {row.name: [scored(seed_folder(out, row, s), "test") for s in seeds] for row in rows}
    heads, samples = [], {}
    for row in rows:
        names = tests[row.name][0].heads
        for column, head in enumerate(names):
            columns = [(test, test.probabilities[:, column]) for test in tests[row.name]]
            label = _label(row, head, len(names) - 1)
            samples[label] = [(test.labels, p, test.groups) for test, p in columns]
            heads.append(
                {
                    "row": row.name,
                    "kind": row.kind,
                    "head": head,
                    "label": label,
                    **_figures(samples[label]),
                    **{
                        k: v
                        for k, v in costs.get((row.name, head), {}).items()
                        if k not in ("row", "head")
                    },
                }
            )
    base = next((h for h in heads if (h["row"], h["head"]) == ("loopctr", "loop_0")), heads[0])
    _compare(heads, base, samples)
    return {
        "base": base["label"],
        "heads": heads,
        "oracle": {
            row.name: _oracle(
                [
                    (scored(seed_folder(out, row, s), "valid"), test)
                    for s, test in zip(seeds, tests[row.name], strict=True)
                ]
            )
            for row in rows
            if row.kind == "system" and len(tests[row.name][0].heads) > 1
        },
        "search": {row.name: chosen(out, row) for row in rows if row.searched_as == row.name},
    }


def _label(row: Row, head: str, loops: int) -> str:
    from loopctr_tf.models import MODELS

    name = row.name if row.kind != "system" else MODELS[row.name][1]
    return f"{name}({head.removeprefix('loop_')}/{loops})" if head else name


def _figures(samples) -> dict[str, dict[str, Any]]:
    found = pd.DataFrame([exact.evaluate_scores(*sample) for sample in samples])
    return {
        name: {
            "mean": float(found[name].mean()),
            "deviation": float(found[name].std(ddof=1)) if len(found) > 1 else None,
            "values": found[name].tolist(),
        }
        for name in FIGURES
    }


def _compare(heads: list[dict], base: dict, samples: Mapping[str, list]) -> None:
    """Adds differences and ratios to the base to every row."""
    labels = samples[base["label"]][0][0]
    by_user = {name: [user_aucs(*sample) for sample in found] for name, found in samples.items()}
    of_base = [p for _, p, _ in samples[base["label"]]]
    for head in heads:
        if head is not base:
            own = [p for _, p, _ in samples[head["label"]]]
            head["auc_difference"] = delong(labels, own, of_base)._asdict()
            head["gauc_difference"] = gauc_bootstrap(
                by_user[head["label"]], by_user[base["label"]]
            )._asdict()
        if "flops" in head and base.get("flops"):
            keys = ("dense_parameters", "flops", "p50_ms", "peak_memory_bytes")
            head["ratios"] = {key: head[key] / base[key] if base[key] else None for key in keys}


def _oracle(pairs: Sequence[tuple[Scored, Scored]]) -> dict[str, dict[str, float]]:
    """Mean figures over seeds of the oracle, the null control, the honest selector, the mean depth."""
    rows: dict[str, list[dict]] = {}
    for valid, test in pairs:
        depths = test.depths()
        choices = {
            "oracle": oracle.oracle(depths.labels, depths.logits),
            "honest selector": oracle.logits_of(oracle.honest_selector(valid.depths(), depths)),
            "mean of depths": depths.logits.mean(axis=1),
        }
        for number in range(NULLS):
            choices[f"null control {number}"] = oracle.null_control(
                depths.labels, depths.logits, number
            )
        for name, logits in choices.items():
            figures = exact.evaluate_scores(test.labels, 1 / (1 + np.exp(-logits)), test.groups)
            rows.setdefault(name.rstrip(" 0123456789"), []).append(figures)
        for column, head in enumerate(test.heads):
            figures = exact.evaluate_scores(test.labels, test.probabilities[:, column], test.groups)
            rows.setdefault(head, []).append(figures)
    return {
        name: {key: float(np.mean([figures[key] for figures in found])) for key in FIGURES}
        for name, found in rows.items()
    }
