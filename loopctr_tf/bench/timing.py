"""Times of repeated calls, their quantiles, and the speeds that follow from them."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

LEAST_CALLS = 5


def repeated(call: Callable[[], object], seconds: float, warm: int = 2) -> list[float]:
    """Seconds of each call, for about ``seconds`` and at least five calls, after ``warm`` calls."""
    return in_turns([call], seconds, warm)[0]


def in_turns(
    calls: Sequence[Callable[[], object]], seconds: float, warm: int = 2
) -> list[list[float]]:
    """Like :func:`repeated` for several calls, interleaved.

    So background load affects all of them equally.

    Args:
      calls: to time.
      seconds: for all of them together.
      warm: rounds before the clock starts.

    Returns:
      The times of each call, by round.
    """
    for _ in range(warm):
        for call in calls:
            call()
    times: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + seconds
    while len(times[0]) < LEAST_CALLS or time.perf_counter() < end:
        for call, kept in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            kept.append(time.perf_counter() - start)
    return times


def quantiles(times: Sequence[float]) -> dict[str, Any]:
    """``p50_ms``, ``p95_ms``, ``p99_ms`` (None without times) and the number of ``calls``."""
    found = 1e3 * np.percentile(times, [50, 95, 99]) if len(times) else [None] * 3
    p50, p95, p99 = (None if value is None else float(value) for value in found)
    return {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "calls": len(times)}


def speeds(
    times: Sequence[float], examples: int, flops_per_example: float, rates: Mapping[str, float]
) -> dict[str, Any]:
    """Examples a second at the median time, and their share of the matrix-product rate.

    Args:
      times: of calls, in seconds.
      examples: of one call.
      flops_per_example: see :mod:`loopctr_tf.bench.flops`.
      rates: of :func:`~loopctr_tf.bench.machine.beside_matmul_rate`.
    """
    found = quantiles(times)
    speed = 1e3 * examples / found["p50_ms"]
    return {
        "examples_per_s": speed,
        "flops_per_example": flops_per_example,
        **rates,
        "share_of_matmul_rate": speed * flops_per_example / rates["matmul_rate"],
        **found,
    }
