"""Where the time of a call goes, by kind of operation, from a profile of TensorFlow."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pandas as pd

from loopctr_tf.bench import machine
from loopctr_tf.bench.kinds import kind_of
from loopctr_tf.bench.timing import repeated, speeds
from loopctr_tf.bench.trace import Event, record

_TOP = 15
_SECONDS = 0.5
_LEAST, _MOST = 3, 50


def calls_for(seconds_a_call: float) -> int:
    """Calls to profile: half a second of them, but three at least and fifty at most."""
    return min(max(math.ceil(_SECONDS / max(seconds_a_call, 1e-9)), _LEAST), _MOST)


def profiled(
    call: Callable[[], object],
    seconds: float,
    examples: int,
    flops_per_example: float,
    dtype: str,
    scopes: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Times a call beside the machine's own rate for ``seconds``, then profiles it.

    Returns:
      The result of :func:`~loopctr_tf.bench.timing.speeds`, ``peak_memory_bytes`` (in the timed calls,
      where the system tells) and ``where_time_goes``.
    """
    machine.forget_peak_memory()
    times, rates = machine.beside_matmul_rate(lambda: repeated(call, seconds), dtype)
    peak = machine.peak_memory_bytes()
    found = speeds(times, examples, flops_per_example, rates)
    where = where_time_goes(call, calls_for(found["p50_ms"] / 1e3), scopes)
    return {**found, "peak_memory_bytes": peak, "where_time_goes": where}


def where_time_goes(
    call: Callable[[], object], calls: int, scopes: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Profiles a few calls; do it after the timed ones, which profiling would slow down.

    An operation's time is that of the thread which starts it, without nested operations: a product on
    all cores counts once, two operations at the same time count twice. A loop or an inlined function
    counts as the operations inside it.

    Args:
      call: to profile; called before.
      calls: number of calls.
      scopes: part of an operation's name -> kind, see :func:`~loopctr_tf.bench.kinds.kind_of`.

    Returns:
      ``calls``, ``call_ms`` (wall clock, while profiled), ``operation_ms`` (the sum over threads),
      ``at_once`` (operations that ran at the same time, on average, while any did),
      ``idle_share`` (of the call without any operation: Python, feeding, scheduling), ``kinds``
      (rows of ``kind``, ``share`` of ``operation_ms``, ``ms`` and ``count`` a call), ``operations``
      (likewise, the first 15 types), ``on_gpu`` and ``note``. No rows where nothing was recorded.
    """
    trace = record(call, calls)
    events = [
        (kind_of(event.node, event.operation, scopes), event.operation, own / 1e9 / calls)
        for line in trace.lines
        for event, own in own_times(line)
    ]
    frame = pd.DataFrame(events, columns=["kind", "operation", "ms"]).astype({"ms": float})
    total = float(frame["ms"].sum())
    covered = _covered(event for line in trace.lines for event in line) / 1e9 / calls
    call_ms = 1e3 * trace.seconds / calls
    where = "streams of the GPU" if trace.on_gpu else "threads"
    note = f"times are sums over {where}; operations that run at the same time count both"
    return {
        "calls": calls,
        "call_ms": call_ms,
        "operation_ms": total,
        "at_once": total / covered if covered else 0.0,
        "idle_share": max(0.0, 1 - covered / call_ms),
        "on_gpu": trace.on_gpu,
        "note": note if total else "the profiler recorded no operations",
        "kinds": _rows(frame, calls, ["kind"]),
        "operations": _rows(frame, calls, ["kind", "operation"])[:_TOP],
    }


def own_times(line: list[Event]) -> Iterator[tuple[Event, int]]:
    """Each operation of a line with its time (ps), less that of the operations nested in it."""
    open_: list[list] = []
    for event in line:
        while open_ and open_[-1][0].end <= event.start:
            yield tuple(open_.pop())
        if open_:
            open_[-1][1] -= min(event.end, open_[-1][0].end) - event.start
        open_.append([event, event.end - event.start])
    while open_:
        yield tuple(open_.pop())


def _covered(events) -> int:
    """Time (ps) in which at least one operation ran, on whatever line."""
    covered = until = 0
    for event in sorted(events, key=lambda event: event.start):
        covered += max(0, event.end - max(event.start, until))
        until = max(until, event.end)
    return covered


def _rows(frame: pd.DataFrame, calls: int, names: list[str]) -> list[dict[str, Any]]:
    """Sums by the columns ``names``, the longest first."""
    sums = frame.groupby(names, as_index=False).agg(ms=("ms", "sum"), count=("ms", "size"))
    sums = sums.assign(share=sums["ms"] / sums["ms"].sum(), count=sums["count"] / calls)
    sums = sums.sort_values("ms", ascending=False, kind="stable")
    return sums[[*names, "share", "ms", "count"]].to_dict("records")
