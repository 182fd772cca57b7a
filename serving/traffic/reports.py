"""The soak's report: what was counted and measured, and what of it was wrong."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from traffic.clients import Account

JUDGED_S = 120.0
"""Memory is judged only in soaks at least this long: before, caches still fill."""
GROWTH_PERCENT = 10.0
"""Most that memory may grow, by its slope, over the last two thirds of a soak."""


def summary(
    *,
    account: Account,
    quiet: Account,
    memory: Mapping[str, float | None],
    samples: Sequence[tuple[float, float, bool]],
    swaps: Sequence[float],
    refused: Mapping[str, int],
    checks: int,
    problems: Sequence[str],
    died: int | None,
    exit_code: int | None,
    log: str,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """The report as plain values.

    Args:
      account: of the requests of the soak.
      quiet: of the same requests, one at a time, before it.
      memory: MB of the server at ``start``, ``warm`` (after the quiet requests) and at the ``end``.
      samples: (seconds since the soak began, MB, whether a version was loading).
      swaps: seconds that each new version took to be in service.
      refused: kind of broken version -> how often it was reported as such.
      checks: looks at health and status; ``problems`` says what was wrong with any.
      problems: what the watchers found.
      died: the server's exit code where it ended on its own.
      exit_code: the server's exit code after SIGTERM; None where it did not end in time.
      log: what the server printed.
      settings: of the soak.
    """
    found = list(dict.fromkeys(problems))
    for name, part in (("soak", account), ("quiet", quiet)):
        if part.wrong:
            found.append(f"{part.wrong.total()} wrong replies in the {name}")
    if not account.codes:
        found.append("no request was sent")
    if not swaps:
        found.append("no version was swapped")
    tracebacks = log.count("Traceback (most recent call last)")
    if tracebacks:
        found.append(f"{tracebacks} tracebacks in the server's log")
    if died is not None:
        found.append(f"the server ended by itself with exit code {died}")
    elif exit_code != 0:
        found.append(f"the server's exit code after SIGTERM is {exit_code}")
    trend = _trend(samples, settings["seconds"])
    if settings["seconds"] >= JUDGED_S and trend["growth_percent"] > GROWTH_PERCENT:
        found.append(f"memory grew by {trend['growth_percent']:.1f} %")
    everything = np.concatenate([np.empty(0), *account.milliseconds.values()])
    return {
        **settings,
        "requests": sum(codes.total() for codes in account.codes.values()),
        "wrong": account.wrong.total(),
        "quiet_requests": sum(codes.total() for codes in quiet.codes.values()),
        "quiet_wrong": quiet.wrong.total(),
        "codes": dict(sum(account.codes.values(), Counter())),
        "kinds": {
            kind: {"codes": dict(codes), "wrong": account.wrong[kind]}
            for kind, codes in sorted(account.codes.items())
        },
        "good_ms": {
            "all": _times(everything),
            **{kind: _times(times) for kind, times in sorted(account.milliseconds.items())},
        },
        "memory_mb": {**memory, "minutes": _minutes(samples), **trend},
        "swaps": len(swaps),
        "swap_seconds": {"median": _median(swaps), "longest": max(swaps, default=None)},
        "broken_versions": dict(refused),
        "health_checks": checks,
        "tracebacks": tracebacks,
        "exit_code": exit_code,
        "faults": [*quiet.faults, *account.faults],
        "problems": found,
    }


def _times(milliseconds: Sequence[float]) -> dict[str, float]:
    if not len(milliseconds):
        return {"count": 0}
    p50, p99 = np.percentile(milliseconds, (50, 99))
    return {"count": len(milliseconds), "p50": float(p50), "p99": float(p99)}


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if len(values) else None


def _minutes(samples: Sequence[tuple[float, float, bool]]) -> list[float]:
    """The median of each minute."""
    minutes: dict[int, list[float]] = {}
    for second, value, _ in samples:
        minutes.setdefault(int(second // 60), []).append(value)
    return [float(np.median(values)) for _, values in sorted(minutes.items())]


def _trend(samples: Sequence[tuple[float, float, bool]], seconds: float) -> dict[str, float]:
    """The line of least squares through the last two thirds, while nothing loads."""
    late = np.array(
        [(t, value) for t, value, loading in samples if t >= seconds / 3 and not loading]
    )
    if len(late) < 3:
        return {"slope_per_minute": 0.0, "growth_percent": 0.0}
    slope, height = np.polyfit(late[:, 0] - late[0, 0], late[:, 1], 1)
    growth = slope * (late[-1, 0] - late[0, 0])
    return {"slope_per_minute": float(60 * slope), "growth_percent": float(100 * growth / height)}


def markdown(report: Mapping[str, Any]) -> str:
    """The report to read."""
    memory, times = report["memory_mb"], report["good_ms"]
    codes = ", ".join(f"{code} {count:,}" for code, count in sorted(report["codes"].items()))
    broken = ", ".join(f"{kind} {count}" for kind, count in report["broken_versions"].items())
    longest = report["swap_seconds"]["longest"]
    lines = [
        "# Soak",
        "",
        f"{report['seconds']:.0f} s, {report['clients']} clients",
        "",
        "| | |",
        "|---|---|",
        f"| requests | {report['requests']:,} |",
        f"| wrong replies | {report['wrong']} |",
        f"| asked in quiet before, wrong | {report['quiet_requests']:,}, {report['quiet_wrong']} |",
        f"| statuses | {codes} |",
        f"| good calls, p50 and p99 | {_pair(times['all'])} ms |",
        f"| versions swapped | {report['swaps']}, the slowest in {_number(longest)} s |",
        f"| broken versions refused | {broken or 'none'} |",
        f"| memory at start, warm, at the end | {_number(memory['start'])}, "
        f"{_number(memory['warm'])}, {_number(memory['end'])} MB |",
        f"| memory, median of each minute | "
        f"{', '.join(_number(value) for value in memory['minutes'])} MB |",
        f"| memory, slope of the last two thirds while nothing loads | "
        f"{memory['slope_per_minute']:+.2f} MB a minute, {memory['growth_percent']:+.1f} % in all |",
        f"| looks at health and versions | {report['health_checks']} |",
        f"| exit code after SIGTERM, sent while a version loads | {report['exit_code']} |",
        "",
        "| good calls | count | p50 ms | p99 ms |",
        "|---|---|---|---|",
    ]
    for kind, row in times.items():
        if kind != "all":
            lines.append(
                f"| {kind} | {row['count']:,} | {_number(row.get('p50'))} | "
                f"{_number(row.get('p99'))} |"
            )
    lines += ["", "| kind of request | statuses | wrong |", "|---|---|---|"]
    for kind, row in report["kinds"].items():
        found = ", ".join(f"{code} {count:,}" for code, count in sorted(row["codes"].items()))
        lines.append(f"| {kind} | {found} | {row['wrong']} |")
    lines.append("")
    lines += [f"PROBLEM: {problem}" for problem in report["problems"]] or ["All was right."]
    lines += [f"- {one}" for one in report["faults"]]
    return "\n".join(lines)


def _pair(row: Mapping[str, float]) -> str:
    return f"{_number(row.get('p50'))}, {_number(row.get('p99'))}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
