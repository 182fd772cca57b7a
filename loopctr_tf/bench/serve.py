"""`loopctr bench serve`: one user against N candidates, by path, head, size and number of callers.

Paths: *pointwise* repeats the user in every row; *rank* computes the user's side once a request; where a
model has a user's state, *encode_user* computes it for a cache, and *rank_cached* takes it from there.
"In process" is a graph session, as in a model server; "over gRPC" is a server in another process.
"""

import functools
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from loopctr_tf.bench import machine
from loopctr_tf.bench.flops import ranking_flops
from loopctr_tf.bench.load import measure
from loopctr_tf.bench.report import Log, check_least, described, silent
from loopctr_tf.bench.requests import Endpoint
from loopctr_tf.bench.session import (
    MODEL,
    heads_at,
    pointwise,
    run_signature,
    served,
    write_export,
)
from loopctr_tf.bench.timing import in_turns, quantiles, repeated
from loopctr_tf.bench.workload import candidate_features, rows_of, user_features, workload_schema
from loopctr_tf.errors import UsageError
from loopctr_tf.export.signatures import of_head
from loopctr_tf.models.base import RankingModel
from loopctr_tf.scoring.names import ENCODE_USER, INDEPENDENT, RANK_CACHED, STATE_VERSION
from loopctr_tf.scoring.server.saved_model import SavedModel
from loopctr_tf.training.settings import RunConfig

_CALLERS_CANDIDATES = 500
"""Callers at the same time send requests of about this size."""


class Shape(NamedTuple):
    """Events of the recent and of the long history."""

    history: int
    long_history: int = 0

    def __str__(self) -> str:
        return f"{self.history}+{self.long_history}" if self.long_history else f"{self.history}"


def bench_serve(
    shapes: Sequence[Shape],
    candidates: Sequence[int],
    clients: Sequence[int],
    loops: Sequence[int] | None = None,
    seconds: float = 1.0,
    config: RunConfig | None = None,
    log: Log = silent,
) -> dict[str, Any]:
    """Measures serving on made-up models and requests.

    Args:
      shapes: histories to measure, each on a model of its own.
      candidates: numbers N.
      clients: callers at the same time, over gRPC, of the first head.
      loops: the depths of a model with loops; None means all trained heads, of any model.
      seconds: for each figure; five calls at least.
      config: of the model.
      log: takes lines about progress.

    Returns:
      ``exports`` (rows of bytes, of everything and of zero loops alone), ``paths`` (rows of candidates,
      path, quantiles, ``candidates_per_s``, ``flops``, ``share_of_matmul_rate``), ``grpc`` (rows with
      ``overhead_ms``), ``concurrency`` (rows with ``clients``, ``requests_per_s``) and
      ``state_bytes``; each row has ``history``, and all but those of exports ``head`` and ``loops``
      (None where the model has none). ``peak_memory_bytes``, and what
      :func:`~loopctr_tf.bench.report.described` gives.
    """
    config = config or RunConfig()
    for shape in shapes:
        if shape.history < 1 or shape.long_history < 0:
            raise UsageError(f"history is {shape}; give events such as 50 or 50+1024")
    check_least("candidates", candidates)
    check_least("clients", clients)
    figures = ("exports", "paths", "grpc", "concurrency", "state_bytes")
    report = {**described(config), **{name: [] for name in figures}}
    for shape in shapes:
        model = config.build_model(workload_schema(*shape))
        heads = heads_at(model, loops) or model.heads
        log(f"histories of {shape}: exporting")
        with (
            TemporaryDirectory() as scratch,
            closing(SavedModel(_export(model, Path(scratch), shape, heads, report), 1)) as session,
        ):
            bench = _Bench(model, shape, session, seconds, report)
            for head in heads:
                bench.state_bytes(head)
                for count in candidates:
                    log(f"histories of {shape}, {head or config.name}, {count} candidates")
                    bench.paths(head, count)
            if shape is shapes[-1]:
                with served(session.path.parent) as server:
                    log(f"histories of {shape}: over gRPC")
                    endpoint = Endpoint(server.target, MODEL, timeout_s=120.0)
                    for head in heads:
                        for count in candidates:
                            bench.over_grpc(endpoint, head, count)
                    count = min(candidates, key=lambda number: abs(number - _CALLERS_CANDIDATES))
                    for number in clients:
                        bench.callers(endpoint, heads[0], count, number)
    return {**report, "peak_memory_bytes": machine.peak_memory_bytes()}


def _signatures(model: RankingModel, head: str) -> dict[str, str]:
    """Path -> name of the signature."""
    found = {"pointwise": pointwise(head), "rank": of_head(INDEPENDENT, head)}
    if model.state_specs(head, tf.float32) is not None:
        found["rank_cached"] = of_head(RANK_CACHED, head)
        found["encode_user"] = of_head(ENCODE_USER, head)
    return found


def _export(model, folder: Path, shape: Shape, heads: Sequence[str], report) -> Path:
    def export(label: str, heads: Sequence[str]) -> Path:
        names = [name for head in heads for name in _signatures(model, head).values()]
        return write_export(model, folder / label / "1", names, heads)

    def sizes(path: Path, prefix: str) -> dict[str, int]:
        files = [file.stat().st_size for file in path.rglob("*") if file.is_file()]
        graph = (path / "saved_model.pb").stat().st_size
        return {f"{prefix}bytes": sum(files), f"{prefix}graph_bytes": graph}

    path = export("all", heads)
    row = {"history": str(shape), **sizes(path, "")}
    zero = [head for head in heads if model.loops_of(head) == 0]
    if zero:
        row |= sizes(export("zero", zero), "zero_loop_")
    report["exports"].append(row)
    return path


class _Bench:
    """Measurements of one model, added to a report."""

    def __init__(
        self, model: RankingModel, shape: Shape, session: SavedModel, seconds: float, report
    ):
        self._model, self._shape, self._session = model, shape, session
        self._seconds, self._report = seconds, report
        self._user = user_features(model.schema, 1)

    def _add(self, figures: str, head: str, **row) -> None:
        about = {"history": str(self._shape), "head": head, "loops": self._model.loops_of(head)}
        self._report[figures].append({**about, **row})

    def _call(self, signature: str, features) -> Callable[[], dict[str, np.ndarray]]:
        return functools.partial(run_signature, self._session, signature, features)

    def _state(self, head: str) -> dict[str, np.ndarray]:
        """The user's state; nothing where the model has none."""
        signature = _signatures(self._model, head).get("encode_user")
        return self._call(signature, self._user)() if signature else {}

    def state_bytes(self, head: str) -> None:
        """The size of a user's state, if there is one."""
        if state := self._state(head):
            size = sum(array.nbytes for name, array in state.items() if name != STATE_VERSION)
            self._add("state_bytes", head, bytes=size)

    def paths(self, head: str, count: int) -> None:
        """All paths, in process."""
        user, items, state = self._user, candidate_features((1, count)), self._state(head)
        encode, score = ranking_flops(self._model, user, candidate_features((1, 1)), head)
        features = {
            "pointwise": rows_of(user, items),
            "rank": {**user, **items},
            "rank_cached": {**state, **items},
            "encode_user": user,
        }
        flops = {
            "pointwise": count * (encode + score),
            "rank": encode + count * score,
            "rank_cached": count * score,
            "encode_user": encode,
        }
        times, rates = machine.beside_matmul_rate(
            lambda: {
                path: repeated(self._call(signature, features[path]), self._seconds)
                for path, signature in _signatures(self._model, head).items()
            }
        )
        for path, taken in times.items():
            found = quantiles(taken)
            self._add(
                "paths",
                head,
                candidates=count,
                path=path,
                **found,
                candidates_per_s=1e3 * count / found["p50_ms"],
                flops=flops[path],
                **rates,
                share_of_matmul_rate=1e3 * flops[path] / found["p50_ms"] / rates["matmul_rate"],
            )

    def over_grpc(self, endpoint: Endpoint, head: str, count: int) -> None:
        """One caller, beside the same calls in process."""
        features = {**self._user, **candidate_features((1, count))}
        signature = of_head(INDEPENDENT, head)
        with endpoint.client() as client:
            there = functools.partial(client.score, features, signature)
            here = self._call(signature, features)
            remote, local = in_turns([there, here], 2 * self._seconds, warm=3)
        self._add(
            "grpc",
            head,
            candidates=count,
            **quantiles(remote),
            in_process_p50_ms=quantiles(local)["p50_ms"],
            overhead_ms=1e3 * float(np.median(remote) - np.median(local)),
        )

    def callers(self, endpoint: Endpoint, head: str, count: int, clients: int) -> None:
        """Several callers at the same time."""
        signature, requests = of_head(INDEPENDENT, head), []
        for seed in range(clients):
            user = user_features(self._model.schema, 1, seed)
            features = {**user, **candidate_features((1, count), seed)}
            requests.append(endpoint.request(signature, features))
        found = measure(endpoint, requests, clients, max(3 * self._seconds, 1.0))
        if found["errors"]:
            raise RuntimeError(f"the server answered with {found['errors']}")
        rate = found["requests_per_s"] * count
        self._add("concurrency", head, candidates=count, **found, candidates_per_s=rate)
