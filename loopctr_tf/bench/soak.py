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
_AVAILABLE = get_model_status_pb2.ModelVersionStatus.AVAILABLE


def bench_soak(
    exports: Sequence[Path],
    seconds: float = 300.0,
    clients: int = 6,
    pause_s: float = 5.0,
    think_s: float = 0.1,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Soaks an embedded server, on this machine's loopback alone, for ``seconds``.

    ``exports`` are of one schema, answer differently and reject bad input. Versions change every
    ``pause_s``; each client pauses for ``think_s`` on average between two requests.

    Returns:
      ``requests`` by status, ``swaps`` (seconds that each took), ``broken_versions`` refused,
      ``memory_mb`` (``start``, ``end``, ``most``) and ``problems``, empty when all was right.
    """
    schema, problems, codes = _common_schema(exports), Counter(), Counter()
    stop = threading.Event()
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        versions = _Versions(Path(scratch), exports, problems)
        with served(versions.folder) as server:
            endpoint = Endpoint(server.target, MODEL, timeout_s=60.0)
            channel = endpoint.channel()
            versions.service = model_service_pb2_grpc.ModelServiceStub(channel)
            requests = Requests(endpoint, schema, seed)
            good = good_requests(requests)
            hostile = [
                (f"{name}: {what}", *rest)
                for name, payload in good.items()
                for what, *rest in spoilt(payload, requests.signatures[name])
            ]
            alone = []
            for export in range(2):
                if export:
                    versions.swap(export)
                say(f"export {export + 1} answers alone")
                call = endpoint.call(channel)
                alone.append({n: status_of(call, p, FIRST_S)[1] for n, p in good.items()})
            say(f"{seconds:g} s of all together")

            def client(number: int) -> None:
                order = random.Random(f"{seed} {number}")
                with endpoint.channel() as own:
                    while not stop.wait(order.expovariate(1 / think_s)):
                        wanted = grpc.StatusCode.OK
                        name, method, payload = order.choice(list(good)), "Predict", None
                        if order.random() < 0.5:
                            name, method, payload, wanted = order.choice(hostile)
                        code, reply = status_of(endpoint.call(own, method), payload or good[name])
                        codes[code.name] += 1
                        if code is not wanted:
                            problems[f"{name}: {code.name}, not {wanted.name}: {reply}"] += 1
                        elif payload is None:
                            version = PredictResponse.FromString(reply).model_spec.version.value
                            if not alike(reply, alone[versions.export_of[version]][name]):
                                problems[f"{name}: version {version} answers unlike alone"] += 1

            with channel, ThreadPoolExecutor(clients) as pool:
                running = pool.map(client, range(clients))
                try:
                    memory = versions.take_turns(server.process, seconds, pause_s)
                finally:
                    stop.set()
                list(running)  # raises what a client raised
    if server.process.exitcode != 0:
        problems[f"the server ended with exit code {server.process.exitcode}"] += 1
    third = len(memory) // 3
    if seconds >= _GROWTH_AFTER_S and third:
        middle, last = (statistics.median(memory[i * third :][:third]) for i in (1, 2))
        if last > (1 + _GROWTH) * middle:
            problems[f"memory grew by {last / middle - 1:.0%}"] += 1
    if not codes:
        problems["no request was sent"] += 1
    figures = {"start": memory[0], "end": memory[-1], "most": max(memory)} if memory else {}
    report = {"seconds": seconds, "clients": clients, "requests": dict(codes)}
    report |= {"swaps": versions.swaps, "broken_versions": versions.refused, "memory_mb": figures}
    lines = [f"{what} ({n} times)" if n > 1 else what for what, n in problems.items()]
    return {**report, "problems": lines}


def _common_schema(exports: Sequence[Path]) -> Schema:
    try:
        schema, other = (Schema.load(path / "assets") for path in exports)
    except OSError as error:
        raise UsageError(f"{error.filename!r} is missing; give two exports") from error
    if schema != other:
        raise UsageError("the exports have different schemas; give two of one schema")
    if filecmp.cmp(*(path / _WEIGHTS for path in exports), shallow=False):
        raise UsageError("the exports have the same weights; give two that answer differently")
    return schema


class _Versions:
    """The versions in a server's folder; ``service`` is its ModelService."""

    def __init__(self, folder: Path, exports: Sequence[Path], problems: Counter[str]):
        self.folder, self._exports, self._problems = folder, exports, problems
        self.export_of: dict[int, int] = {}
        self.swaps: list[float] = []
        self.refused, self._failed, self._newest = 0, False, self._publish(0)

    def take_turns(self, process: BaseProcess, seconds: float, pause_s: float) -> list[float]:
        """Changes versions until the time is over or a change fails; MiB of the server's memory.

        Whatever the time, one version is swapped and one broken version appears.
        """
        resident, memory = psutil.Process(process.pid).memory_info, []
        end = time.monotonic() + seconds
        for turn in itertools.count():
            process.join(max(0.0, min(pause_s, end - time.monotonic())))
            with contextlib.suppress(psutil.Error):
                memory.append(resident().rss / 2**20)
            over = turn > 1 and time.monotonic() >= end
            if over or self._failed or not process.is_alive():
                return memory
            self._refuse() if turn % 2 else self.swap(turn // 2 % 2)

    def swap(self, export: int) -> None:
        """Publishes an export, waits until it alone is in service, and removes the others."""
        start, version = time.monotonic(), self._publish(export)
        if self._reached(version, lambda now, error: now == {version}):
            self._newest = version
            self.swaps.append(time.monotonic() - start)
            for path in self.folder.iterdir():
                if path.name != str(version):
                    shutil.rmtree(path)

    def _refuse(self) -> None:
        """Publishes a broken version: it must be reported, and the one before it go on serving."""
        version = self._publish(0, broken=True)
        self.refused += self._reached(version, lambda now, error: error and self._newest in now)

    def _publish(self, export: int, broken: bool = False) -> int:
        """Puts a copy of an export into the folder under the next number, complete at once."""
        version = len(self.export_of) + 1
        hidden = self.folder / f".{version}"
        shutil.copytree(self._exports[export], hidden)
        if broken:
            os.truncate(hidden / "saved_model.pb", 1000)
        self.export_of[version] = export
        hidden.rename(self.folder / str(version))
        return version

    def _reached(self, version: int, condition: Callable[[set[int], int], bool]) -> bool:
        """Waits for a condition on the versions in service and the error code of ``version``."""
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = MODEL
        end, problem = time.monotonic() + _LOAD_S, f"version {version} did not reach its state"
        while time.monotonic() < end:
            code, found = status_of(self.service.GetModelStatus, request, 30)
            if code is not grpc.StatusCode.OK:
                problem = f"GetModelStatus failed with {code.name}"
                break
            errors = {one.version: one.status.error_code for one in found.model_version_status}
            serving = {v.version for v in found.model_version_status if v.state == _AVAILABLE}
            if version in errors and condition(serving, errors[version]):
                return True
            time.sleep(0.1)
        self._problems[problem] += 1
        self._failed = True
        return False
