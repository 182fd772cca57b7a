"""Threads that send cases, each over a channel of its own, and the account of what came back."""

import collections
import threading
import time
from collections.abc import Mapping, Sequence

import grpc
import numpy as np

from traffic.cases import EXACT, METHODS, Answer, Case, Code, Reply, fault
from traffic.messages import versioned
from traffic.server import Server
from traffic.versions import Versions

GOOD_SHARE = 0.5
"""Share of requests that are good ones."""
_PINNED_SHARE = 0.1
"""Share of good Predict requests that name a version."""
_FAULTS_KEPT = 30


class Account:
    """Counts of requests by kind and status, times of good ones, and what went wrong. Thread-safe."""

    def __init__(self):
        self._lock = threading.Lock()
        self.codes: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
        self.wrong: collections.Counter = collections.Counter()
        self.faults: list[str] = []
        self.milliseconds: dict[str, list[float]] = collections.defaultdict(list)

    def add(self, case: Case, reply: Reply, milliseconds: float, problem: str | None) -> None:
        """Enters one request."""
        with self._lock:
            self.codes[case.kind][reply.code.name] += 1
            if case.good:
                self.milliseconds[case.kind].append(milliseconds)
            if problem is not None:
                self.wrong[case.kind] += 1
                if len(self.faults) < _FAULTS_KEPT:
                    self.faults.append(f"{case.kind} ({case.method}): {problem}")


class Sender:
    """Sends cases over one connection.

    Args:
      target: host:port.
      versions: tells which version may have answered.
      account: takes the outcomes.
    """

    def __init__(self, target: str, versions: Versions, account: Account):
        options = [
            ("grpc.use_local_subchannel_pool", 1),  # a connection of its own
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
        ]
        self._channel = grpc.insecure_channel(target, options)
        self._methods = {
            name: self._channel.unary_unary(path) for name, (path, _) in METHODS.items()
        }
        self._versions, self._account = versions, account

    def send(self, case: Case, pinned: int | None = None, tolerance: float = EXACT) -> Reply:
        """Sends a case, enters its outcome, and returns the reply.

        Args:
          case: the request.
          pinned: insist on a version, which may be in service or not.
          tolerance: of numbers.
        """
        payload = case.payload if pinned is None else versioned(case.payload, pinned)
        start = time.monotonic()
        reply = self._reply(case, payload)
        end = time.monotonic()
        possible = self._versions.possible(start, end)
        if pinned is not None:
            problem = pinned_fault(case, reply, pinned, possible)
        else:
            problem = fault(case, reply, possible, tolerance)
        self._account.add(case, reply, 1e3 * (end - start), problem)
        return reply

    def _reply(self, case: Case, payload: bytes) -> Reply:
        call = self._methods[case.method].future(payload, timeout=case.timeout_s)
        if case.cancel_after_s is not None:
            time.sleep(case.cancel_after_s)
            call.cancel()
        try:
            return Reply(Code.OK, data=call.result())
        except grpc.FutureCancelledError:
            return Reply(Code.CANCELLED)
        except grpc.RpcError as error:
            return Reply(error.code(), details=error.details() or "")

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()


def pinned_fault(case: Case, reply: Reply, pinned: int, possible: Mapping[int, str]) -> str | None:
    """What is wrong with the reply to a request that names a version."""
    gone = Answer(Code.NOT_FOUND, f", {pinned})")
    if reply.code is Code.NOT_FOUND and gone.words in reply.details:
        only = len(possible) == 1 and pinned in possible
        return f"version {pinned} was in service and not found" if only else None
    if pinned not in possible:
        return f"{reply.code.name} instead of NOT_FOUND of version {pinned}"
    return fault(case, reply, {pinned: possible[pinned]})


class Traffic:
    """Threads that send good and bad cases at random until they are stopped.

    Args:
      server: that answers; no more is sent once it has ended.
      versions: tells which version may have answered.
      account: takes the outcomes.
      cases: what to send.
      clients: threads.
      think_s: mean pause of a thread between two requests, drawn from an exponential distribution.
      seed: of the order.
    """

    def __init__(
        self,
        server: Server,
        versions: Versions,
        account: Account,
        cases: Sequence[Case],
        clients: int,
        think_s: float,
        seed: int,
    ):
        self._server, self._versions, self._account = server, versions, account
        self._good = _by_kind(case for case in cases if case.good)
        self._bad = _by_kind(case for case in cases if not case.good)
        self._think_s = think_s
        self._stop = threading.Event()
        self._errors: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._run, args=(np.random.default_rng([seed, index]),))
            for index in range(clients)
        ]

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def _run(self, rng: np.random.Generator) -> None:
        sender = Sender(self._server.target, self._versions, self._account)
        try:
            while (
                not self._stop.wait(rng.exponential(self._think_s)) and self._server.ended is None
            ):
                good = rng.random() < GOOD_SHARE or not self._bad
                kinds = self._good if good else self._bad
                cases, weights = kinds[rng.integers(len(kinds))]
                case = cases[rng.choice(len(cases), p=weights)]
                pinned = None
                if good and case.method == "Predict" and rng.random() < _PINNED_SHARE:
                    now = time.monotonic()
                    newest = max(self._versions.possible(now, now))
                    pinned = int(rng.integers(max(1, newest - 3), newest + 1))
                sender.send(case, pinned)
        except BaseException as error:
            self._errors.append(error)
        finally:
            sender.close()


def _by_kind(cases) -> list[tuple[list[Case], np.ndarray]]:
    """The cases of each kind, and how often each of them comes within its kind."""
    kinds: dict[str, list[Case]] = {}
    for case in cases:
        kinds.setdefault(case.kind, []).append(case)
    found = []
    for _, group in sorted(kinds.items()):
        weights = np.array([case.weight for case in group])
        found.append((group, weights / weights.sum()))
    return found
