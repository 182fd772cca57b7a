"""The benchmarks' reports as text for people."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from loopctr_tf.bench.tables import bytes_in_words, table

_Report = Mapping[str, Any]
_LATENCY = "p50 ms {p50_ms:.2f}; p95 {p95_ms:.2f}; p99 {p99_ms:.2f}"
_SHARE = "(share: of the matrix-product rate, active experts counted)"


def train_text(found: _Report) -> str:
    """The report of :func:`~loopctr_tf.bench.train.bench_train`."""
    rates = {
        name.removeprefix("matmul_rate_"): f"{value / 1e9:,.0f}"
        for name, value in found.items()
        if name.startswith("matmul_rate")
    }
    rate, before, after = (rates.pop(name) for name in ("matmul_rate", "before", "after"))
    others = "".join(f"; {dtype} {other} GFLOP/s" for dtype, other in rates.items())
    return (
        f"{found['examples_per_s']:,.0f} examples/s; a step of {found['batch_size']:,} rows takes "
        f"{found['p50_ms']:,.1f} ms (p95 {found['p95_ms']:,.1f} ms; {found['calls']} steps), the "
        f"first one {found['first_step_s']:.1f} s\n"
        f"{found['flops_per_example'] / 1e6:,.1f} MFLOP an example (active experts, with padding): "
        f"{found['share_of_matmul_rate']:.0%} of this machine's {rate} GFLOP/s of float32 products "
        f"(before {before}, after {after}{others})\n"
        f"peak memory {bytes_in_words(found['peak_memory_bytes'])}, in the timed steps "
        f"{bytes_in_words(found['steps_memory_bytes'])}; {found['parameters']:,} parameters\n\n"
        f"{_where_time_goes('step', found['where_time_goes'])}"
    )


def score_text(report: _Report) -> str:
    """The report of :func:`~loopctr_tf.bench.score.bench_score`."""
    rows, long = _rows(report, "scoring"), report["long_history"]
    history = f"{report['history']}+{long}" if long else f"{report['history']}"
    if len(rows) == 1:
        where = _where_time_goes("call", rows[0]["where_time_goes"])
    else:
        where = _where_several_go(
            {f"{row['head']}, {row['batch_size']:,}": row["where_time_goes"] for row in rows}
        )
    columns = (
        "head {head}; rows {batch_size:,}; p50 ms {p50_ms:,.2f}; p95 ms {p95_ms:,.2f}; "
        "examples/s {examples_per_s:,.0f}; MFLOP/example {mega:,.1f}; "
        "share {share_of_matmul_rate:.1%}; GFLOP/s of products {giga:,.0f}; peak memory {memory}"
    )
    heading = f"Rows of {history} events scored one by one, in process {_SHARE}"
    return f"{heading}\n\n{table(rows, columns)}\n\n{where}"


def table_sizes_text(report: _Report) -> str:
    """The report of :func:`~loopctr_tf.bench.table_sizes.bench_tables`."""
    rows = [{**row, "size": bytes_in_words(row["state_bytes"])} for row in report["tables"]]
    columns = (
        "table rows {table_rows:,}; p50 ms {p50_ms:,.1f}; p95 ms {p95_ms:,.1f}; steps {calls}; "
        "x smallest {times_smallest:.2f}; weights and optimizer {size}"
    )
    return (
        f"A training step of {report['batch_size']:,} rows ({report['history']} events each, "
        f"{report['distinct_ids']:,.0f} distinct items) by the size of the item table\n\n"
        f"{table(rows, columns)}\n\n"
        f"peak memory {bytes_in_words(report['peak_memory_bytes'])}, all sizes at once"
    )


def serve_tables(report: _Report) -> str:
    """The report of :func:`~loopctr_tf.bench.serve.bench_serve`, with ratios to the pointwise path."""
    paths, pointwise = _rows(report, "paths"), None
    for row in paths:  # each pointwise path is in front of those that it is compared with
        pointwise = row["p50_ms"] if row["path"] == "pointwise" else pointwise
        scores = row["path"] != "encode_user"
        row["times"] = f"{pointwise / row['p50_ms']:.1f}" if scores else ""
        row["per_s"] = f"{row['candidates_per_s']:,.0f}" if scores else ""
    where = "T {history}; head {head}; N {candidates:,}"
    sizes = "T {history}; all signatures {bytes:,}; graph {graph_bytes:,}"
    if "zero_loop_bytes" in report["exports"][0]:
        sizes += "; zero loops alone {zero_loop_bytes:,}; graph of them {zero_loop_graph_bytes:,}"
    parts = {
        f"In process {_SHARE}": (
            paths,
            f"{where}; path {{path}}; {_LATENCY}; calls {{calls}}; candidates/s {{per_s}}; "
            "x pointwise {times}; GFLOP/s of products {giga:.0f}; share {share_of_matmul_rate:.0%}",
        ),
        "Over gRPC, one caller": (
            _rows(report, "grpc"),
            f"{where}; {_LATENCY}; in process p50 {{in_process_p50_ms:.2f}}; "
            "overhead ms {overhead_ms:.2f}",
        ),
        "Callers at the same time, over gRPC": (
            _rows(report, "concurrency"),
            f"{where}; clients {{clients}}; {_LATENCY}; requests/s {{requests_per_s:.1f}}; "
            "candidates/s {candidates_per_s:,.0f}",
        ),
        "Exports, bytes": (report["exports"], sizes),
        "State of a user, bytes": (
            _rows(report, "state_bytes"),
            "T {history}; head {head}; state {bytes:,}",
        ),
    }
    return "\n\n".join(
        f"{heading}\n\n{table(rows, columns)}" for heading, (rows, columns) in parts.items() if rows
    )


def input_text(found: _Report) -> str:
    """The report of :func:`~loopctr_tf.bench.reading.bench_input`."""
    return (
        f"{found['examples_per_s']:,.0f} examples/s in batches of {found['batch_size']:,}; "
        f"peak memory {bytes_in_words(found['peak_memory_bytes'])}"
    )


def load_text(report: _Report) -> str:
    """The report of :func:`~loopctr_tf.bench.load.bench_load`."""
    rows = [
        {
            **run,
            **{key: "-" if run[key] is None else f"{run[key]:.2f}" for key in run if "_ms" in key},
            "errors": _counts(run["errors"]) or "0",
        }
        for run in report["runs"]
    ]
    columns = (
        "clients {clients}; p50 ms {p50_ms}; p95 ms {p95_ms}; p99 ms {p99_ms}; "
        "requests/s {requests_per_s:,.1f}; candidates/s {candidates_per_s:,.0f}; errors {errors}"
    )
    loop = "closed loop"
    if report["rate"] is not None:
        loop = f"open loop, {report['rate']:g} requests/s"
        columns += "; not sent in time {unsent}"
    return (
        f"{report['signature']} of {report['model']} at {report['target']}: "
        f"{report['candidates']} candidates, history {report['history']}, "
        f"{report['request_bytes']:,} bytes a request, {loop}\n\n{table(rows, columns)}"
    )


def hostile_text(report: _Report) -> str:
    """The report of :func:`~loopctr_tf.bench.hostile.bench_hostile`."""
    sent = f"{report['requests']} hostile requests to {', '.join(report['signatures'])}"
    return f"{sent} at {report['target']}\n{_verdict(report)}"


def soak_text(report: _Report) -> str:
    """The report of :func:`~loopctr_tf.bench.soak.bench_soak`."""
    memory = ", ".join(f"{when} {mb:,.0f} MiB" for when, mb in report["memory_mb"].items())
    return (
        f"{report['seconds']:g} s, {report['clients']} clients; requests by status: "
        f"{_counts(report['requests'])}\n"
        f"{len(report['swaps'])} versions swapped, {report['broken_versions']} broken refused\n"
        f"resident memory of the server: {memory}\n{_verdict(report)}"
    )


def _rows(report: _Report, name: str) -> list[dict[str, Any]]:
    """Rows in the units of the tables; the only head of a model is called what the model is."""
    rows = [{**row, "head": row["head"] or report["model"]} for row in report[name]]
    for row in rows:
        row["mega"] = row.get("flops_per_example", 0) / 1e6
        row["giga"] = row.get("matmul_rate", 0) / 1e9
        row["memory"] = bytes_in_words(row.get("peak_memory_bytes", 0))
    return rows


def _where_time_goes(what: str, where: _Report) -> str:
    """Of one measurement, of a step or a call."""
    if not where["kinds"]:
        return f"Where a {what}'s time goes: {where['note']}"
    columns = (
        f"kind {{kind}}; share {{share:.1%}}; ms a {what} {{ms:,.2f}}; operations {{count:,.0f}}"
    )
    return (
        f"Where a {what}'s time goes: {where['operation_ms']:,.1f} ms in operations, summed over "
        f"threads, {where['at_once']:.1f} at the same time; none runs {where['idle_share']:.0%} of "
        f"the {what}\n\n{table(where['kinds'], columns)}"
    )


def _where_several_go(wheres: Mapping[str, _Report]) -> str:
    """One column for each measurement of a call, one line for each kind of operation."""
    shares = {name: {r["kind"]: r["share"] for r in w["kinds"]} for name, w in wheres.items()}
    frame = pd.DataFrame(shares).fillna(0.0)
    if frame.empty:
        return f"Where a call's time goes: {next(iter(wheres.values()))['note']}"
    frame = frame.loc[frame.sum(axis=1).sort_values(ascending=False).index].map("{:.1%}".format)
    for label, key, form in (
        ("ms in operations", "operation_ms", "{:,.2f}"),
        ("at the same time", "at_once", "{:.1f}"),
        ("none runs", "idle_share", "{:.1%}"),
    ):
        frame.loc[label] = [form.format(where[key]) for where in wheres.values()]
    align = ["left", *["right"] * len(wheres)]
    cells = frame.rename_axis("kind").to_markdown(colalign=align, disable_numparse=True)
    heading = "Where a call's time goes: shares of the time in operations, summed over threads"
    return f"{heading}\n\n{cells}"


def _counts(by_status: Mapping[str, int]) -> str:
    return ", ".join(f"{code} {count:,}" for code, count in sorted(by_status.items()))


def _verdict(report: _Report) -> str:
    return "\n".join(f"PROBLEM {line}" for line in report["problems"]) or "All was right."
