"""A run's report for people and for programs: ``report.md`` and ``report.json``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loopctr_tf.training.run_folder import write_json

COLUMNS = (("AUC", "auc"), ("GAUC", "gauc"), ("NE", "ne"), ("calibration", "calibration"))


def metrics_table(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """A Markdown table of named metrics."""
    lines = [
        "| | " + " | ".join(title for title, _ in COLUMNS) + " |",
        "|---|" + "---|" * len(COLUMNS),
    ]
    for name, values in rows:
        lines.append(f"| {name} | " + " | ".join(_figure(values.get(k)) for _, k in COLUMNS) + " |")
    return "\n".join(lines)


def depth_rows(depths: Sequence[Mapping[str, Any]], loops: int) -> list[tuple[str, Mapping]]:
    """Rows of :func:`metrics_table`, named as in the paper, LoopCTR(i/L), where a row has loops."""
    return [
        (f"LoopCTR({row['loops']}/{loops})" if "loops" in row else row["model"], row)
        for row in depths
    ]


def write_report(
    folder: str | Path, title: str, facts: Mapping[str, Any], notes: Sequence[str], loops: int
) -> str:
    """Writes ``report.json`` (``facts``) and ``report.md`` into ``folder``; returns the latter's text.

    ``facts`` holds at least ``depths``, ``references``, ``served_max_abs_diff``, ``parameters`` and
    ``seconds`` (stage -> seconds).
    """
    folder = Path(folder)
    rows = [
        *depth_rows(facts["depths"], loops),
        *((name.replace("_", " "), values) for name, values in facts["references"].items()),
    ]
    served = [
        f"- largest difference between a served and a Keras probability: "
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
            metrics_table(rows),
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


def _figure(value: float | None) -> str:
    return "" if value is None or value != value else f"{value:.4f}"
