"""`loopctr bench load`: requests of one signature to any TensorFlow Serving gRPC endpoint.

Closed loop: each client sends its next request when the last one is answered. Open loop (``rate``):
requests are due at a fixed rate, and their latency counts from then, so that a server that stalls
cannot hide the requests that had to wait.
"""

import contextlib
import itertools
import math
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from loopctr_tf.bench.report import Log, check_least, silent
from loopctr_tf.bench.requests import FIRST_S, Case, Endpoint, Requests, Send
from loopctr_tf.bench.timing import quantiles
from loopctr_tf.errors import UsageError
from loopctr_tf.features.schema import Schema
from loopctr_tf.scoring import names

_DISTINCT = 16
"""Different requests, sent in turn."""


def bench_load(
    endpoint: Endpoint,
    signature: str = "rank_loop_0",
    candidates: int = 500,
    history: int = 100,
    clients: Sequence[int] = (1, 4, 16),
    seconds: float = 30.0,
    rate: float | None = None,
    schema: Schema | None = None,
    seed: int = 0,
    log: Log = silent,
) -> dict[str, Any]:
    """Measures one signature of a server; the options are those of the command.

    Returns:
      ``target``, ``model``, ``signature``, ``candidates``, ``history``, ``request_bytes``, ``rate``
      and ``runs``: for each number of ``clients`` the result of :func:`measure` with
      ``candidates_per_s``.

    Raises:
      UsageError: for clients below 1, and when the server refuses the requests.
    """
    check_least("clients", clients)
    requests = Requests(endpoint, schema, seed)
    cases = [requests.predict(signature, candidates, history) for _ in range(_DISTINCT)]
    with endpoint.connect() as send:
        for case in cases:
            status, details = send(case, FIRST_S)
            if status != case.status:
                raise UsageError(
                    f"{endpoint.target} refused a request of {signature!r} with {status} "
                    f"({details}); choose another --signature or size"
                )
    scored = 0 if signature.startswith(names.ENCODE_USER) else candidates
    runs = []
    for count in clients:
        log(f"{count} clients, {seconds:g} s")
        found = measure(endpoint, cases, count, seconds, rate)
        runs.append({**found, "candidates_per_s": scored * found["requests_per_s"]})
    return {
        "target": endpoint.target,
        "model": endpoint.name,
        "signature": signature,
        "candidates": candidates,
        "history": history,
        "request_bytes": sum(len(case.message) for case in cases) // len(cases),
        "rate": rate,
        "runs": runs,
    }


def measure(
    endpoint: Endpoint, cases: Sequence[Case], clients: int, seconds: float, rate=None
) -> dict[str, Any]:
    """One measurement, of clients that send the next of ``cases``, round and round.

    Returns:
      ``clients``; ``requests`` answered, ``requests_per_s``; ``errors`` by status; ``unsent`` requests,
      due by the end when every client was busy; ``p50_ms``, ``p95_ms``, ``p99_ms`` of the answered and,
      with the time that they had waited, the unsent (None without any), ``calls`` of them together.
    """
    latencies: list[float] = []
    errors: Counter[str] = Counter()
    numbers = itertools.count()

    def client(send: Send) -> None:
        for number in numbers:
            now = time.perf_counter()
            due = now if rate is None else start + number / rate
            if max(now, due) >= start + seconds:
                return
            time.sleep(max(0.0, due - now))
            status, _ = send(cases[number % len(cases)])
            if status == "OK":
                latencies.append(time.perf_counter() - due)
            else:
                errors[status] += 1

    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(endpoint.connect()) for _ in range(clients)]
        pool = stack.enter_context(ThreadPoolExecutor(clients))
        start = time.perf_counter()
        list(pool.map(client, connections))
        elapsed = time.perf_counter() - start
    sent = len(latencies) + errors.total()
    due = 0 if rate is None else math.ceil(seconds * rate)
    waited = [seconds - number / rate for number in range(sent, due)]
    return {
        "clients": clients,
        "requests": len(latencies),
        "requests_per_s": len(latencies) / elapsed,
        **quantiles([*latencies, *waited]),
        "errors": dict(errors),
        "unsent": len(waited),
    }
