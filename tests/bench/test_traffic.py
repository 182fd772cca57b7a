"""Load, hostile requests and the soak, on small exports and the embedded server."""

import json
import shutil
import time
from contextlib import contextmanager

import numpy as np
import pytest

import loopctr_tf as lc
from loopctr_tf.bench import hostile, soak
from loopctr_tf.bench.load import measure
from loopctr_tf.bench.requests import Case, Endpoint, Requests
from loopctr_tf.bench.texts import soak_text
from loopctr_tf.cli import cli
from loopctr_tf.errors import UsageError
from loopctr_tf.scoring import PredictionServer
from tests.exported import with_moved_weights
from tests.serving.compact import compact_model
from tests.session import command

SIGNATURES = ["regress", "rank_loop_0", "encode_user_loop_0", "rank_cached_loop_0"]


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Two exports of one schema with different weights, and nothing in them to warm up."""
    folder = tmp_path_factory.mktemp("exports")
    options = {"signatures": SIGNATURES, "warmup_batch_sizes": ()}
    first = lc.export_saved_model(compact_model(), folder / "A", **options)
    return [first, with_moved_weights(first, folder / "B")]


@pytest.fixture(scope="module")
def server(exports, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    (folder / "1").symlink_to(exports[0])
    with PredictionServer(folder, poll_seconds=0) as server:
        yield server


@pytest.fixture
def schema(exports):
    return exports[0] / "assets" / "schema.yaml"


# Requests.


def test_requests_follow_the_metadata_alone(server):
    drawn = Requests(Endpoint(server.target)).features("rank_loop_0", 2, 30, 9)
    assert {alias: array.shape for alias, array in drawn.items()} == {
        "history_length": (2,),
        "history_movie": (2, 9),
        "history_genres": (2, 9, 3),
        "movie_id": (2, 30),
        "genres": (2, 30, 3),
        "age": (2,),
    }
    assert drawn["history_length"].tolist() == [9, 9]


def test_a_schema_gives_known_ids_and_a_seed_the_same_requests(server, schema):
    schema = lc.Schema.load(schema)

    def drawn(seed):
        return Requests(Endpoint(server.target), schema, seed).features("rank_loop_0", 500, 3, 4)

    first, again, other = drawn(1), drawn(1), drawn(2)
    assert set(first["movie_id"].ravel()) == set("abcd")
    assert abs(first["age"].mean() - 40) < 2
    for alias, array in first.items():
        np.testing.assert_array_equal(array, again[alias])
    assert (first["movie_id"] != other["movie_id"]).any()


# The load generator.


@pytest.mark.parametrize("signature", ["regress", "rank_cached_loop_0"])
def test_a_closed_loop(server, schema, signature):
    sizes = ("--candidates=7", "--history=3", "--clients=1,2", "--seconds=0.1", "--json")
    server = ("--target", server.target, "--schema", schema)
    report = json.loads(command("bench", "load", *server, "--signature", signature, *sizes))
    assert [found["clients"] for found in report["runs"]] == [1, 2]
    for found in report["runs"]:
        assert found["requests"] > 0
        assert (found["errors"], found["unsent"]) == ({}, 0)
        assert found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"]
        assert found["candidates_per_s"] == pytest.approx(7 * found["requests_per_s"])


def test_people_read_a_table(server):
    sizes = ("--candidates=3", "--history=4", "--clients=1", "--seconds=0.05", "--rate=20")
    text = command("bench", "load", "--target", server.target, *sizes)
    assert text.startswith(f"rank_loop_0 of loopctr at {server.target}: 3 candidates, history 4")
    assert ", open loop, 20 requests/s" in text
    assert text.splitlines()[2].endswith(" not sent in time |")


class Stalled(Endpoint):
    """An endpoint on which every call takes a tenth of a second."""

    @contextmanager
    def connect(self):
        def send(case):
            time.sleep(0.1)
            return "OK", b""

        yield send


def test_an_open_loop_counts_from_when_a_request_was_due():
    # 50 a second for 0.4 s: 20 are due, of which one client sends 4. The others had waited since
    # they were due, half of all for 0.1 s or more.
    found = measure(Stalled("nobody:1"), [Case("", b"")], 1, 0.4, rate=50.0)
    assert found["requests"] <= 5
    assert found["requests"] + found["unsent"] == 20
    assert found["p50_ms"] >= 100
    closed = measure(Stalled("nobody:1"), [Case("", b"")], 1, 0.2)
    assert closed["unsent"] == 0
    assert closed["p50_ms"] >= 100


def test_errors_are_counted_by_status(server):
    found = measure(Endpoint(server.target), [Case("", b"\xff" * 9)], 1, 0.05)
    assert set(found["errors"]) == {"INVALID_ARGUMENT"}
    assert (found["requests"], found["p50_ms"]) == (0, None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--signature", "nope"), "signature 'nope' is not served; choose encode_user_loop_0, "),
        (("--signature", "regress"), "give the export's assets/schema.yaml with --schema"),
        (("--name", "other"), "Servable not found for request: Latest(other); check --name"),
        (("--clients", "0"), "clients are [0]; give 1 or more"),
        (("--target", "127.0.0.1:1", "--timeout", "1"), "UNAVAILABLE from 127.0.0.1:1"),
    ],
)
def test_mistakes(server, arguments, words):
    with pytest.raises(UsageError) as caught:
        command("bench", "load", "--target", server.target, *arguments)
    assert words in str(caught.value)


# Hostile requests.


def test_the_embedded_server_refuses_every_hostile_request(server, schema):
    report = hostile.bench_hostile(Endpoint(server.target), lc.Schema.load(schema))
    assert report["problems"] == []
    names = ["encode_user_loop_0", "rank_loop_0", "regress", "serving_default"]
    assert report["signatures"] == names
    assert report["requests"] > 3 * len(hostile.HOSTILE)


def test_a_wrong_status_is_a_problem(server, monkeypatch):
    wrong = hostile.HOSTILE[0]._replace(status="OK")
    fine = hostile.Hostile("nothing", lambda request, alias: None)
    monkeypatch.setattr(hostile, "HOSTILE", [wrong, fine])
    report = hostile.bench_hostile(Endpoint(server.target))
    first, second = report["problems"][:2]
    assert first.startswith("encode_user_loop_0: unknown model: NOT_FOUND instead of OK")
    assert second.startswith("encode_user_loop_0: nothing: OK instead of INVALID_ARGUMENT")
    arguments = ["bench", "hostile", "--target", server.target]
    with pytest.raises(SystemExit) as end:
        cli.main(arguments, standalone_mode=False)
    assert end.value.code == 1


# The soak.


def test_a_soak_finds_what_is_wrong_and_nothing_else(exports, monkeypatch):
    unlike = iter([False])
    alike = hostile.alike
    monkeypatch.setattr(hostile, "alike", lambda *answers: next(unlike, True) and alike(*answers))
    wrong = hostile.Hostile("on purpose", lambda request, _: request.ClearField("inputs"), "OK")
    monkeypatch.setattr(hostile, "HOSTILE", [*hostile.HOSTILE, wrong])
    report = soak.bench_soak(exports, 1.0, clients=3, pause_s=0.1, think_s=0.01)
    problems = [
        text
        for text in report["problems"]
        if "on purpose: INVALID_ARGUMENT instead of OK" not in text
    ]
    assert len(problems) == 1
    assert problems[0].endswith(": a good request is answered otherwise than before")
    assert len(report["swaps"]) >= 2
    assert report["broken_versions"] >= 1
    assert {"OK", "INVALID_ARGUMENT"} <= set(report["requests"])
    assert 100 < report["memory_mb"]["start"] <= report["memory_mb"]["most"]
    assert soak_text(report).splitlines()[-1].startswith("PROBLEM ")
    assert soak_text({**report, "problems": []}).endswith("All was right.")


def test_exports_that_cannot_be_told_apart_are_refused(exports, tmp_path):
    with pytest.raises(UsageError, match="same weights"):
        soak.bench_soak([exports[0], exports[0]])
    other = tmp_path / "other"
    shutil.copytree(exports[0], other)
    text = (other / "assets" / "schema.yaml").read_text()
    (other / "assets" / "schema.yaml").write_text(text.replace("mean: 40.0", "mean: 41.0"))
    with pytest.raises(UsageError, match="different schemas"):
        soak.bench_soak([exports[0], other])
    with pytest.raises(UsageError, match="nowhere"):
        soak.bench_soak([exports[0], tmp_path / "nowhere"])
