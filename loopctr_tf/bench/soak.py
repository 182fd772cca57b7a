"""`loopctr bench soak`: good and hostile requests while versions of a model come and go.

Two exports take turns as the newest version of an embedded server, broken versions in between. Each
good answer must equal what the same export answered before, when nothing else ran.
"""

import contextlib
import filecmp
import itertools
import os
import random
import shutil
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import grpc
import psutil
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc
from tensorflow_serving.apis.predict_pb2 import PredictResponse

from loopctr_tf.bench.hostile import alike, good_requests, spoilt
from loopctr_tf.bench.requests import FIRST_S, Endpoint, Requests, status_of
from loopctr_tf.bench.session import MODEL, served
from loopctr_tf.errors import UsageError
from loopctr_tf.features.schema import Schema

_WEIGHTS = "variables/variables.data-00000-of-00001"
_LOAD_S = 600.0
"""The longest that a version may take to load."""
_GROWTH, _GROWTH_AFTER_S = 0.1, 120.0
"""Growth of memory over the last two thirds that is a problem, in soaks of this length or more."""
_GIVE_UP_AFTER = 2
"""Swaps that fail before the soak ends."""
_State = get_model_status_pb2.ModelVersionStatus


def bench_soak(
    exports: Sequence[Path],
    seconds: float = 300.0,
    clients: int = 6,
    pause_s: float = 5.0,
    think_s: float = 0.1,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Runs a soak of the embedded server, on this machine's loopback alone.

    Args:
      exports: two folders of one schema that answer differently, made with ``--bad-input reject``.
      seconds: of mixed requests.
      clients: threads that send.
      pause_s: between one change of versions and the next.
      think_s: mean pause of a client between two requests.
      seed: of requests and their order.
      say: takes lines about progress.

    Returns:
      ``requests`` by status, ``swaps`` (seconds that each took), ``broken_versions`` refused,
      ``memory_mb`` (``start``, ``end``, ``most``) and ``problems``, empty when all was right.

    Raises:
      UsageError: for folders that are not exports, and exports that answer alike.
    """
    try:
        schemas = [Schema.load(path / "assets") for path in exports]
    except OSError as error:
        raise UsageError(f"{error.filename!r} is missing; give two exports") from error
    if schemas[0] != schemas[1]:
        raise UsageError("the exports have different schemas; give two of one schema")
    if filecmp.cmp(*(path / _WEIGHTS for path in exports), shallow=False):
        raise UsageError("the exports have the same weights; give two that answer differently")
    problems: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        versions = _Versions(Path(scratch), exports)
        with served(versions.folder) as server:
            endpoint = Endpoint(server.target, MODEL, timeout_s=60.0)
            requests = Requests(endpoint, schemas[0], seed)
            made = good_requests(requests)
            good = {name: request.SerializeToString() for name, request in made.items()}
            hostile = [
                (f"{name}: {what}", *rest)
                for name, request in made.items()
                for what, *rest in spoilt(request, requests.signatures[name])
            ]
            with endpoint.channel() as channel:
                versions.connect(channel)
                for export in range(2):
                    if export:
                        versions.swap(export)
                    say(f"export {export + 1} answers alone")
                    call = endpoint.call(channel)
                    alone = {n: status_of(call, p, FIRST_S)[1] for n, p in good.items()}
                    versions.answers.append(alone)
                say(f"{seconds:g} s of all together")
                stop = threading.Event()

                def client(number: int) -> None:
                    order = random.Random(f"{seed} {number}")
                    with endpoint.channel() as own:
                        while not stop.wait(order.expovariate(1 / think_s)):
                            if order.random() < 0.5:
                                name = order.choice(list(good))
                                code, reply = status_of(endpoint.call(own), good[name])
                                wrong = versions.fault(name, code, reply)
                            else:
                                name, method, payload, wanted = order.choice(hostile)
                                code, _ = status_of(endpoint.call(own, method), payload)
                                wrong = code is not wanted and f"{code.name}, not {wanted.name}"
                            codes[code.name] += 1
                            if wrong:
                                problems[f"{name}: {wrong}"] += 1

                with ThreadPoolExecutor(clients) as pool:
                    running = [pool.submit(client, number) for number in range(clients)]
                    try:
                        memory = versions.take_turns(server.process, seconds, pause_s)
                    finally:
                        stop.set()
                    for each in running:
                        each.result()
        problems.update(versions.problems)
        if server.process.exitcode != 0:
            problems[f"the server ended with exit code {server.process.exitcode}"] += 1
    third = len(memory) // 3
    if seconds >= _GROWTH_AFTER_S and third:
        middle, last = (statistics.median(memory[i * third :][:third]) for i in (1, 2))
        if last > (1 + _GROWTH) * middle:
            problems[f"memory grew by {last / middle - 1:.0%}"] += 1
    if not codes:
        problems["no request was sent"] += 1
    return {
        "seconds": seconds,
        "clients": clients,
        "requests": dict(codes),
        "swaps": versions.swaps,
        "broken_versions": versions.refused,
        "memory_mb": {"start": memory[0], "end": memory[-1], "most": max(memory)} if memory else {},
        "problems": [f"{what} ({n} times)" if n > 1 else what for what, n in problems.items()],
    }


def _serving(found) -> set[int]:
    return {v for v, status in found.items() if status.state == _State.AVAILABLE}


class _Versions:
    """The versions in a server's folder."""

    def __init__(self, scratch: Path, exports: Sequence[Path]):
        self.folder, self._exports = scratch / "models", exports
        self.folder.mkdir()
        self._export_of: dict[int, int] = {}
        self._newest = self._next = 1
        self.answers: list[dict[str, bytes | str]] = []
        self.swaps: list[float] = []
        self.refused = 0
        self.problems: list[str] = []
        self.publish(0)

    def take_turns(self, process: BaseProcess, seconds: float, pause_s: float) -> list[float]:
        """Changes versions until the time is over; MiB of the server's memory between changes.

        Whatever the time, one version is swapped and one broken version appears.
        """
        resident, memory = psutil.Process(process.pid).memory_info, []
        end = time.monotonic() + seconds
        for turn in itertools.count():
            until = min(time.monotonic() + pause_s, end)
            while process.is_alive() and time.monotonic() < until:
                with contextlib.suppress(psutil.Error):
                    memory.append(resident().rss / 2**20)
                time.sleep(min(0.5, max(0.0, until - time.monotonic())))
            over = turn > 1 and time.monotonic() >= end
            if over or not process.is_alive() or len(self.problems) >= _GIVE_UP_AFTER:
                return memory
            self.refuse() if turn % 2 else self.swap(turn // 2 % 2)

    def connect(self, channel: grpc.Channel) -> None:
        """Asks the server at this channel for its versions from now on."""
        self._service = model_service_pb2_grpc.ModelServiceStub(channel)

    def publish(self, export: int, broken: bool = False) -> int:
        """Puts a copy of an export into the folder under the next number, complete at once."""
        version, hidden = self._next, self.folder / f".{self._next}"
        shutil.copytree(self._exports[export], hidden)
        if broken:
            graph = hidden / "saved_model.pb"
            os.truncate(graph, graph.stat().st_size // 2)
        self._export_of[version] = export
        hidden.rename(self.folder / str(version))
        self._next += 1
        return version

    def swap(self, export: int) -> None:
        """Publishes an export, waits until it alone is in service, and removes the others."""
        start, version = time.monotonic(), self.publish(export)
        if self._reached(version, lambda found: _serving(found) == {version}):
            self._newest = version
            self.swaps.append(time.monotonic() - start)
            for path in self.folder.iterdir():
                if path.name != str(version):
                    shutil.rmtree(path)

    def refuse(self) -> None:
        """Publishes a broken version: it must be reported, and the one before it go on serving."""
        version = self.publish(0, broken=True)
        self.refused += self._reached(
            version,
            lambda found: found[version].status.error_code and self._newest in _serving(found),
        )

    def fault(self, name: str, code: grpc.StatusCode, reply: bytes | str) -> str | None:
        """What is wrong with the answer to a good request."""
        if code is not grpc.StatusCode.OK:
            return f"{code.name}: {reply}"
        version = PredictResponse.FromString(reply).model_spec.version.value
        if alike(reply, self.answers[self._export_of[version]][name]):
            return None
        return f"version {version} does not answer as it did alone"

    def _reached(self, version: int, condition: Callable[[dict], bool]) -> bool:
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = MODEL
        end = time.monotonic() + _LOAD_S
        while time.monotonic() < end:
            try:
                response = self._service.GetModelStatus(request, timeout=30)
            except grpc.RpcError as error:
                self.problems.append(f"GetModelStatus failed with {error.code().name}")
                return False
            found = {status.version: status for status in response.model_version_status}
            if version in found and condition(found):
                return True
            time.sleep(0.1)
        self.problems.append(f"version {version} did not reach its state in {_LOAD_S:.0f} s")
        return False
