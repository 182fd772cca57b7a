"""Times of repeated calls and their quantiles."""

import time
from collections.abc import Callable, Sequence

import numpy as np

LEAST_CALLS = 5


def repeated(call: Callable[[], object], seconds: float, warm: int = 2) -> list[float]:
    """Seconds of each call, for about ``seconds`` and at least five calls, after ``warm`` calls."""
    for _ in range(warm):
        call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < LEAST_CALLS or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def quantiles(times: Sequence[float]) -> dict[str, float]:
    """``p50_ms``, ``p95_ms``, ``p99_ms`` and the number of ``calls`` they come from."""
    p50, p95, p99 = np.percentile(np.asarray(times) * 1e3, [50, 95, 99])
    return {"p50_ms": float(p50), "p95_ms": float(p95), "p99_ms": float(p99), "calls": len(times)}
