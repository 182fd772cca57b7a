"""All pictures, drawn in one place from plain data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np


def depth_plot(
    path: str | Path,
    depths: Sequence[Mapping[str, Any]],
    references: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """AUC and GAUC by loops (rows of ``evaluation.depth_metrics``), with references as lines."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6))
    loops = [row["loops"] for row in depths]
    for axis, key, title in zip(axes, ("auc", "gauc"), ("AUC", "GAUC"), strict=True):
        axis.plot(loops, [row[key] for row in depths], "o-", label="LoopCTR")
        for index, (name, values) in enumerate((references or {}).items(), start=1):
            axis.axhline(
                values[key], linestyle="--", color=f"C{index}", label=name.replace("_", " ")
            )
        axis.set(title=f"{title} by loop depth, test", xlabel="inference loops", xticks=loops)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    _save(figure, path)


def training_plot(path: str | Path, history: Mapping[str, Sequence[float]]) -> None:
    """Loss and AUC of every depth by epoch, training dashed and validation solid."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6))
    epochs = range(1, len(history["loss"]) + 1)
    for axis, figure_name in zip(axes, ("loss", "auc"), strict=True):
        depths = sorted(
            int(name.split("_")[1])
            for name in history
            if name.startswith("loop_") and name.endswith(figure_name)
        )
        for depth in depths:
            name = f"loop_{depth}_{figure_name}"
            color, label = f"C{depth}", f"depth {depth}"
            validated = f"val_{name}" in history
            trained_label = None if validated else label
            axis.plot(epochs, history[name], "--", color=color, alpha=0.6, label=trained_label)
            if validated:
                axis.plot(epochs, history[f"val_{name}"], "o-", color=color, label=label)
        title = {"loss": "log-loss", "auc": "AUC (200 thresholds)"}[figure_name]
        axis.set(title=f"{title}: train --, valid -", xlabel="epoch", xticks=list(epochs))
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    _save(figure, path)


def history_plot(path: str | Path, sequences: Mapping[str, Mapping[str, Any]]) -> None:
    """For each sequence and split the share of rows with at least so many events.

    ``sequences`` as of ``describe.describe``.
    """
    figure, axes = plt.subplots(
        1, len(sequences), figsize=(4.5 * len(sequences), 3.6), squeeze=False, sharey=True
    )
    for axis, (name, by_split) in zip(axes[0], sequences.items(), strict=True):
        for split, found in by_split.items():
            rows = np.array(found["histogram"])
            axis.step(range(len(rows)), rows[::-1].cumsum()[::-1] / rows.sum(), label=split)
        axis.set(title=name, xlabel="events", ylabel="share of rows with at least", ylim=(0, 1.02))
        axis.grid(alpha=0.3)
    axes[0][0].legend(fontsize=8)
    _save(figure, path)


def days_plot(path: str | Path, days: Mapping[str, Mapping[str, Sequence[int]]]) -> None:
    """CTR and rows by day, a colour a split; ``days`` as of ``describe.describe``."""
    figure, axes = plt.subplots(2, 1, figsize=(9, 5), sharex=True)
    for index, split in enumerate(("train", "valid", "test")):
        found = [(day, *by_split[split]) for day, by_split in days.items() if split in by_split]
        if found:
            names, rows, clicks = zip(*found, strict=True)
            dates = np.array(names, "datetime64[D]")
            axes[0].plot(dates, np.array(clicks) / rows, "o-", color=f"C{index}", label=split)
            axes[1].bar(dates, rows, color=f"C{index}", alpha=0.6)
    axes[0].set(title="CTR by day (UTC)", ylim=(0, None))
    axes[1].set(title="rows by day (UTC)")
    axes[0].legend(fontsize=8)
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.autofmt_xdate()
    _save(figure, path)


def unknown_plot(path: str | Path, tables: Mapping[str, Mapping[str, Any]]) -> None:
    """For each table with a vocabulary the share of unknown values by split, and its size.

    ``tables`` as of ``describe.describe``.
    """
    known = {name: found for name, found in tables.items() if found["vocabulary"] is not None}
    figure, axis = plt.subplots(figsize=(9, 1 + 0.5 * max(len(known), 2)))
    places = np.arange(len(known))
    splits = list(next(iter(known.values()))["unknown"]) if known else []
    for index, split in enumerate(splits):
        shares = [found["unknown"][split] or 0.0 for found in known.values()]
        axis.barh(places + 0.25 * (index - 1), shares, 0.25, label=split)
    labels = [f"{name} ({found['vocabulary']:,})" for name, found in known.items()]
    axis.set(
        title="share of values that are not in the vocabulary (its size)",
        yticks=places,
        yticklabels=labels,
    )
    axis.invert_yaxis()
    axis.grid(alpha=0.3, axis="x")
    if splits:
        axis.legend(fontsize=8)
    _save(figure, path)


def _save(figure, path: str | Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
