"""The benchmarks' reports as text for people."""

from collections.abc import Mapping
from typing import Any

from loopctr_tf.bench.tables import bytes_in_words, table


def train_text(found: Mapping[str, Any]) -> str:
    """The report of :func:`~loopctr_tf.bench.train.bench_train`."""
    return "\n".join(
        [
            f"{found['examples_per_s']:,.0f} examples/s; a step of {found['batch_size']:,} rows takes "
            f"{found['p50_ms']:,.1f} ms (p95 {found['p95_ms']:,.1f} ms; {found['calls']} steps), the "
            f"first one {found['first_step_s']:.1f} s",
            f"{found['flops_per_example'] / 1e6:,.1f} MFLOP an example (active experts, with padding): "
            f"{found['share_of_matmul_rate']:.0%} of this machine's {_rates(found)}",
            f"peak memory {bytes_in_words(found['peak_memory_bytes'])}, in the timed steps "
            f"{bytes_in_words(found['steps_memory_bytes'])}; {found['parameters']:,} parameters",
            "",
            _where_one_goes("step", found["where_time_goes"]),
        ]
    )


def score_text(report: Mapping[str, Any]) -> str:
    """The report of :func:`~loopctr_tf.bench.score.bench_score`."""
    rows, history = report["scoring"], f"{report['history']}"
    if report["long_history"]:
        history += f"+{report['long_history']}"
    figures = [
        {
            **row,
            "mega": row["flops_per_example"] / 1e6,
            "giga": row["matmul_rate"] / 1e9,
            "peak": bytes_in_words(row["peak_memory_bytes"]),
        }
        for row in rows
    ]
    columns = {
        "loops": "{loops}",
        "rows": "{batch_size:,}",
        "p50 ms": "{p50_ms:,.2f}",
        "p95 ms": "{p95_ms:,.2f}",
        "examples/s": "{examples_per_s:,.0f}",
        "MFLOP/example": "{mega:,.1f}",
        "share": "{share_of_matmul_rate:.1%}",
        "GFLOP/s of products": "{giga:,.0f}",
        "peak memory": "{peak}",
    }
    return "\n\n".join(
        [
            f"Rows of {history} events scored one by one, in process (share: of the matrix-product "
            "rate, active experts counted)",
            table(figures, columns),
            _where_one_goes("call", rows[0]["where_time_goes"])
            if len(rows) == 1
            else _where_several_go(
                {
                    f"{row['loops']} loops, {row['batch_size']:,}": row["where_time_goes"]
                    for row in rows
                }
            ),
        ]
    )


def table_sizes_text(report: Mapping[str, Any]) -> str:
    """The report of :func:`~loopctr_tf.bench.table_sizes.bench_tables`."""
    rows = [{**row, "held": bytes_in_words(row["state_bytes"])} for row in report["tables"]]
    return (
        f"A training step of {report['batch_size']:,} rows ({report['history']} events each, "
        f"{report['distinct_ids']:,.0f} distinct items) by the size of the item table\n\n"
        + table(
            rows,
            {
                "table rows": "{table_rows:,}",
                "p50 ms": "{p50_ms:,.1f}",
                "p95 ms": "{p95_ms:,.1f}",
                "steps": "{calls}",
                "x smallest": "{times_smallest:.2f}",
                "weights and optimizer": "{held}",
            },
        )
        + f"\n\npeak memory {bytes_in_words(report['peak_memory_bytes'])}, all sizes at once"
    )


def _rates(found: Mapping[str, Any]) -> str:
    before, after = (found[f"matmul_rate_{when}"] / 1e9 for when in ("before", "after"))
    others = [
        f"; {key.removeprefix('matmul_rate_')} {value / 1e9:,.0f} GFLOP/s"
        for key, value in found.items()
        if key.startswith("matmul_rate_") and not key.endswith(("_before", "_after"))
    ]
    return (
        f"{found['matmul_rate'] / 1e9:,.0f} GFLOP/s of float32 products "
        f"(before {before:,.0f}, after {after:,.0f}{''.join(others)})"
    )


def _where_one_goes(what: str, where: Mapping[str, Any]) -> str:
    if not where["kinds"]:
        return f"Where a {what}'s time goes: {where['note']}"
    columns = {
        "kind": "{kind}",
        "share": "{share:.1%}",
        f"ms a {what}": "{ms:,.2f}",
        "operations": "{count:,.0f}",
    }
    return (
        f"Where a {what}'s time goes: {where['operation_ms']:,.1f} ms in operations, summed over "
        f"threads, {where['at_once']:.1f} at the same time; none runs {where['idle_share']:.0%} of "
        f"the {what}\n\n{table(where['kinds'], columns)}"
    )


def _where_several_go(wheres: Mapping[str, Mapping[str, Any]]) -> str:
    found = list(wheres.values())
    shares = [{row["kind"]: row["share"] for row in where["kinds"]} for where in found]
    kinds = {kind for share in shares for kind in share}
    kinds = sorted(kinds, key=lambda kind: -sum(share.get(kind, 0) for share in shares))
    if not kinds:
        return f"Where a call's time goes: {found[0]['note']}"
    rows = [(kind, [f"{share.get(kind, 0):.1%}" for share in shares]) for kind in kinds]
    for label, key, form in (
        ("ms in operations", "operation_ms", "{:,.2f}"),
        ("at the same time", "at_once", "{:.1f}"),
        ("none runs", "idle_share", "{:.1%}"),
    ):
        rows.append((label, [form.format(where[key]) for where in found]))
    columns = {name: f"{{cells[{place}]}}" for place, name in enumerate(wheres)}
    return (
        "Where a call's time goes: shares of the time in operations, summed over threads\n\n"
        + table(
            [{"kind": label, "cells": cells} for label, cells in rows],
            {"kind": "{kind}", **columns},
        )
    )


def serve_tables(report: Mapping[str, Any]) -> str:
    """The report of :func:`~loopctr_tf.bench.serve.bench_serve`, with ratios to the pointwise path."""
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


def input_text(found: Mapping[str, Any]) -> str:
    """The report of :func:`~loopctr_tf.bench.reading.bench_input`."""
    return (
        f"{found['examples_per_s']:,.0f} examples/s in batches of {found['batch_size']:,}; "
        f"peak memory {bytes_in_words(found['peak_memory_bytes'])}"
    )


def load_text(report: Mapping[str, Any]) -> str:
    """The report of :func:`~loopctr_tf.bench.load.bench_load`."""
    rows = [
        {
            **run,
            **{key: "-" if run[key] is None else f"{run[key]:.2f}" for key in run if "_ms" in key},
            "errors": ", ".join(f"{code} {n}" for code, n in sorted(run["errors"].items())) or "0",
        }
        for run in report["runs"]
    ]
    columns = {
        "clients": "{clients}",
        **{f"p{p} ms": f"{{p{p}_ms}}" for p in (50, 95, 99)},
        "requests/s": "{requests_per_s:,.1f}",
        "candidates/s": "{candidates_per_s:,.0f}",
        "errors": "{errors}",
    }
    loop = "closed loop"
    if report["rate"] is not None:
        loop = f"open loop, {report['rate']:g} requests/s"
        columns["not sent in time"] = "{unsent}"
    return (
        f"{report['signature']} of {report['model']} at {report['target']}: "
        f"{report['candidates']} candidates, history {report['history']}, "
        f"{report['request_bytes']:,} bytes a request, {loop}\n\n{table(rows, columns)}"
    )


def hostile_text(report: Mapping[str, Any]) -> str:
    """The report of :func:`~loopctr_tf.bench.hostile.bench_hostile`."""
    sent = f"{report['requests']} hostile requests to {', '.join(report['signatures'])}"
    return "\n".join([f"{sent} at {report['target']}", *_verdict(report)])


def soak_text(report: Mapping[str, Any]) -> str:
    """The report of :func:`~loopctr_tf.bench.soak.bench_soak`."""
    codes = ", ".join(f"{code} {n:,}" for code, n in sorted(report["requests"].items()))
    memory = ", ".join(f"{when} {mb:,.0f} MiB" for when, mb in report["memory_mb"].items())
    return "\n".join(
        [
            f"{report['seconds']:g} s, {report['clients']} clients; requests by status: {codes}",
            f"{len(report['swaps'])} versions swapped, {report['broken_versions']} broken refused",
            f"resident memory of the server: {memory}",
            *_verdict(report),
        ]
    )


def _verdict(report: Mapping[str, Any]) -> list[str]:
    return [f"PROBLEM {line}" for line in report["problems"]] or ["All was right."]
