"""All plots, drawn from plain data."""

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
    """AUC and GAUC by loops, with references as lines; ``depths`` as of ``predict.evaluate_run``."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6))
    loops = [row["loops"] for row in depths]
    model = depths[0].get("model", "LoopCTR")
    for axis, key, title in zip(axes, ("auc", "gauc"), ("AUC", "GAUC"), strict=True):
        axis.plot(loops, [row[key] for row in depths], "o-", label=model)
        for index, (name, values) in enumerate((references or {}).items(), start=1):
            label = name.replace("_", " ")
            axis.axhline(values[key], linestyle="--", color=f"C{index}", label=label)
        axis.set(title=f"{title} by loop depth, test", xlabel="inference loops", xticks=loops)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    _save(figure, path)


def tradeoff_plot(
    path: str | Path,
    points: Sequence[tuple[str, float, float, float | None]],
    xlabel: str,
    ylabel: str,
) -> None:
    """Labelled points (label, x, y, deviation of y or None), x on a logarithmic scale."""
    figure, axis = plt.subplots(figsize=(8, 5))
    for index, (label, x, y, deviation) in enumerate(points):
        axis.errorbar(x, y, yerr=deviation, fmt="o", capsize=3, color=f"C{index % 10}")
        axis.annotate(label, (x, y), xytext=(5, 4), textcoords="offset points", fontsize=8)
    axis.margins(x=0.2)  # room for the last label
    axis.set(xscale="log", xlabel=xlabel, ylabel=ylabel, title=f"{ylabel} against {xlabel}")
    axis.grid(alpha=0.3)
    _save(figure, path)


def training_plot(path: str | Path, history: Mapping[str, Sequence[float]]) -> None:
    """Loss and AUC of every head by epoch, training dashed and validation solid."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6))
    epochs = range(1, len(history["loss"]) + 1)
    heads = [name.removesuffix("auc") for name in history if name.endswith("auc")]
    heads = sorted(head for head in heads if not head.startswith("val_"))
    titles = {"loss": "log-loss", "auc": "AUC (200 thresholds)"}
    for axis, (metric, title) in zip(axes, titles.items(), strict=True):
        for index, head in enumerate(heads):
            name = head + metric  # "loop_0_auc", or "auc" of a model with one head
            color, label = f"C{index}", head.replace("_", " ").strip() or None
            validated = f"val_{name}" in history
            trained_label = None if validated else label
            axis.plot(epochs, history[name], "--", color=color, alpha=0.6, label=trained_label)
            if validated:
                axis.plot(epochs, history[f"val_{name}"], "o-", color=color, label=label)
        axis.set(title=f"{title}: train --, valid -", xlabel="epoch", xticks=list(epochs))
        axis.grid(alpha=0.3)
    if heads != [""]:
        axes[0].legend(fontsize=8)
    _save(figure, path)


def draw_description(folder: str | Path, found: Mapping[str, Any]) -> None:
    """Draws the result of ``describe.describe``: histories, unknown values, and days if known."""
    folder = Path(folder)
    history_plot(folder / "history_lengths.png", found["sequences"])
    unknown_plot(folder / "unknown_values.png", found["tables"])
    if found["days"]:
        days_plot(folder / "ctr_by_day.png", found["days"])


def history_plot(path: str | Path, sequences: Mapping[str, Mapping[str, Any]]) -> None:
    """Per sequence and split, the share of rows with at least x events; of ``describe.describe``."""
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
    """CTR and rows by day, one colour per split; ``days`` of ``describe.describe``."""
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
    """Per table with a vocabulary, its size and the share of unknown values by split."""
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
