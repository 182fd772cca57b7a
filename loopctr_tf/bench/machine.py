"""What the machine can do: its rate of matrix products, its cores, its memory."""

import contextlib
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
import tensorflow as tf

_Result = TypeVar("_Result")


def matmul_rate(size: int = 1024, seconds: float = 0.4, dtype: str = "float32") -> float:
    """Floating-point operations a second of products of square matrices: the best of several.

    On a shared machine it changes from minute to minute, so measure it in the run whose figures are
    compared with it; see :func:`beside_matmul_rate`.
    """
    rng = np.random.default_rng(0)
    a, b = (tf.cast(rng.standard_normal((size, size)), dtype) for _ in range(2))
    product = tf.function(tf.matmul)
    product(a, b).numpy()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        product(a, b).numpy()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def beside_matmul_rate(
    measure: Callable[[], _Result], dtype: str = "float32"
) -> tuple[_Result, dict[str, float]]:
    """Calls ``measure``, and takes the machine's rate just before and just after it.

    Args:
      measure: the benchmark.
      dtype: that the model computes in; for another than float32 its rate is given as well.

    Returns:
      (result, rates): ``matmul_rate`` is the larger one of ``matmul_rate_before`` and
      ``matmul_rate_after``, float32 all of them; ``matmul_rate_bfloat16`` or alike for ``dtype``.
    """
    before = matmul_rate()
    result = measure()
    after = matmul_rate()
    rates = {
        "matmul_rate": max(before, after),
        "matmul_rate_before": before,
        "matmul_rate_after": after,
    }
    if dtype != "float32":
        rates[f"matmul_rate_{dtype}"] = matmul_rate(dtype=dtype)
    return result, rates


def peak_memory_bytes() -> int:
    """Largest resident memory of this process, since :func:`forget_peak_memory` where that works."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def forget_peak_memory() -> None:
    """Resets :func:`peak_memory_bytes`, on Linux; elsewhere nothing happens."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def available_memory_bytes() -> int:
    """Memory that could be taken without swapping."""
    return psutil.virtual_memory().available


def describe() -> dict[str, Any]:
    """Cores that this process may use, and versions, for a report."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return {
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
    }
