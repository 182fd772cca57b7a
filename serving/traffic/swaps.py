"""Versions that come and go, and a look at the server's health meanwhile."""

import itertools
import threading
import time
from collections.abc import Callable

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc

from traffic.messages import MODEL
from traffic.server import Server
from traffic.versions import BROKEN, Versions

LABELS = ("A", "B")
"""What the two exports are called."""
_STATUS = get_model_status_pb2.ModelVersionStatus
_TAKE_UP_S = 600.0
"""Longest time that the server may take for a new version."""
_SAMPLE_S = 0.5
_GIVE_UP_AFTER = 2
"""Swaps that fail before no more are tried."""


class Swaps:
    """Versions that come and go while requests run.

    Args:
      server, versions: of the soak.
      pause_s: between a version's taking service and the next one's appearance.

    Attributes:
      seconds: that each version took to be in service.
      refused: kind of broken version -> how often it was reported.
      problems: what went wrong.
      loading: whether the server has a new version to look at just now.
    """

    def __init__(self, server: Server, versions: Versions, pause_s: float):
        self._server, self._versions, self._pause_s = server, versions, pause_s
        self._channel = grpc.insecure_channel(server.target)
        self.seconds: list[float] = []
        self.refused: dict[str, int] = {}
        self.problems: list[str] = []
        self._newest = 1
        self.loading = False

    def run(self, until: float) -> None:
        """Swaps until a time is over, a broken version before every second one; once at least."""
        broken = list(BROKEN)
        for turn in itertools.count():
            try:
                if turn % 2 == 0:
                    self._wait(self._pause_s)
                    self._refuse(broken[turn // 2 % len(broken)])
                self._wait(self._pause_s)
                self.swap(LABELS[turn % len(LABELS)])
            except grpc.RpcError as error:
                self.problems.append(f"GetModelStatus failed: {error.code().name}")
            over = time.monotonic() >= until or self._server.ended is not None
            if over or len(self.problems) >= _GIVE_UP_AFTER:
                break
        self._wait(until - time.monotonic())

    def swap(self, label: str) -> None:
        """Publishes an export and waits until it alone is in service."""
        start = time.monotonic()
        version = self._versions.publish(label)
        found = self._await(
            version,
            lambda states: (
                states[version].state == _STATUS.AVAILABLE
                and all(s.state != _STATUS.AVAILABLE for v, s in states.items() if v != version)
            ),
        )
        if not found:
            self.problems.append(f"version {version} was not taken up in {_TAKE_UP_S:.0f} s")
            return
        self._newest = version
        self._versions.settled(version)
        self._versions.remove_others(version)
        self.seconds.append(time.monotonic() - start)

    def begin(self, label: str) -> None:
        """Publishes an export and waits no longer than until the server begins to load it."""
        version = self._versions.publish(label)
        if not self._await(version, lambda states: True):
            self.problems.append(f"version {version} was not looked at in {_TAKE_UP_S:.0f} s")

    def _refuse(self, kind: str) -> None:
        """A broken version: it has to be reported, and the one before it has to stay."""
        version = self._versions.publish_broken(kind)
        found = self._await(
            version,
            lambda states: (
                states[version].state == _STATUS.END
                and states[version].status.error_code != 0
                and states[self._newest].state == _STATUS.AVAILABLE
            ),
        )
        if found:
            self.refused[kind] = self.refused.get(kind, 0) + 1
        else:
            self.problems.append(f"version {version} ({kind}) was not reported as failed")

    def _await(self, version: int, reached: Callable[[dict], bool]) -> bool:
        until = time.monotonic() + _TAKE_UP_S
        self.loading = True
        try:
            while time.monotonic() < until and self._server.ended is None:
                states = statuses(self._channel)
                if version in states and reached(states):
                    return True
                time.sleep(0.1)
            return False
        finally:
            self.loading = False

    def _wait(self, seconds: float) -> None:
        """Sleeps, as long as the server is there."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self._server.ended is None:
            time.sleep(min(0.2, max(0.0, end - time.monotonic())))


class Watch:
    """Looks at the server's memory, health and versions until it is stopped.

    Args:
      server, swaps: of the soak.

    Attributes:
      memory: (seconds since the start, MB, whether a version was loading).
      problems: what was wrong at any look; ``checks`` is their number.
    """

    def __init__(self, server: Server, swaps: Swaps):
        self._server, self._swaps = server, swaps
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.memory: list[tuple[float, float, bool]] = []
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
                    second = time.monotonic() - self._start
                    self.memory.append((second, memory, self._swaps.loading))
                try:
                    found = health.Check(health_pb2.HealthCheckRequest(), timeout=30).status
                    states = statuses(channel)
                except grpc.RpcError as error:
                    self.problems.append(f"health or status failed: {error.code().name}")
                    continue
                self.checks += 1
                if found != health_pb2.HealthCheckResponse.SERVING:
                    self.problems.append(f"health was {found} instead of SERVING")
                if all(status.state != _STATUS.AVAILABLE for status in states.values()):
                    self.problems.append("no version was AVAILABLE")


def statuses(channel: grpc.Channel) -> dict[int, _STATUS]:
    """GetModelStatus: version -> its status."""
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = MODEL
    response = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request, timeout=30)
    return {status.version: status for status in response.model_version_status}
