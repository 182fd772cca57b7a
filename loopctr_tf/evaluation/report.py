"""Markdown tables of figures, ``report.md`` and ``report.json`` of a run, description of a data set."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from loopctr_tf.features.prepared import SPLITS
from loopctr_tf.files import write_json

COLUMNS = {"AUC": "auc", "GAUC": "gauc", "NE": "ne", "calibration": "calibration"}
_DAYS = 62
"""Above this many days, the description has one line a month."""


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells as an aligned Markdown table: the first column to the left, the others to the right."""
    alignment = ["left", *["right"] * (len(head) - 1)]
    frame = pd.DataFrame(rows, columns=head)
    return frame.to_markdown(index=False, disable_numparse=True, colalign=alignment)


def metrics_table(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """A Markdown table of (name, metrics) rows; a cell without a defined value is empty."""
    values = [[name, *(_figure(row.get(key)) for key in COLUMNS.values())] for name, row in rows]
    return markdown_table(["", *COLUMNS], values)


def depth_rows(
    depths: Sequence[Mapping[str, Any]], loops: int | None = None
) -> list[tuple[str, Mapping[str, Any]]]:
    """Rows of :func:`metrics_table`, one for each head of each model.

    Args:
      depths: metrics with ``model`` (LoopCTR by default), ``head`` and, if the head has them, ``loops``.
      loops: L, the loops of training. Heads with loops are named as in the paper: LoopCTR(i/L).
    """
    return [(_head_name(row, loops), row) for row in depths]


def _head_name(row: Mapping[str, Any], loops: int | None) -> str:
    model = row.get("model", "LoopCTR")
    if "loops" in row:
        return f"{model}({row['loops']})" if loops is None else f"{model}({row['loops']}/{loops})"
    return f"{model} {row.get('head', '')}".rstrip()


def write_report(
    folder: str | Path,
    title: str,
    facts: Mapping[str, Any],
    notes: Sequence[str],
    loops: int | None = None,
) -> str:
    """Writes ``report.json`` (``facts``) and ``report.md`` to ``folder``; returns the Markdown.

    Args:
      folder: an existing folder.
      title: heading of the report.
      facts: at least ``depths``, ``references``, ``served_max_abs_diff``, ``parameters`` and
        ``seconds`` (stage -> seconds); ``beside`` may hold rows of other systems like ``depths``.
      notes: lines at the end.
      loops: loops of training, for :func:`depth_rows`.
    """
    folder = Path(folder)
    references = [(name.replace("_", " "), row) for name, row in facts["references"].items()]
    served = [
        "- largest difference between a served probability and Keras's: "
        f"{facts['served_max_abs_diff']:.1e}",
    ]
    if "serving" in facts:
        s = facts["serving"]
        served.append(
            f"- one call of {s['rows_per_call']} rows: p50 {s['p50_ms']:.1f} ms, "
            f"p99 {s['p99_ms']:.1f} ms; {s['rows_per_s']:,.0f} rows/s over gRPC"
        )
    protocol = f" Protocol of the data: {facts['protocol']}." if facts.get("protocol") else ""
    text = "\n".join(
        [
            f"# {title}",
            "",
            f"{facts['parameters']:,} parameters. Test split, read once; exact metrics; GAUC is the "
            f"plain mean over users that have both labels.{protocol}",
            "",
            metrics_table(
                [
                    *depth_rows(facts["depths"], loops),
                    *depth_rows(facts.get("beside", ())),
                    *references,
                ]
            ),
            "",
            "![AUC by depth](auc_by_depth.png)",
            "![Training curves](training_curves.png)",
            "",
            "## Served",
            *served,
            "",
            "## Seconds",
            *(f"- {stage}: {seconds:.1f}" for stage, seconds in facts["seconds"].items()),
            "",
            *(f"- {note}" for note in notes),
            "",
        ]
    )
    (folder / "report.md").write_text(text, encoding="utf-8")
    write_json(folder / "report.json", facts)
    return text


def description_text(found: Mapping[str, Any]) -> str:
    """The result of :func:`loopctr_tf.evaluation.describe.describe` as Markdown tables."""
    splits = found["splits"]

    def counts(key: str) -> list[str]:
        return [f"{values[key]:,}" for values in splits.values()]

    def shares(by_split: Mapping[str, float | None]) -> list[str]:
        values = [by_split.get(split) for split in splits]
        return ["" if value is None else f"{value:.2%}" for value in values]

    def new(kind: str) -> list[str]:
        return shares({split: values.get(f"new_{kind}") for split, values in splits.items()})

    overview = [
        ["rows", *counts("rows")],
        ["CTR", *(f"{values['ctr']:.4f}" for values in splits.values())],
        ["users", *counts("users")],
        ["rows of users not in train", *new("users")],
        [found["item"] or "items", *counts("items")],
        ["rows of items not in train", *new("items")],
    ]
    parts = [
        markdown_table(["", *splits], overview),
        f"{found['users']:,} users and {found['items']:,} items in all",
        _facts_text(found["facts"], found.get("joins", {})),
        _warnings_text(found.get("warnings", ())),
        _days_text(found["days"]),
        *(_lengths_text(name, by_split) for name, by_split in found["sequences"].items()),
    ]
    tables = [
        [
            name,
            "hashed" if table["vocabulary"] is None else f"{table['vocabulary']:,}",
            *shares(table["unknown"]),
        ]
        for name, table in found["tables"].items()
    ]
    if tables:
        head = ["table", "values", *(f"unknown in {split}" for split in splits)]
        parts.append(markdown_table(head, tables))
    missing = [
        [name, *shares(values)] for name, values in found["missing"].items() if any(values.values())
    ]
    head = ["missing, or a number at its default", *splits]
    parts.append(markdown_table(head, missing) if missing else "no missing values")
    return "\n\n".join(part for part in parts if part)


def _lengths_text(name: str, by_split: Mapping[str, Mapping[str, Any]]) -> str:
    quantiles = next(iter(by_split.values()))["quantiles"]
    marks = [f"{float(quantile):.0%} up to" for quantile in quantiles]
    rows = [
        [
            split,
            f"{lengths['mean']:.1f}",
            *map(str, lengths["quantiles"].values()),
            str(lengths["max"]),
            f"{lengths['empty']:.1%}",
            f"{lengths['full']:.1%}",
        ]
        for split, lengths in by_split.items()
    ]
    return markdown_table([f"{name}: events", "mean", *marks, "most", "empty", "full"], rows)


def _facts_text(facts: Mapping[str, Any], joins: Mapping[str, Mapping[str, Any]]) -> str:
    """The protocol, the counts of events and when splits begin, if stats.json has them."""
    lines = [f"protocol: {facts['protocol']}"] if facts.get("protocol") else []
    for name in ("events", "rejected"):
        if facts.get(name):
            counts = ", ".join(f"{count:,} {kind}" for kind, count in facts[name].items())
            lines.append(f"{name}: {counts}")
    for table, join in joins.items():
        lines.append(
            f"events without a row in --{table}: {join['events_without_row']:,} ({join['share']:.2%}), "
            f"{join['values_without_row']:,} different {table}"
        )
    begins = [(split, facts.get(f"{split}_from")) for split in SPLITS]
    if any(begin for _, begin in begins):
        lines.append("splits begin: " + ", ".join(f"{split} {at}" for split, at in begins if at))
    return "\n".join(lines)


def _warnings_text(warnings: Sequence[str]) -> str:
    """What was said when the data was prepared."""
    return "\n".join(
        ["said when it was prepared:", *(f"- {line}" for line in warnings)] if warnings else []
    )


def _days_text(days: Mapping[str, Mapping[str, Sequence[int]]]) -> str:
    if not days:
        return "CTR by day: not known, stats.json has no days"
    title, width = ("day", len("2024-01-31")) if len(days) <= _DAYS else ("month", len("2024-01"))
    periods: dict[str, Counter] = {}
    for day, by_split in days.items():
        for split, (rows, clicks) in by_split.items():
            counts = periods.setdefault(day[:width], Counter())
            counts.update({"rows": rows, "clicks": clicks, split: rows})
    lines = [
        [
            period,
            f"{counts['rows']:,}",
            f"{counts['clicks'] / counts['rows']:.4f}",
            ", ".join(split for split in SPLITS if counts[split]),
        ]
        for period, counts in sorted(periods.items())
    ]
    return markdown_table([f"{title} (UTC)", "rows", "CTR", "splits"], lines)


def _figure(value: float | None) -> str:
    return "" if value is None or value != value else f"{value:.4f}"
