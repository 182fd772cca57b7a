"""Closed and open loops of requests to an endpoint, and what they measure."""

import collections
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc

from loopctr_tf.bench.timing import quantiles
from loopctr_tf.scoring import ScoringClient
from loopctr_tf.scoring.tls import channel_credentials
from traffic.cases import METHODS

FIRST_S = 300.0
"""Longest time for a first call, in which the server may have to prepare the signature."""


class Endpoint:
    """How to reach a model.

    Args:
      target: ``host:port`` of a gRPC port.
      name: of the model.
      timeout_s: deadline of a call.
      tls: True for TLS with the system's authorities, or a PEM file of authorities.
      metadata: pairs sent with every call.
    """

    def __init__(
        self,
        target: str,
        name: str = "loopctr",
        timeout_s: float = 10.0,
        tls: bool | Path = False,
        metadata: Sequence[tuple[str, str]] = (),
    ):
        self.target, self.name, self.timeout_s = target, name, timeout_s
        self._tls, self._metadata = tls, tuple(metadata)

    def client(self) -> ScoringClient:
        """A client of the library."""
        return ScoringClient(
            self.target,
            self.name,
            timeout_s=max(self.timeout_s, 10.0),
            tls=self._tls,
            metadata=self._metadata,
        )

    def channel(self) -> grpc.Channel:
        """A connection of its own."""
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
        ]
        if self._tls is False:
            return grpc.insecure_channel(self.target, options)
        authorities = None if self._tls is True else self._tls
        return grpc.secure_channel(self.target, channel_credentials(authorities), options)

    def call(self, channel: grpc.Channel, method: str) -> Callable[..., bytes]:
        """A call that sends a serialized request and gives the serialized response."""
        send = channel.unary_unary(METHODS[method][0])
        return lambda payload, timeout=self.timeout_s: send(
            payload, timeout=timeout, metadata=self._metadata
        )


def measure(
    endpoint: Endpoint,
    method: str,
    payloads: Sequence[bytes],
    clients: int,
    seconds: float,
    rate: float | None = None,
) -> dict:
    """One measurement.

    Returns:
      ``clients``; ``requests`` answered, their ``p50_ms``, ``p95_ms`` and ``p99_ms`` (None without
      any) and ``requests_per_s``; ``errors`` by status; ``unsent``: requests of the open loop that
      were due and not sent before the end. These take part in the percentiles with the time that
      they had waited by then.
    """
    schedule = _Schedule(clients, seconds, rate)
    latencies: list[float] = []
    errors: collections.Counter = collections.Counter()
    broken: list[BaseException] = []

    def run() -> None:
        try:
            with endpoint.channel() as channel:
                call = endpoint.call(channel, method)
                grpc.channel_ready_future(channel).result(FIRST_S)
                for number, due in schedule:
                    try:
                        call(payloads[number % len(payloads)])
                    except grpc.RpcError as error:
                        errors[error.code().name] += 1
                    else:
                        latencies.append(time.perf_counter() - due)
        except BaseException as error:
            broken.append(error)
            schedule.abort()

    threads = [threading.Thread(target=run) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if broken:
        raise broken[0]
    elapsed = time.perf_counter() - schedule.start
    waited = schedule.unsent()
    times = {"p50_ms": None, "p95_ms": None, "p99_ms": None}
    if latencies or waited:
        times = quantiles([*latencies, *waited])
    return {
        "clients": clients,
        "requests": len(latencies),
        "requests_per_s": len(latencies) / elapsed,
        **{key: times[key] for key in ("p50_ms", "p95_ms", "p99_ms")},
        "errors": dict(errors),
        "unsent": len(waited),
    }


class _Schedule:
    """Hands out requests to threads: each with its number and the time from which it counts.

    All threads begin together. Without a rate a request is due at once; with one, request i is due i
    intervals after the start.
    """

    def __init__(self, clients: int, seconds: float, rate: float | None):
        self._seconds, self._rate = seconds, rate
        self._lock = threading.Lock()
        self._next = 0
        self.start = 0.0
        self._ready = threading.Barrier(clients, action=self._begin)

    def _begin(self) -> None:
        self.start = time.perf_counter()

    def abort(self) -> None:
        """Lets no thread wait for one that has failed."""
        self._ready.abort()

    def __iter__(self):
        self._ready.wait()
        end = self.start + self._seconds
        while True:
            with self._lock:
                number = self._next
                due = time.perf_counter()
                if self._rate is not None:
                    due = self.start + number / self._rate
                if max(due, time.perf_counter()) >= end:
                    return
                self._next += 1
            time.sleep(max(0.0, due - time.perf_counter()))
            yield number, due

    def unsent(self) -> list[float]:
        """Seconds that each request had waited which was due and not sent by the end."""
        if self._rate is None:
            return []
        due = int(-(-self._seconds * self._rate // 1))
        return [self._seconds - number / self._rate for number in range(self._next, due)]
