"""The figures of a comparison: by system and head over seeds, against a base, and of the oracle."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from loopctr_tf.compare.protocol import Comparison, Row
from loopctr_tf.compare.runs import chosen, seed_folder
from loopctr_tf.errors import UsageError
from loopctr_tf.evaluation import exact, oracle
from loopctr_tf.evaluation.significance import delong, gauc_bootstrap, user_aucs
from loopctr_tf.models import MODELS

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
    out: Path,
    comparison: Comparison,
    rows: Sequence[Row],
    costs: Sequence[Mapping[str, Any]] = (),
    references: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """All figures of the finished ``rows``.

    Args:
      out: folder of the comparison.
      comparison: what was compared.
      rows: those whose runs are all there.
      costs: ``heads`` of :func:`~loopctr_tf.compare.efficiency.measure`.
      references: test probabilities [n] by name.

    Returns:
      ``heads``: a row for each head of each system, then one for each reference, with ``row``, ``kind``,
      ``head``, ``label``, the three figures as ``{"mean", "deviation", "values"}``, ``against`` (the
      label that it is compared with), ``auc_difference``, ``gauc_difference``, and what it costs, with
      ``ratios``. Systems and references are compared with ``base``: LoopCTR at zero loops, or the first
      row; an ablation's head with the same head of LoopCTR. ``oracle``: by system with several heads.
      ``search``: what was chosen, by row. ``configs``: model settings, by row.

    Raises:
      UsageError: where runs were scored on different rows.
    """
    by_cost = {(cost["row"], cost["head"]): cost for cost in costs}
    seeds = range(1, comparison.protocol.seeds + 1)
    tests = {row.name: [scored(seed_folder(out, row, s), "test") for s in seeds] for row in rows}
    first = tests[rows[0].name][0]
    heads, samples = [], {}
    for row in rows:
        names = tests[row.name][0].heads
        for test in tests[row.name]:
            if not all(np.array_equal(a, b) for a, b in zip(test[:2], first[:2], strict=True)):
                raise UsageError(
                    f"{row.name} was scored on other test rows than {rows[0].name}; compare in a new "
                    "folder"
                )
        for column, head in enumerate(names):
            label = _label(row, head, len(names) - 1)
            samples[label] = [test.probabilities[:, column] for test in tests[row.name]]
            cost = by_cost.get((row.name, head), {})
            heads.append(
                {
                    "row": row.name,
                    "kind": row.kind,
                    "head": head,
                    "label": label,
                    **_figures(first, samples[label]),
                    **{key: cost[key] for key in cost if key not in ("row", "head")},
                }
            )
    for name, probabilities in (references or {}).items():
        label = name.replace("_", " ")
        samples[label] = [probabilities]
        figures = _figures(first, samples[label])
        heads.append({"row": name, "kind": "reference", "head": "", "label": label, **figures})
    base = next((h for h in heads if (h["row"], h["head"]) == ("loopctr", "loop_0")), heads[0])
    _compare(heads, base, samples, first)
    return {
        "base": base["label"],
        "heads": heads,
        "oracle": {
            row.name: _oracle(
                [
                    (scored(seed_folder(out, row, seed), "valid"), test)
                    for seed, test in zip(seeds, tests[row.name], strict=True)
                ]
            )
            for row in rows
            if row.kind == "system" and len(tests[row.name][0].heads) > 1
        },
        "search": {row.name: chosen(out, row) for row in rows if row.searched_as == row.name},
        "configs": {
            row.name: comparison.config(row, chosen(out, row)["choice"]).model.to_dict()
            for row in rows
        },
    }


def _label(row: Row, head: str, loops: int) -> str:
    name = row.name if row.kind != "system" else MODELS[row.name][1]
    return f"{name}({head.removeprefix('loop_')}/{loops})" if head else name


def _figures(rows: Scored, by_seed: Sequence[np.ndarray]) -> dict[str, dict[str, Any]]:
    found = pd.DataFrame([exact.evaluate_scores(rows.labels, p, rows.groups) for p in by_seed])
    return {
        name: {
            "mean": float(found[name].mean()),
            "deviation": float(found[name].std(ddof=1)) if len(found) > 1 else None,
            "values": found[name].tolist(),
        }
        for name in FIGURES
    }


def _compare(heads: list[dict], base: dict, samples: Mapping[str, list], rows: Scored) -> None:
    """Adds differences, and ratios of costs, to every row that is not compared with itself."""
    by_user = {
        label: [user_aucs(rows.labels, p, rows.groups) for p in found]
        for label, found in samples.items()
    }
    full = {h["head"]: h["label"] for h in heads if (h["row"], h["kind"]) == ("loopctr", "system")}
    for head in heads:
        is_variant = head["kind"] in ("ablation", "sensitivity")
        own, other = head["label"], full.get(head["head"]) if is_variant else base["label"]
        if other is not None and own != other:
            head["against"] = other
            differences = {
                "auc_difference": delong(rows.labels, samples[own], samples[other], rows.groups),
                "gauc_difference": gauc_bootstrap(by_user[own], by_user[other]),
            }
            head.update({name: found._asdict() for name, found in differences.items()})
        if "flops" in head and "flops" in base:
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
