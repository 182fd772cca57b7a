"""`loopctr bench load`: requests of one signature to any TensorFlow Serving gRPC endpoint.

Closed loop: each client sends its next request when the last one is answered. Open loop (``rate``):
requests are due at a fixed rate, and their latency counts from then, so that a server that stalls
cannot hide the requests that had to wait.
"""

import threading
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

_DISTINCT = 16
"""Different requests, sent in turn."""
MOST_REQUESTS = 10_000_000
"""A measurement ends after as many, whatever its time."""


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
    """Measures one signature of a server.

    Args:
      endpoint: the model.
      signature: its name.
      candidates: of one user in a ranking request; rows of any other request.
      history: events of each sequence.
      clients: how many send at the same time, for one measurement each.
      seconds: of each measurement.
      rate: requests a second over all clients, for the open loop.
      schema: see :class:`~loopctr_tf.bench.requests.Requests`.
      seed: of the features.
      say: takes lines about progress.

    Returns:
      ``target``, ``model``, ``signature``, ``candidates``, ``history``, ``request_bytes``, ``rate``
      and ``runs``: for each number of ``clients`` the result of :func:`measure` with
      ``candidates_per_s``.

    Raises:
      UsageError: for sizes that cannot be, and where the server refuses the requests.
    """
    check_least("clients", clients)
    for name, value in (("--seconds", seconds), ("--rate", rate)):
        if value is not None and not value > 0:
            raise UsageError(f"{name} is {value!r}; give a number above 0")
    requests = Requests(endpoint, schema, seed)
    made = [requests.payload(signature, candidates, history) for _ in range(_DISTINCT)]
    method, payloads = made[0][0], [payload for _, payload in made]
    with endpoint.channel() as channel:
        for payload in payloads:
            code, details = status_of(endpoint.call(channel, method), payload, FIRST_S)
            if code is not grpc.StatusCode.OK:
                raise UsageError(
                    f"{endpoint.target} refused a request of {signature!r} with {code.name} "
                    f"({details}); choose another --signature or size"
                )
    runs = []
    for count in clients:
        say(f"{count} clients, {seconds:g} s")
        found = measure(endpoint, method, payloads, count, seconds, rate)
        scored = 0 if signature.startswith("encode_user") else candidates
        runs.append({**found, "candidates_per_s": scored * found["requests_per_s"]})
    return {
        "target": endpoint.target,
        "model": endpoint.name,
        "signature": signature,
        "candidates": candidates,
        "history": history,
        "request_bytes": sum(map(len, payloads)) // len(payloads),
        "rate": rate,
        "runs": runs,
    }


def measure(
    endpoint: Endpoint,
    method: str,
    payloads: Sequence[bytes],
    clients: int,
    seconds: float,
    rate: float | None = None,
) -> dict[str, Any]:
    """One measurement.

    Returns:
      ``clients``; ``requests`` answered, ``requests_per_s``, ``p50_ms``, ``p95_ms``, ``p99_ms`` (None
      without any); ``errors`` by status; ``unsent``: requests that were due by the end and for which
      no client was free. These count in the percentiles with the time that they had waited.
    """
    latencies: list[float] = []
    errors: Counter[str] = Counter()
    numbers, lock = iter(range(MOST_REQUESTS)), threading.Lock()
    ready = threading.Barrier(clients + 1)
    start = 0.0

    def client() -> None:
        with endpoint.channel() as channel:
            call = endpoint.call(channel, method)
            try:
                grpc.channel_ready_future(channel).result(endpoint.timeout_s)
            except BaseException:
                ready.abort()
                raise
            ready.wait()
            ready.wait()  # between the two, the clock starts
            while time.perf_counter() < start + seconds:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                due = time.perf_counter() if rate is None else start + number / rate
                if due >= start + seconds:
                    return
                time.sleep(max(0.0, due - time.perf_counter()))
                code, _ = status_of(call, payloads[number % len(payloads)])
                if code is grpc.StatusCode.OK:
                    latencies.append(time.perf_counter() - due)
                else:
                    errors[code.name] += 1

    with ThreadPoolExecutor(clients) as pool:
        running = [pool.submit(client) for _ in range(clients)]
        try:
            ready.wait()
            start = time.perf_counter()
            ready.wait()
        except threading.BrokenBarrierError:
            raise UsageError(f"{endpoint.target} accepts no more connections") from None
        for each in running:
            each.result()
        elapsed = time.perf_counter() - start
    sent = len(latencies) + errors.total()
    due = 0 if rate is None else int(-(-seconds * rate // 1))
    waited = [seconds - number / rate for number in range(sent, due)]
    times = dict.fromkeys(("p50_ms", "p95_ms", "p99_ms"))
    if latencies or waited:
        times = {key: quantiles([*latencies, *waited])[key] for key in times}
    return {
        "clients": clients,
        "requests": len(latencies),
        "requests_per_s": len(latencies) / elapsed,
        **times,
        "errors": dict(errors),
        "unsent": len(waited),
    }
