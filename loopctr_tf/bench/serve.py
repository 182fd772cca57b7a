"""`loopctr bench serve`: one user against N candidates, by path, depth, size and number of callers.

Paths: *pointwise* repeats the user in every row; *rank* computes the user's side once a request;
*encode_user* computes it for a cache, and *rank_cached* takes it from there. "In process" is a graph
session, as in a model server; "over gRPC" is a server in another process.
"""

import functools
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from loopctr_tf.bench import machine
from loopctr_tf.bench.flops import ranking_flops
from loopctr_tf.bench.session import (
    MODEL,
    check_depths,
    check_least,
    run_signature,
    served,
    write_export,
)
from loopctr_tf.bench.timing import in_turns, quantiles, repeated
from loopctr_tf.bench.workload import candidate_features, rows_of, user_features, workload_model
from loopctr_tf.errors import UsageError
from loopctr_tf.models.loopctr.settings import LoopCTRConfig
from loopctr_tf.scoring import ScoringClient
from loopctr_tf.scoring.names import STATE_VERSION
from loopctr_tf.scoring.server.saved_model import SavedModel


class Shape(NamedTuple):
    """Events of the recent and of the long history."""

    history: int
    long_history: int = 0

    def __str__(self) -> str:
        return f"{self.history}+{self.long_history}" if self.long_history else f"{self.history}"


def bench_serve(
    shapes: Sequence[Shape],
    candidates: Sequence[int],
    depths: Sequence[int],
    clients: Sequence[int],
    seconds: float = 1.0,
    settings: LoopCTRConfig | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measures serving on made-up models and requests.

    Args:
      shapes: histories to measure, each on a model of its own.
      candidates: numbers N.
      depths: loops i.
      clients: callers at the same time, over gRPC.
      seconds: for each figure; five calls at least.
      settings: of the model.
      say: takes lines about progress.

    Returns:
      ``machine``, ``settings``, ``exports`` (shape -> bytes of everything and of zero loops alone),
      ``paths`` (rows of shape, loops, candidates, path, quantiles, ``candidates_per_s``, ``flops``,
      ``share_of_matmul_rate``), ``grpc`` (rows with ``overhead_ms``), ``concurrency`` (rows with
      ``clients``, ``requests_per_s``), ``state_bytes`` and ``peak_memory_bytes``.
    """
    settings = settings or LoopCTRConfig()
    _check(shapes, candidates, depths, clients, settings)
    report: dict[str, Any] = {
        "machine": machine.describe(),
        "settings": settings.to_dict(),
        **{key: [] for key in ("exports", "paths", "grpc", "concurrency", "state_bytes")},
    }
    for place, shape in enumerate(shapes):
        model = workload_model(*shape, settings)
        with tempfile.TemporaryDirectory() as scratch:
            say(f"histories of {shape}: exporting")
            path = _export(model, Path(scratch), shape, depths, report)
            session = SavedModel(path, 1)
            for depth in depths:
                for count in candidates:
                    say(f"histories of {shape}, {depth} loops, {count} candidates")
                    _paths(model, session, shape, depth, count, seconds, report)
            if place == len(shapes) - 1:
                with served(path.parent) as server:
                    target = server.target
                    say(f"histories of {shape}: over gRPC")
                    _over_grpc(session, target, model, shape, candidates, depths, seconds, report)
                    _concurrency(target, model, shape, candidates, clients, seconds, report)
            session.close()
    report["peak_memory_bytes"] = machine.peak_memory_bytes()
    return report


def _check(shapes, candidates, depths, clients, settings) -> None:
    for shape in shapes:
        if shape.history < 1 or shape.long_history < 0:
            raise UsageError(f"history is {shape}; give events such as 50 or 50+1024")
    check_least("candidates", candidates)
    check_least("clients", clients)
    check_depths(depths, settings.max_loops)


def _export(model, folder: Path, shape: Shape, depths: Sequence[int], report) -> Path:
    names = [
        template.format(depth)
        for depth in depths
        for template in (
            "loop_{}",
            "rank_loop_{}",
            "encode_user_loop_{}",
            "rank_cached_loop_{}",
        )
    ]
    path = write_export(model, folder / "all" / "1", names, depths)
    zero = [name for name in names if name.endswith("_0")]
    zero = write_export(model, folder / "zero" / "1", zero, depths)
    report["exports"].append(
        {
            "history": str(shape),
            "bytes": _size(path),
            "zero_loop_bytes": _size(zero),
            "graph_bytes": (path / "saved_model.pb").stat().st_size,
            "zero_loop_graph_bytes": (zero / "saved_model.pb").stat().st_size,
        }
    )
    return path


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _paths(model, session, shape, depth, count, seconds, report) -> None:
    user, items = user_features(model.schema, 1), candidate_features((1, count))
    state = run_signature(session, f"encode_user_loop_{depth}", user)
    encode, score = ranking_flops(model, user, candidate_features((1, 1)), f"loop_{depth}")
    paths = {
        "pointwise": (f"loop_{depth}", rows_of(user, items), count * (encode + score)),
        "rank": (f"rank_loop_{depth}", {**user, **items}, encode + count * score),
        "rank_cached": (f"rank_cached_loop_{depth}", {**state, **items}, count * score),
        "encode_user": (f"encode_user_loop_{depth}", user, encode),
    }
    times, rates = machine.beside_matmul_rate(
        lambda: {
            name: repeated(functools.partial(run_signature, session, signature, features), seconds)
            for name, (signature, features, _) in paths.items()
        }
    )
    for name, (_, _, flops) in paths.items():
        found = quantiles(times[name])
        report["paths"].append(
            {
                "history": str(shape),
                "loops": depth,
                "candidates": count,
                "path": name,
                **found,
                "candidates_per_s": 1e3 * count / found["p50_ms"],
                "flops": flops,
                **rates,
                "share_of_matmul_rate": 1e3 * flops / found["p50_ms"] / rates["matmul_rate"],
            }
        )
    if not any(
        row["history"] == str(shape) and row["loops"] == depth for row in report["state_bytes"]
    ):
        size = sum(array.nbytes for name, array in state.items() if name != STATE_VERSION)
        report["state_bytes"].append({"history": str(shape), "loops": depth, "bytes": size})


def _over_grpc(session, target, model, shape, candidates, depths, seconds, report) -> None:
    user = user_features(model.schema, 1)
    with ScoringClient(target, MODEL, timeout_s=120.0) as client:
        for depth in depths:
            for count in candidates:
                features = {**user, **candidate_features((1, count))}
                signature = f"rank_loop_{depth}"
                there = functools.partial(client.score, features, signature)
                here = functools.partial(run_signature, session, signature, features)
                remote, local = in_turns([there, here], 2 * seconds, warm=3)
                report["grpc"].append(
                    {
                        "history": str(shape),
                        "loops": depth,
                        "candidates": count,
                        **quantiles(remote),
                        "in_process_p50_ms": quantiles(local)["p50_ms"],
                        "overhead_ms": 1e3 * float(np.median(remote) - np.median(local)),
                    }
                )


def _concurrency(target, model, shape, candidates, clients, seconds, report) -> None:
    count = min(candidates, key=lambda number: abs(number - 500))
    for number in clients:
        stop = threading.Event()

        def caller(seed, stop=stop) -> list[float]:
            user, times = user_features(model.schema, 1, seed), []
            features = {**user, **candidate_features((1, count), seed)}
            with ScoringClient(target, MODEL, timeout_s=120.0) as client:
                client.score(features, "rank_loop_0")
                while not stop.is_set() or not times:
                    start = time.perf_counter()
                    client.score(features, "rank_loop_0")
                    times.append(time.perf_counter() - start)
            return times

        start = time.perf_counter()
        with ThreadPoolExecutor(number) as pool:
            callers = [pool.submit(caller, seed) for seed in range(number)]
            wait(callers, max(3 * seconds, 1.0), FIRST_EXCEPTION)
            stop.set()
            times = [seconds for each in callers for seconds in each.result()]
        rate = len(times) / (time.perf_counter() - start)
        report["concurrency"].append(
            {
                "history": str(shape),
                "loops": 0,
                "candidates": count,
                "clients": number,
                **quantiles(times),
                "requests_per_s": rate,
                "candidates_per_s": rate * count,
            }
        )
