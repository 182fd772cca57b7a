"""`loopctr bench soak`: good and hostile requests while versions of a model come and go.

Two exports take turns as the newest version of an embedded server, broken versions in between. Each
good answer must equal what the same export answered before, when nothing else ran.
"""

import filecmp
import os
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import psutil
from tensorflow_serving.apis import get_model_status_pb2 as status_pb2
from tensorflow_serving.apis.predict_pb2 import PredictResponse

from loopctr_tf.bench.hostile import good_cases, hostile_cases, problems_of
from loopctr_tf.bench.report import Log, silent
from loopctr_tf.bench.requests import FIRST_S, Case, Endpoint, Requests
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
    schema, running, memory = _common_schema(exports), [], []
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        soak = _Soak(Path(scratch), exports)
        with served(Path(scratch)) as server, ThreadPoolExecutor(clients) as pool:
            endpoint = Endpoint(server.target, MODEL, timeout_s=60.0)
            with endpoint.connect() as soak.send:
                try:
                    log("the exports answer alone")
                    kinds = soak.listen(Requests(endpoint, schema, seed))
                    log(f"{seconds:g} s of all together")
                    for number in range(clients):
                        order = Random(f"{seed} {number}")
                        running.append(pool.submit(soak.client, endpoint, kinds, order, think_s))
                    process, end = psutil.Process(server.process.pid), time.monotonic() + seconds
                    # Whatever the time, one broken version appears and one version is swapped.
                    while time.monotonic() < end or len(memory) < 2:
                        memory.append(process.memory_info().rss / 2**20)
                        soak.advance()
                        time.sleep(max(0.0, min(pause_s, end - time.monotonic())))
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
    if not soak.statuses:
        problems["no request was sent"] += 1
    return {
        "seconds": seconds,
        "clients": clients,
        "requests": dict(soak.statuses),
        "swaps": soak.swaps,
        "broken_versions": len(soak.refusals),
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
    """Versions in a server's folder, and how the server answers meanwhile.

    Versions of even numbers are broken; those of odd numbers are the two exports in turn.
    """

    def __init__(self, folder: Path, exports: Sequence[Path]):
        self._folder, self._exports, self._version = folder, exports, 0
        self._alone: dict[Path, dict[str, bytes | str]] = {}
        self.swaps, self.refusals = [], []
        self.statuses, self.problems, self.stop = Counter(), Counter(), threading.Event()
        self._publish()

    def listen(self, requests: Requests) -> tuple[list[Case], list[Case]]:
        """Good and hostile cases; keeps the exports' answers to good ones while nothing else runs."""
        good = good_cases(requests)
        for _ in self._exports:
            answers = {case.name: self.send(case, FIRST_S)[1] for case in good}
            self._alone[self._export(self._version)] = answers
            self.advance()
            self.advance()
        return good, [spoilt for case in good for spoilt in hostile_cases(requests, case)]

    def client(self, endpoint: Endpoint, kinds, order: Random, think_s: float) -> None:
        """Sends cases of either kind in a random order until ``stop``, after pauses of ``think_s``."""
        with endpoint.connect() as send:
            while not self.stop.wait(order.expovariate(1 / think_s)):
                case, alone = order.choice(order.choice(kinds)), None
                status, reply = send(case)
                if status == case.status == "OK":
                    version = PredictResponse.FromString(reply).model_spec.version.value
                    alone = self._alone[self._export(version)][case.name]
                self.statuses[status] += 1
                self.problems.update(problems_of(case, (status, reply), alone))

    def advance(self) -> None:
        """Publishes the next version, waits for what must follow, and removes what is not served.

        A broken version must be reported and the one before it go on serving; any other must come to
        serve alone.
        """
        self._publish()
        start, broken = time.monotonic(), self._version % 2 == 0
        while self._states() != ({self._version - broken}, broken):
            if time.monotonic() > start + _LOAD_S:
                raise TimeoutError(f"version {self._version} did not reach its state")
            time.sleep(0.1)
        (self.refusals if broken else self.swaps).append(time.monotonic() - start)
        for path in self._folder.iterdir():
            if int(path.name) < self._version - broken:
                shutil.rmtree(path)

    def _export(self, version: int) -> Path:
        return self._exports[version // 2 % 2]

    def _publish(self) -> None:
        """Puts a copy of an export into the folder under the next number, complete at once."""
        self._version += 1
        with new_folder(self._folder / str(self._version)) as path:
            shutil.copytree(self._export(self._version), path, dirs_exist_ok=True)
            if self._version % 2 == 0:
                os.truncate(path / "saved_model.pb", 1000)

    def _states(self) -> tuple[set[int], bool]:
        """The versions in service, and whether the newest one is reported as broken."""
        request = status_pb2.GetModelStatusRequest(model_spec={"name": MODEL}).SerializeToString()
        status, reply = self.send(Case("", request, method="ModelService/GetModelStatus"))
        if status != "OK":
            raise ConnectionError(f"GetModelStatus failed with {status}")
        found = status_pb2.GetModelStatusResponse.FromString(reply).model_version_status
        available = status_pb2.ModelVersionStatus.AVAILABLE
        failed = {one.version for one in found if one.status.error_code}
        return {one.version for one in found if one.state == available}, self._version in failed
