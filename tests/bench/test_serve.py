"""`loopctr bench serve` measures what it says, on a model that is quick to run."""

import contextlib
import functools
import json
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from tensorflow.core.protobuf import config_pb2

from loopctr_tf.bench import serve
from loopctr_tf.bench.session import MODEL, Served
from loopctr_tf.bench.texts import serve_tables
from loopctr_tf.cli import cli
from loopctr_tf.errors import UsageError
from loopctr_tf.scoring import PredictionServer
from loopctr_tf.scoring.server import saved_model
from tests.bench.test_train import SMALL

LEAST = ("--set", "experts=1")
"""Its exports are dear to trace; operations of routed experts are counted in `test_flops`."""


def bench(*arguments):
    return CliRunner().invoke(
        cli,
        ["bench", "serve", *arguments],
        catch_exceptions=False,
        standalone_mode=False,
    )


@pytest.fixture(scope="module")
def report():
    sizes = ("--history", "2", "--candidates", "3,9", "--loops", "0,1", "--clients", "2")
    options = config_pb2.ConfigProto()
    # A rewriting of each path at each depth takes longer than its calls; the server's has it.
    options.graph_options.rewrite_options.disable_meta_optimizer = True
    plain = functools.partial(config_pb2.ConfigProto, graph_options=options.graph_options)
    with pytest.MonkeyPatch.context() as patch:
        names = {**vars(config_pb2), "ConfigProto": plain}
        patch.setattr(saved_model, "config_pb2", SimpleNamespace(**names))
        return json.loads(bench(*SMALL, *sizes, *LEAST, "--seconds", "0", "--json").stdout)


def test_every_path_size_and_depth_is_there_once(report):
    found = [(row["path"], row["loops"], row["candidates"]) for row in report["paths"]]
    paths = ("pointwise", "rank", "rank_cached", "encode_user")
    assert sorted(found) == sorted((p, d, n) for p in paths for d in (0, 1) for n in (3, 9))
    for row in report["paths"]:
        assert row["calls"] >= 5
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
        rate = row["flops"] / (row["p50_ms"] / 1e3) / row["matmul_rate"]
        assert row["share_of_matmul_rate"] == pytest.approx(rate)


def test_operations_by_path(report):
    flops = {(r["path"], r["loops"], r["candidates"]): r["flops"] for r in report["paths"]}
    for depth in (0, 1):
        user, alone = (flops[path, depth, 3] for path in ("encode_user", "rank_cached"))
        assert flops["rank", depth, 9] == user + 3 * alone
        assert flops["pointwise", depth, 9] == 9 * (user + alone // 3)


def test_grpc_and_callers_are_measured(report):
    assert [(r["loops"], r["candidates"]) for r in report["grpc"]] == [
        (d, n) for d in (0, 1) for n in (3, 9)
    ]
    for row in report["grpc"]:
        assert row["p50_ms"] - row["in_process_p50_ms"] == pytest.approx(row["overhead_ms"])
    (row,) = report["concurrency"]
    assert (row["clients"], row["candidates"]) == (2, 9)
    assert row["candidates_per_s"] == pytest.approx(9 * row["requests_per_s"])


def test_sizes_of_exports_and_states(report):
    (export,) = report["exports"]
    assert 0 < export["zero_loop_bytes"] < export["bytes"]
    # 2 events: a mask of 2; keys and values of 2 x 4 at each depth; at one loop two user
    # tokens; the tower's 4.
    wanted = {0: 2 + 4 * (2 * 2 * 4 + 4), 1: 2 + 4 * (2 * 2 * 2 * 4 + 2 * 4 + 4)}
    assert {row["loops"]: row["bytes"] for row in report["state_bytes"]} == wanted


def test_people_read_tables(report):
    parts = serve_tables(report).split("\n\n")
    assert [part.partition(" ")[0] for part in parts[:8:2]] == ["In", "Over", "Callers", "Exports,"]
    assert len(parts[1].splitlines()) == 2 + 16
    assert parts[1].split()[:9] == ["|", "T", "|", "head", "|", "N", "|", "path", "|"]


@contextlib.contextmanager
def served_here(base_path):
    """`session.served` without a process of its own, which takes seconds to start."""
    with PredictionServer(base_path, model_name=MODEL, poll_seconds=0) as server:
        yield Served(server.target, None)


def test_a_model_with_one_head_and_no_users_state(monkeypatch):
    monkeypatch.setattr(serve, "served", served_here)
    model = ("--set=model.name=dlrm", "--set=dim=4")
    sizes = ("--history=2", "--candidates=3", "--clients=1", "--seconds=0")
    report = json.loads(bench(*model, *sizes, "--json").stdout)
    assert report["model"] == "dlrm"
    assert [row["path"] for row in report["paths"]] == ["pointwise", "rank"]
    for rows in ("paths", "grpc", "concurrency"):
        assert {(row["head"], row["loops"]) for row in report[rows]} == {("", None)}
    assert report["state_bytes"] == []
    assert "zero_loop_bytes" not in report["exports"][0]
    parts = serve_tables(report).split("\n\n")
    assert parts[1].splitlines()[2].split()[3] == "dlrm"
    assert len(parts) == 2 * 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--history", "x"), "--history is 'x'; give whole numbers"),
        (("--history", "1+2+3"), "history is 1+2+3; give events"),
        (("--history", "0"), "history is 0"),
        (("--candidates", "0"), "candidates are [0]; give 1 or more"),
        (("--loops", "99"), "loops is 99; this model runs at 0 to 8 loops"),
        (("--clients", ""), "--clients is ''"),
    ],
)
def test_mistakes_are_one_line(arguments, message):
    with pytest.raises(UsageError) as caught:
        bench(*SMALL, *arguments)
    assert message in str(caught.value)
