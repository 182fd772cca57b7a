"""The description of a prepared folder for people."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loopctr_tf.evaluation.describe import QUANTILES
from loopctr_tf.features.prepared import SPLITS

_DAYS = 62


def description_text(found: Mapping[str, Any]) -> str:
    """What ``describe.describe`` found, as Markdown tables."""
    splits = list(found["splits"])
    parts = [
        _table(
            ["", *splits],
            [
                ["rows", *(_number(found["splits"][s]["rows"]) for s in splits)],
                ["CTR", *(f"{found['splits'][s]['ctr']:.4f}" for s in splits)],
                ["users", *(_number(found["splits"][s]["users"]) for s in splits)],
                ["rows of users not in train", *_shares(found["splits"], splits, "new_users")],
                [found["item"] or "items", *(_number(found["splits"][s]["items"]) for s in splits)],
                ["rows of items not in train", *_shares(found["splits"], splits, "new_items")],
            ],
        ),
        f"{found['users']:,} users and {found['items']:,} items in all",
        _facts_text(found["facts"]),
        _days_text(found["days"]),
    ]
    for name, by_split in found["sequences"].items():
        marks = [f"{float(q):.0%} up to" for q in QUANTILES]
        rows = [
            [
                split,
                f"{one['mean']:.1f}",
                *map(str, one["quantiles"].values()),
                str(one["max"]),
                f"{one['empty']:.1%}",
                f"{one['full']:.1%}",
            ]
            for split, one in by_split.items()
        ]
        parts.append(_table([f"{name}: events", "mean", *marks, "most", "empty", "full"], rows))
    rows = [
        [
            name,
            "hashed" if one["vocabulary"] is None else _number(one["vocabulary"]),
            *_shares({s: {"share": one["unknown"][s]} for s in splits}, splits, "share"),
        ]
        for name, one in found["tables"].items()
    ]
    if rows:
        parts.append(_table(["table", "values", *(f"unknown in {s}" for s in splits)], rows))
    rows = [
        [name, *_shares({s: {"share": shares[s]} for s in splits}, splits, "share")]
        for name, shares in found["missing"].items()
        if any(shares.values())
    ]
    if rows:
        parts.append(_table(["missing, or a number at its default", *splits], rows))
    else:
        parts.append("no missing values")
    return "\n\n".join(part for part in parts if part)


def draw_description(folder: str | Path, found: Mapping[str, Any]) -> None:
    """Draws what ``describe.describe`` found: histories, unknown values, days where these are known."""
    from loopctr_tf.evaluation import plots

    folder = Path(folder)
    plots.history_plot(folder / "history_lengths.png", found["sequences"])
    plots.unknown_plot(folder / "unknown_values.png", found["tables"])
    if found["days"]:
        plots.days_plot(folder / "ctr_by_day.png", found["days"])


def _facts_text(facts: Mapping[str, Any]) -> str:
    """The protocol, and what became of the events, where stats.json tells."""
    lines = [f"protocol: {facts['protocol']}"] if facts.get("protocol") else []
    for name in ("events", "rejected"):
        if facts.get(name):
            counts = ", ".join(f"{_number(count)} {what}" for what, count in facts[name].items())
            lines.append(f"{name}: {counts}")
    return "\n".join(lines)


def _days_text(days: Mapping[str, Mapping[str, Sequence[int]]]) -> str:
    if not days:
        return "CTR by day: not known, stats.json has no days"
    # A line a day, or a month where these would be too many.
    width = len("2024-01-31") if len(days) <= _DAYS else len("2024-01")
    periods: dict[str, Counter] = {}
    for day, by_split in days.items():
        for split, (rows, clicks) in by_split.items():
            counts = periods.setdefault(day[:width], Counter())
            counts.update({"rows": rows, "clicks": clicks, split: rows})
    lines = [
        [
            period,
            _number(counts["rows"]),
            f"{counts['clicks'] / counts['rows']:.4f}",
            ", ".join(split for split in SPLITS if counts[split]),
        ]
        for period, counts in sorted(periods.items())
    ]
    return _table(["day (UTC)" if width > 7 else "month (UTC)", "rows", "CTR", "splits"], lines)


def _shares(values, splits, key) -> list[str]:
    found = [values[split].get(key) for split in splits]
    return ["" if share is None else f"{share:.2%}" for share in found]


def _number(count) -> str:
    return f"{count:,}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
