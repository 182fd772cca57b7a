"""`loopctr bench load`: requests of one signature to any TensorFlow Serving gRPC endpoint.

Closed loop: each client sends its next request when the last one is answered. Open loop (``rate``):
requests are due at a fixed rate, and their latency counts from then, so that a server that stalls
cannot hide the requests that had to wait.
"""

import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from loopctr_tf.bench.requests import FIRST_S, Endpoint, Requests, status_of
from loopctr_tf.bench.session import check_least
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
    say: Callable[[str], None] = lambda line: None,
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
    payloads = [requests.predict(signature, candidates, history) for _ in range(_DISTINCT)]
    with endpoint.channel() as channel:
        for payload in payloads:
            code, details = status_of(endpoint.call(channel), payload, FIRST_S)
            if code is not grpc.StatusCode.OK:
                raise UsageError(
                    f"{endpoint.target} refused a request of {signature!r} with {code.name} "
                    f"({details}); choose another --signature or size"
                )
    scored = 0 if signature.startswith(names.ENCODE_USER) else candidates
    runs = []
    for count in clients:
        say(f"{count} clients, {seconds:g} s")
        found = measure(endpoint, payloads, count, seconds, rate)
        runs.append({**found, "candidates_per_s": scored * found["requests_per_s"]})
    size = sum(map(len, payloads)) // len(payloads)
    about = {"target": endpoint.target, "model": endpoint.name, "signature": signature}
    about |= {"candidates": candidates, "history": history, "request_bytes": size, "rate": rate}
    return {**about, "runs": runs}


def measure(
    endpoint: Endpoint, payloads: Sequence[bytes], clients: int, seconds: float, rate=None
) -> dict[str, Any]:
    """One measurement.

    Returns:
      ``clients``; ``requests`` answered, ``requests_per_s``, ``p50_ms``, ``p95_ms``, ``p99_ms`` (None
      without any); ``errors`` by status; ``unsent``: requests that were due by the end, when every
      client was busy. They count in the percentiles with the time that they had waited.
    """
    latencies: list[float] = []
    errors: Counter[str] = Counter()
    numbers = itertools.count()

    def client(channel: grpc.Channel) -> None:
        call = endpoint.call(channel)
        for number in numbers:
            now = time.perf_counter()
            due = now if rate is None else start + number / rate
            if max(now, due) >= start + seconds:
                return
            time.sleep(max(0.0, due - now))
            code, _ = status_of(call, payloads[number % len(payloads)])
            if code is grpc.StatusCode.OK:
                latencies.append(time.perf_counter() - due)
            else:
                errors[code.name] += 1

    with contextlib.ExitStack() as stack:
        channels = [stack.enter_context(endpoint.channel()) for _ in range(clients)]
        try:
            for channel in channels:
                grpc.channel_ready_future(channel).result(endpoint.timeout_s)
        except grpc.FutureTimeoutError:
            raise UsageError(f"{endpoint.target} accepts no more connections") from None
        pool = stack.enter_context(ThreadPoolExecutor(clients))
        start = time.perf_counter()
        list(pool.map(client, channels))
        elapsed = time.perf_counter() - start
    sent = len(latencies) + errors.total()
    due = 0 if rate is None else int(-(-seconds * rate // 1))
    waited = [seconds - number / rate for number in range(sent, due)]
    times = dict.fromkeys(("p50_ms", "p95_ms", "p99_ms"))
    if latencies or waited:
        times = {key: quantiles([*latencies, *waited])[key] for key in times}
    found = {"clients": clients, "requests": len(latencies)}
    found |= {"requests_per_s": len(latencies) / elapsed, **times}
    return {**found, "errors": dict(errors), "unsent": len(waited)}
