"""`loopctr bench serve`: one user against N candidates, by path, head, size and number of callers.

Paths: *pointwise* repeats the user in every row; *rank* computes the user's side once a request; where a
model has a user's state, *encode_user* computes it for a cache, and *rank_cached* takes it from there.
"In process" is a graph session, as in a model server; "over gRPC" is a server in another process.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tensorflow as tf

from loopctr_tf.bench import machine
from loopctr_tf.bench.flops import ranking_flops
from loopctr_tf.bench.load import measure
from loopctr_tf.bench.report import Log, check_least, described, silent
from loopctr_tf.bench.requests import Endpoint
from loopctr_tf.bench.session import (
    MODEL,
    exported,
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


def bench_serve(
    histories: Sequence[Sequence[int]],
    candidates: Sequence[int],
    clients: Sequence[int],
    loops: Sequence[int] | None = None,
    seconds: float = 1.0,
    config: RunConfig | None = None,
    log: Log = silent,
) -> dict[str, Any]:
    """Measures serving on made-up models and requests.

    Args:
      histories: events to measure, (recent,) or (recent, long), each on a model of its own.
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
    for events in histories:
        if events[0] < 1 or min(events) < 0 or len(events) > 2:
            raise UsageError(f"history is {_text(events)}; give events such as 50 or 50+1024")
    check_least("candidates", candidates)
    check_least("clients", clients)
    figures = ("exports", "paths", "grpc", "concurrency", "state_bytes")
    report = {**described(config), **{name: [] for name in figures}}
    for place, events in enumerate(histories):
        history = _text(events)
        model = config.build_model(workload_schema(*events))
        heads = heads_at(model, loops) or model.heads
        log(f"histories of {history}: exporting")
        with exported(model, _names(model, heads), heads) as session:
            bench = _Bench(model, history, session, seconds, report)
            bench.exports(heads)
            for head in heads:
                bench.state_bytes(head)
                for count in candidates:
                    log(f"histories of {history}, {head or config.name}, {count} candidates")
                    bench.paths(head, count)
            if place == len(histories) - 1:
                with served(session.path.parent) as server:
                    log(f"histories of {history}: over gRPC")
                    endpoint = Endpoint(server.target, MODEL, timeout_s=120.0)
                    for head in heads:
                        for count in candidates:
                            bench.over_grpc(endpoint, head, count)
                    count = min(candidates, key=lambda number: abs(number - _CALLERS_CANDIDATES))
                    for number in clients:
                        bench.callers(endpoint, heads[0], count, number)
    return {**report, "peak_memory_bytes": machine.peak_memory_bytes()}


def _text(events: Sequence[int]) -> str:
    return "+".join(map(str, events))


def _signatures(model: RankingModel, head: str) -> dict[str, str]:
    """Path -> name of the signature."""
    found = {"pointwise": pointwise(head), "rank": of_head(INDEPENDENT, head)}
    if model.state_specs(head, tf.float32) is not None:
        found["rank_cached"] = of_head(RANK_CACHED, head)
        found["encode_user"] = of_head(ENCODE_USER, head)
    return found


def _names(model: RankingModel, heads: Sequence[str]) -> list[str]:
    return [name for head in heads for name in _signatures(model, head).values()]


def _sizes(path: Path) -> dict[str, int]:
    files = [file.stat().st_size for file in path.rglob("*") if file.is_file()]
    return {"bytes": sum(files), "graph_bytes": (path / "saved_model.pb").stat().st_size}


class _Bench:
    """Measurements of one model, added to a report."""

    def __init__(
        self, model: RankingModel, history: str, session: SavedModel, seconds: float, report
    ):
        self._model, self._history, self._session = model, history, session
        self._seconds, self._report = seconds, report
        self._user = user_features(model.schema, 1)

    def _add(self, figures: str, head: str, **row) -> None:
        about = {"history": self._history, "head": head, "loops": self._model.loops_of(head)}
        self._report[figures].append({**about, **row})

    def _call(self, signature: str, features) -> Callable[[], dict[str, np.ndarray]]:
        return functools.partial(run_signature, self._session, signature, features)

    def _state(self, head: str) -> dict[str, np.ndarray]:
        """The user's state; nothing where the model has none."""
        signature = _signatures(self._model, head).get("encode_user")
        return self._call(signature, self._user)() if signature else {}

    def exports(self, heads: Sequence[str]) -> None:
        """Sizes of the export and, where there are depths, of one of zero loops alone."""
        row = {"history": self._history, **_sizes(self._session.path)}
        zero = [head for head in heads if self._model.loops_of(head) == 0]
        if zero:
            with TemporaryDirectory() as scratch:
                names = _names(self._model, zero)
                path = write_export(self._model, Path(scratch) / "1", names, zero)
                row |= {f"zero_loop_{name}": size for name, size in _sizes(path).items()}
        self._report["exports"].append(row)

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
