"""Rows of figures as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """A Markdown table.

    Args:
      rows: of figures by name.
      columns: heading -> format, such as ``{"N": "{candidates:,}", "p50 ms": "{p50_ms:.1f}"}``.
    """
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for row in rows:
        lines.append(f"| {' | '.join(form.format(**row) for form in columns.values())} |")
    return "\n".join(lines)


def serve_tables(report: Mapping[str, Any]) -> str:
    """What :func:`~loopctr_tf.bench.serve.bench_serve` found, with the ratios that matter."""
    pointwise = {
        (row["history"], row["loops"], row["candidates"]): row["p50_ms"]
        for row in report["paths"]
        if row["path"] == "pointwise"
    }
    rows = []
    for row in report["paths"]:
        base = pointwise[row["history"], row["loops"], row["candidates"]]
        scores = row["path"] != "encode_user"
        rows.append(
            {
                **row,
                "times": f"{base / row['p50_ms']:.1f}" if scores else "",
                "per_s": f"{row['candidates_per_s']:,.0f}" if scores else "",
                "giga": row["matmul_rate"] / 1e9,
            }
        )
    where = {"T": "{history}", "loops": "{loops}", "N": "{candidates:,}"}
    latency = {"p50 ms": "{p50_ms:.2f}", "p95": "{p95_ms:.2f}", "p99": "{p99_ms:.2f}"}
    parts = [
        "In process (share: of the matrix-product rate, active experts counted)",
        table(
            rows,
            {
                **where,
                "path": "{path}",
                **latency,
                "calls": "{calls}",
                "candidates/s": "{per_s}",
                "x pointwise": "{times}",
                "GFLOP/s of products": "{giga:.0f}",
                "share": "{share_of_matmul_rate:.0%}",
            },
        ),
        "Over gRPC, one caller",
        table(
            report["grpc"],
            {
                **where,
                **latency,
                "in process p50": "{in_process_p50_ms:.2f}",
                "overhead ms": "{overhead_ms:.2f}",
            },
        ),
        "Callers at the same time, over gRPC",
        table(
            report["concurrency"],
            {
                "T": "{history}",
                "N": "{candidates:,}",
                "clients": "{clients}",
                **latency,
                "requests/s": "{requests_per_s:.1f}",
                "candidates/s": "{candidates_per_s:,.0f}",
            },
        ),
        "Exports and states, bytes",
        table(
            report["exports"],
            {
                "T": "{history}",
                "all signatures": "{bytes:,}",
                "zero loops alone": "{zero_loop_bytes:,}",
                "their graphs": "{graph_bytes:,} and {zero_loop_graph_bytes:,}",
            },
        ),
        table(
            report["state_bytes"],
            {"T": "{history}", "loops": "{loops}", "state of a user": "{bytes:,}"},
        ),
    ]
    return "\n\n".join(parts)
