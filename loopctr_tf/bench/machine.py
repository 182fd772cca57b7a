"""What the machine can do: its rate of matrix products, its cores, the memory in use."""

import platform
import resource
import sys
import time
from typing import Any

import numpy as np
import tensorflow as tf

from loopctr_tf.building.workers import worker_count


def matmul_rate(size: int = 1024, seconds: float = 0.5) -> float:
    """Floating-point operations a second of float32 products of square matrices, the best seen.

    The neighbours on a shared machine change it from minute to minute: measure it in the run whose
    figures are to be set beside it.
    """
    rng = np.random.default_rng(0)
    a, b = (tf.constant(rng.standard_normal((size, size)), tf.float32) for _ in range(2))
    product = tf.function(tf.matmul)
    product(a, b).numpy()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        product(a, b).numpy()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def peak_memory_bytes() -> int:
    """Most memory that this process ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def describe() -> dict[str, Any]:
    """Cores and versions, for a report."""
    return {
        "cores": worker_count(None),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
    }
