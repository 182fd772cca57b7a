"""`loopctr bench soak`: good and hostile requests while versions of a model come and go.

Two exports take turns as the newest version of an embedded server, broken versions in between. Each
good answer must equal what the same export answered before, when nothing else ran.
"""

import filecmp
import itertools
import os
import random
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
from tensorflow_serving.apis import get_model_status_pb2 as status_pb2
from tensorflow_serving.apis.predict_pb2 import PredictResponse

from loopctr_tf.bench.endpoint import FIRST_S, Endpoint
from loopctr_tf.bench.hostile import good_cases, hostile_cases, problems_of
from loopctr_tf.bench.report import Log, silent
from loopctr_tf.bench.requests import Requests
from loopctr_tf.bench.session import MODEL, served
from loopctr_tf.errors import UsageError
from loopctr_tf.features.schema import Schema
from loopctr_tf.files import new_folder

_WEIGHTS = "variables/variables.data-00000-of-00001"
_LOAD_S = 600.0
"""The longest that a version may take to load."""
_GROWTH_AFTER_S = 120.0
"""Soaks of this length or more notice memory that still grows over their last two thirds."""


def bench_soak(
    exports: Sequence[Path],
    seconds: float = 300.0,
    clients: int = 6,
    pause_s: float = 5.0,
    think_s: float = 0.1,
    seed: int = 0,
    log: Log = silent,
) -> dict[str, Any]:
    """Soaks an embedded server, on this machine's loopback alone, for ``seconds``.

    ``exports`` are of one schema, answer differently and reject bad input. Versions change every
    ``pause_s``; each client pauses for ``think_s`` on average between two requests.

    Returns:
      ``requests`` by status, ``swaps`` (seconds that each took), ``broken_versions`` refused,
      ``memory_mb`` (``start``, ``end``, ``most``) and ``problems``, empty when all was right.
    """
    schema, memory, running = _common_schema(exports), [], []
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        soak = _Soak(Path(scratch), exports)
        with served(soak.folder) as server:
            endpoint = Endpoint(server.target, MODEL, timeout_s=60.0)
            resident = psutil.Process(server.process.pid).memory_info
            with endpoint.connect() as soak.send, ThreadPoolExecutor(clients) as pool:
                try:
                    log("the exports answer alone")
                    soak.listen(Requests(endpoint, schema, seed))
                    log(f"{seconds:g} s of all together")
                    for number in range(clients):
                        order = random.Random(f"{seed} {number}")
                        running.append(pool.submit(soak.client, endpoint, order, think_s))
                    end = time.monotonic() + seconds
                    # Whatever the time, one version is swapped and one broken version appears.
                    for turn in itertools.count():
                        server.process.join(max(0.0, min(pause_s, end - time.monotonic())))
                        memory.append(resident().rss / 2**20)
                        if turn > 1 and time.monotonic() >= end:
                            break
                        soak.refuse() if turn % 2 else soak.swap(turn // 2 % 2)
                except (TimeoutError, ConnectionError, psutil.Error) as error:
                    soak.problems[str(error)] += 1
                finally:
                    soak.stop.set()
            for client in running:
                client.result()  # raises what it raised
    problems = soak.problems
    if server.process.exitcode != 0:
        problems[f"the server ended with exit code {server.process.exitcode}"] += 1
    if seconds >= _GROWTH_AFTER_S and len(memory) > 2:
        _, middle, last = (np.median(third) for third in np.array_split(memory, 3))
        if last > 1.1 * middle:
            problems[f"memory grew by {last / middle - 1:.0%}"] += 1
    if not soak.codes:
        problems["no request was sent"] += 1
    return {
        "seconds": seconds,
        "clients": clients,
        "requests": dict(soak.codes),
        "swaps": soak.swaps,
        "broken_versions": soak.refused,
        "memory_mb": {"start": memory[0], "end": memory[-1], "most": max(memory)} if memory else {},
        "problems": [f"{what} ({n} times)" if n > 1 else what for what, n in problems.items()],
    }


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


class _Soak:
    """Versions in a server's folder, of two exports in turn, and clients that check the answers."""

    def __init__(self, folder: Path, exports: Sequence[Path]):
        self.folder, self._exports = folder, exports
        self._export_of: dict[int, int] = {}
        self._alone: list[dict[str, bytes | str]] = []
        self.codes, self.problems, self.stop = Counter(), Counter(), threading.Event()
        self.swaps: list[float] = []
        self.refused, self._newest = 0, self._publish(0)

    def listen(self, requests: Requests) -> None:
        """Keeps both exports' answers to good requests while nothing else runs."""
        self._good = good_cases(requests)
        self._hostile = [case for good in self._good for case in hostile_cases(requests, good)]
        for export in (0, 1):
            if export:
                self.swap(export)
            answers = {good.name: self.send(good.message, timeout_s=FIRST_S) for good in self._good}
            self._alone.append({name: reply for name, (_, reply) in answers.items()})

    def client(self, endpoint: Endpoint, order: random.Random, think_s: float) -> None:
        """Sends requests in a random order until ``stop``, with pauses of ``think_s`` on average."""
        with endpoint.connect() as send:
            while not self.stop.wait(order.expovariate(1 / think_s)):
                case = order.choice(order.choice([self._good, self._hostile]))
                code, reply = send(case.message, case.method)
                alone = None
                if code is case.code is grpc.StatusCode.OK:
                    version = PredictResponse.FromString(reply).model_spec.version.value
                    alone = self._alone[self._export_of[version]][case.name]
                self.codes[code.name] += 1
                self.problems.update(problems_of(case, (code, reply), alone))

    def swap(self, export: int) -> None:
        """Publishes an export, waits until it alone is in service, and removes the others."""
        start, version = time.monotonic(), self._publish(export)
        self._wait(version, lambda serving, error: serving == {version})
        self.swaps.append(time.monotonic() - start)
        self._newest = version
        for path in self.folder.iterdir():
            if path.name != str(version):
                shutil.rmtree(path)

    def refuse(self) -> None:
        """Publishes a broken version: it must be reported, and the one before it go on serving."""
        version = self._publish(0, broken=True)
        self._wait(version, lambda serving, error: error and self._newest in serving)
        self.refused += 1

    def _publish(self, export: int, broken: bool = False) -> int:
        """Puts a copy of an export into the folder under the next number, complete at once."""
        version = len(self._export_of) + 1
        self._export_of[version] = export
        with new_folder(self.folder / str(version)) as path:
            shutil.copytree(self._exports[export], path, dirs_exist_ok=True)
            if broken:
                os.truncate(path / "saved_model.pb", 1000)
        return version

    def _wait(self, version: int, reached: Callable[[set[int], int], bool]) -> None:
        """Until a condition on the versions in service and the error code of ``version`` holds."""
        request = status_pb2.GetModelStatusRequest(model_spec={"name": MODEL}).SerializeToString()
        end = time.monotonic() + _LOAD_S
        while time.monotonic() < end:
            code, reply = self.send(request, "ModelService/GetModelStatus")
            if code is not grpc.StatusCode.OK:
                raise ConnectionError(f"GetModelStatus failed with {code.name}")
            found = status_pb2.GetModelStatusResponse.FromString(reply).model_version_status
            errors = {one.version: one.status.error_code for one in found}
            serving = {
                one.version for one in found if one.state == status_pb2.ModelVersionStatus.AVAILABLE
            }
            if reached(serving, errors.get(version, 0)):
                return
            time.sleep(0.1)
        raise TimeoutError(f"version {version} did not reach its state")
