"""How many processes work on parts."""

import os

from loopctr_tf.errors import UsageError


def worker_count(workers: int | None) -> int:
    """``workers``, or the number of this process's cores if None.

    Raises:
      UsageError: if less than one.
    """
    if workers is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if workers < 1:
        raise UsageError(f"workers is {workers!r}; give 1 or more")
    return workers
