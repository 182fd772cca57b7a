"""A soak of the embedded server: good and hostile requests while versions come and go.

Starts `loopctr serve` in a process of its own, asks it every request once in quiet, then all of them
at random from several threads while two exports take turns as the newest version and broken ones
turn up between. Every answer is compared with what its version's export answers when TensorFlow runs
it alone, every refusal with the status and the words that belong to it.
"""

import dataclasses
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click
import grpc
import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from grpc_health.v1 import health_pb2, health_pb2_grpc
from traffic.bad_examples import bad_example_cases
from traffic.cases import Case, fault
from traffic.clients import Account, Sender, Traffic
from traffic.good import LISTS, ROWS, good_cases
from traffic.hostile import abandoned_cases, hostile_cases
from traffic.references import Reference
from traffic.reports import markdown, summary
from traffic.samples import Sampler
from traffic.server import AVAILABLE, BROKEN, END, Server, Versions, statuses

from loopctr_tf.errors import UsageError
from loopctr_tf.runs import json_text

LABELS = ("A", "B")
_TAKE_UP_S = 180.0
"""Longest time that the server may take for a new version."""
_SAMPLE_S = 0.5
_GIVE_UP_AFTER = 2
"""Swaps that fail before no more are tried."""


def make_cases(
    exports: Mapping[str, Path], seed: int = 0, rows: tuple = ROWS, lists: tuple = LISTS
) -> list[Case]:
    """Every request of the soak, with what has to come back.

    Args:
      exports: name -> folder of an export that rejects bad input.
      seed: of the features.
      rows, lists: sizes of good requests, see :mod:`traffic.good`.

    Raises:
      UsageError: for folders that are no exports, or of which an answer would not tell which gave it.
    """
    references = {label: Reference(path) for label, path in exports.items()}
    first, *others = references.values()
    for other in others:
        if other.schema != first.schema:
            raise UsageError("the exports have different schemas; give two of one schema")
    names = sorted(set.intersection(*(set(r.signatures) for r in references.values())))
    sampler = Sampler(first.signatures, first.schema, seed)
    good = list(good_cases(references, sampler, names, rows, lists))
    _check_distinct(good)
    shared = (tuple(references), sampler, first.schema, names)
    return [*good, *hostile_cases(*shared), *bad_example_cases(*shared), *abandoned_cases(good)]


def _check_distinct(cases: Sequence[Case]) -> None:
    """Refuses exports whose answers are the same: one given by the wrong version would pass."""
    for case in cases:
        if case.kind != "serving_default":
            continue
        first, *others = case.answers.values()
        for other in others:
            if first.outputs["probability"].size and np.allclose(
                first.outputs["probability"], other.outputs["probability"], rtol=0, atol=1e-3
            ):
                raise UsageError(
                    "the exports answer alike, so that nobody could tell which of them did; give "
                    "two with other weights"
                )


class Swaps:
    """Versions that come and go while requests run.

    Args:
      server, versions: of the soak.
      pause_s: between a version's taking service and the next one's appearance.
    """

    def __init__(self, server: Server, versions: Versions, pause_s: float):
        self._server, self._versions, self._pause_s = server, versions, pause_s
        self._channel = grpc.insecure_channel(server.target)
        self.seconds: list[float] = []
        self.refused: dict[str, int] = {}
        self.problems: list[str] = []
        self.seen_serving = 0

    def run(self, until: float) -> None:
        """Swaps, with a broken version before every second one, until a time is over."""
        newest, turn = 1, 0
        broken = list(BROKEN)
        while self._wait(self._pause_s, until) and len(self.problems) < _GIVE_UP_AFTER:
            turn += 1
            try:
                if turn % 2 == 0:
                    self._refuse(broken[turn // 2 % len(broken)], newest)
                    if not self._wait(self._pause_s, until):
                        return
                newest = self._swap(LABELS[turn % len(LABELS)])
            except grpc.RpcError as error:
                self.problems.append(f"GetModelStatus failed: {error.code().name}")

    def _swap(self, label: str) -> int:
        start = time.monotonic()
        version = self._versions.publish(label)
        found = self._await(
            version,
            lambda states: states[version].state == AVAILABLE
            and all(s.state != AVAILABLE for v, s in states.items() if v != version),
        )
        if not found:
            self.problems.append(f"version {version} was not taken up in {_TAKE_UP_S:.0f} s")
            return version
        self._versions.settled(version)
        self._versions.remove_others(version)
        self.seconds.append(time.monotonic() - start)
        return version

    def _refuse(self, kind: str, newest: int) -> None:
        """A broken version: it has to be reported, and the one before it has to stay."""
        version = self._versions.publish_broken(kind)
        found = self._await(
            version,
            lambda states: states[version].state == END
            and states[version].status.error_code != 0
            and states[newest].state == AVAILABLE,
        )
        if found:
            self.refused[kind] = self.refused.get(kind, 0) + 1
        else:
            self.problems.append(f"version {version} ({kind}) was not reported as failed")

    def _await(self, version: int, reached: Callable[[dict], bool]) -> bool:
        until = time.monotonic() + _TAKE_UP_S
        while time.monotonic() < until and self._server.ended is None:
            states = statuses(self._channel)
            if version in states and reached(states):
                return True
            time.sleep(0.1)
        return False

    def _wait(self, seconds: float, until: float) -> bool:
        """Sleeps; False once the soak is over or the server has gone."""
        end = min(time.monotonic() + seconds, until)
        while time.monotonic() < end and self._server.ended is None:
            time.sleep(min(0.2, max(0.0, end - time.monotonic())))
        return time.monotonic() < until and self._server.ended is None


class Watch:
    """Looks at the server's memory, health and versions until it is stopped."""

    def __init__(self, server: Server):
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.memory: list[tuple[float, float]] = []
        self.problems: list[str] = []
        self.checks = 0

    def __enter__(self) -> "Watch":
        self._start = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *exc_info) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with grpc.insecure_channel(self._server.target) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            while not self._stop.wait(_SAMPLE_S) and self._server.ended is None:
                memory = self._server.memory_mb()
                if memory is not None:
                    self.memory.append((time.monotonic() - self._start, memory))
                try:
                    found = health.Check(health_pb2.HealthCheckRequest(), timeout=30).status
                    states = statuses(channel)
                except grpc.RpcError as error:
                    self.problems.append(f"health or status failed: {error.code().name}")
                    continue
                self.checks += 1
                if found != health_pb2.HealthCheckResponse.SERVING:
                    self.problems.append(f"health was {found} instead of SERVING")
                if all(status.state != AVAILABLE for status in states.values()):
                    self.problems.append("no version was AVAILABLE")


def soak(
    exports: Mapping[str, Path],
    cases: Sequence[Case],
    seconds: float,
    clients: int,
    pause_s: float = 10.0,
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> dict:
    """Runs the soak.

    Args:
      exports: "A" and "B" -> folder of an export.
      cases: what to send, from :func:`make_cases`.
      seconds: of mixed requests.
      clients: threads that send.
      pause_s: seconds between one change in the versions and the next.
      seed: of the order of requests.
      say: takes lines about progress.

    Returns:
      The report, see :func:`traffic.reports.summary`; its ``problems`` are empty when all was right.
    """
    work = Path(tempfile.mkdtemp(prefix="soak-"))
    try:
        versions = Versions(work / "models", exports)
        versions.publish(LABELS[0])
        with Server(work / "models", work / "server.log") as server:
            say(f"serving version 1 at {server.target}")
            started_mb = server.memory_mb()
            account, quiet = Account(), Account()
            sender = Sender(server.target, versions, quiet)
            for case in cases:
                sender.send(case)
            sender.close()
            say(f"{len(cases)} requests asked in quiet, {quiet.wrong.total()} wrong")
            warm_mb = server.memory_mb()
            swaps = Swaps(server, versions, pause_s)
            alive = lambda: server.ended is None  # noqa: E731
            with (
                Watch(server) as watch,
                Traffic(server.target, versions, account, cases, clients, seed, alive),
            ):
                swaps.run(time.monotonic() + seconds)
            died = server.ended
            end_mb = server.memory_mb()
            exit_code = server.stop()
            log = server.log()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return summary(
        account=account,
        quiet=quiet,
        memory={"start": started_mb, "warm": warm_mb, "end": end_mb},
        samples=watch.memory,
        swaps=swaps.seconds,
        refused=swaps.refused,
        checks=watch.checks,
        problems=[*swaps.problems, *watch.problems],
        died=died,
        exit_code=exit_code,
        log=log,
        settings={"seconds": seconds, "clients": clients, "pause_s": pause_s, "seed": seed},
    )
