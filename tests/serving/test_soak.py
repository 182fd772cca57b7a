"""The soak and the load test run on small exports, and see it when something is wrong."""

import collections
import dataclasses
import json
import sys
import time
from contextlib import contextmanager
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, regression_pb2

import loopctr_tf as lc
from loopctr_tf.scoring import PredictionServer, TensorInfo, tensors
from loopctr_tf.scoring.client.signature import Signature
from tests.factories import disturb
from tests.serving.compact import compact_model, compact_schema
from tests.serving.scripts import script

soak, load_test = script("soak"), script("load_test")
cases, clients, loops = script("traffic.cases"), script("traffic.clients"), script("traffic.loops")
good, reports, samples = (
    script("traffic.good"),
    script("traffic.reports"),
    script("traffic.samples"),
)
versions = script("traffic.versions")
Answer, Case, Code, Reply = cases.Answer, cases.Case, cases.Code, cases.Reply

SIGNATURES = ["regress", "encode_user_loop_0", "rank_cached_loop_0"]


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Two exports of one schema with other weights, and nothing in them to warm up."""
    folder = tmp_path_factory.mktemp("exports")
    model = compact_model()
    found = {}
    for label in ("A", "B"):
        path = folder / label
        lc.export_saved_model(model, path, signatures=SIGNATURES, warmup_batch_sizes=())
        found[label] = path
        disturb(model, seed=7)
    return found


@pytest.fixture(scope="module")
def made(exports):
    """The requests of a soak of `exports`."""
    return soak.make_cases(exports, rows=((3, 4), (0, 4)), lists=((2, 9), (1, 0)))


@pytest.fixture(scope="module")
def server(exports, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    (folder / "1").symlink_to(exports["A"])
    with PredictionServer(folder, poll_seconds=0) as server:
        yield server


@pytest.fixture
def run(monkeypatch, capsys):
    """A call of a script: (exit code, stdout, stderr)."""

    def call(module, *arguments):
        monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
        code = 0
        try:
            module.main()
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return call


# The soak.


WRONG = ("wrong answer", "wrong refusal")
"""Kinds of two requests whose answers are written down wrong."""


@pytest.fixture(scope="module")
def report(exports, made):
    """Of a soak with all that was made, and with two requests of wrong expectations."""
    fine = next(case for case in made if case.kind == "serving_default")
    off = {
        label: Answer(outputs={"probability": answer.outputs["probability"] + 0.1})
        for label, answer in fine.answers.items()
    }
    bad = next(case for case in made if case.kind == "unknown signature")
    other = dict.fromkeys(bad.answers, Answer(Code.NOT_FOUND))
    wrong = [
        dataclasses.replace(fine, kind=WRONG[0], answers=off),
        dataclasses.replace(bad, kind=WRONG[1], answers=other),
    ]
    return soak.soak(exports, [*made, *wrong], 0.5, 4, pause_s=0.2, think_s=0.01)


def test_a_soak_finds_nothing_wrong_with_a_good_server(made, report):
    kinds = report["kinds"]
    assert [kind for kind, row in kinds.items() if row["wrong"]] in ([], [WRONG[1]])
    assert report["swaps"] >= 1
    assert sum(report["broken_versions"].values()) >= 1
    assert report["quiet_requests"] == 2 * (len(made) + 2)
    assert report["requests"] == sum(report["codes"].values()) > 50
    assert report["exit_code"] == 0
    assert report["tracebacks"] == 0
    assert report["memory_mb"]["end"] > 100
    expected = {
        "wrong dtype": "INVALID_ARGUMENT",
        "unknown model": "NOT_FOUND",
        "unknown method": "UNIMPLEMENTED",
    }
    for kind, code in expected.items():
        assert set(kinds.get(kind, {"codes": {code}})["codes"]) == {code}


def test_a_soak_finds_what_is_wrong(report):
    assert report["quiet_wrong"] == 4  # both requests, of both exports
    assert report["problems"][-1] == "4 wrong replies in the quiet"
    faults = set(report["faults"])
    assert "wrong answer (Predict): version 1: probability is off by 0.1" in faults
    assert "wrong answer (Predict): version 2: probability is off by 0.1" in faults
    assert all(fault.startswith(WRONG) for fault in faults)
    assert any("FAILED_PRECONDITION instead of NOT_FOUND" in fault for fault in faults)
    assert "PROBLEM: 4 wrong replies in the quiet" in reports.markdown(report)


@pytest.mark.parametrize(("problems", "code"), [([], 0), (["no version was swapped"], 1)])
def test_the_exit_code_says_whether_anything_was_wrong(monkeypatch, run, problems, code):
    monkeypatch.setattr(soak, "make_cases", lambda *_: [])
    monkeypatch.setattr(soak, "soak", lambda *_: summary(problems=problems))
    assert run(soak, "a", "b")[0] == code
    found, printed, _ = run(soak, "a", "b", "--json")
    assert (found, json.loads(printed)["problems"]) == (code, problems)


def test_requests_cover_what_a_server_meets(made):
    kinds = collections.Counter(case.kind for case in made)
    assert kinds["tensor that is none"] > 50
    assert {
        "string of 10 MB",
        "not finite",
        "negative length",
        "length beyond the data",
        "wrong rank",
        "misnamed input",
        "unknown model",
        "bytes that are no message",
        "bytes that are no tf.Example",
        "foreign state",
    } <= set(kinds)
    abandoned = script("traffic.hostile").abandoned_cases(case for case in made if case.good)
    assert {case.kind for case in abandoned} == {"cancelled", "tiny deadline"}
    (huge,) = [c for c in made if c.kind == "string of 10 MB" and len(c.payload) > 10 << 20][:1]
    assert huge.good
    ranked = [case.answers["A"].outputs for case in made if case.kind == "rank_cached_loop_0"]
    assert {found["probability"].shape for found in ranked if found} == {(1, 0), (2, 9)}


def test_a_cascade_is_cut_where_scores_lie_far_apart():
    class Scores:
        def __init__(self, *scores):
            self.outputs = lambda name, arrays: {"probability": np.array(scores)}

    arrays = {"refine_top_k": np.ones(2, np.int32)}
    # Gaps, from the best: 0.1, 0.3, 0.3 and 0.2, 0.1, 0.4; of another export 0.4, 0.1, 0.3.
    first = Scores([0.2, 0.9, 0.8, 0.5], [0.1, 0.8, 0.6, 0.5])
    assert good.settled({"A": first}, arrays) == 3
    other = Scores([0.9, 0.5, 0.4, 0.4], [0.9, 0.5, 0.4, 0.1])
    assert good.settled({"A": first, "B": other}, arrays) == 1
    tied = Scores([0.5] * 4, [0.5] * 4)
    assert good.settled({"A": first, "B": tied}, arrays) == 4


def test_states_of_one_export_are_refused_by_the_other(made):
    found = [
        {label: answer.code.name for label, answer in case.answers.items()}
        for case in made
        if case.kind == "rank_cached_loop_0"
    ]
    refused = "INVALID_ARGUMENT"
    assert found == [{"A": "OK", "B": refused}, {"A": refused, "B": "OK"}] * 2


def test_exports_that_answer_alike_are_refused():
    def case(value):
        answers = [Answer(outputs={"probability": np.float32([0.5, v])}) for v in (0.5, value)]
        return Case("serving_default", "Predict", b"", dict(zip("AB", answers, strict=True)))

    soak.check_distinct([case(0.502)])
    with pytest.raises(lc.UsageError, match="the exports answer alike"):
        soak.check_distinct([case(0.502), case(0.5005)])


def test_what_is_no_export_is_told(tmp_path, exports, run):
    code, _, words = run(soak, tmp_path, exports["B"])
    assert code == 2
    assert "assets" in words.splitlines()[-1]


# How a reply is judged.


def predicted(version: int, *values: float) -> Reply:
    """An OK reply of Predict."""
    response = predict_pb2.PredictResponse()
    response.model_spec.version.value = version
    array = np.array(values, np.float32)
    response.outputs["probability"].CopyFrom(tensors.to_proto(array))
    return Reply(Code.OK, data=response.SerializeToString())


GOOD = Case(
    "good",
    "Predict",
    b"",
    {
        label: Answer(outputs={"probability": np.array([value, 0.5], np.float32)})
        for label, value in (("A", 0.1), ("B", 0.9))
    },
)
BAD = Case("bad", "Predict", b"", dict.fromkeys("AB", Answer(Code.INVALID_ARGUMENT, "age")))
OWN = Case("own", "Predict", b"", {"A": GOOD.answers["A"], "B": BAD.answers["B"]})
REFUSED = Reply(Code.INVALID_ARGUMENT, details="age must be finite")


@pytest.mark.parametrize(
    ("case", "reply", "possible", "words"),
    [
        (GOOD, predicted(4, 0.1, 0.5), {4: "A"}, None),
        (GOOD, predicted(5, 0.9, 0.5), {4: "A", 5: "B"}, None),
        (GOOD, predicted(5, 0.1, 0.5), {4: "A", 5: "B"}, "version 5: probability is off by 0.8"),
        (GOOD, predicted(4, 0.1, 0.5001), {4: "A"}, "version 4: probability is off by 0.0001"),
        (GOOD, predicted(4, 0.1), {4: "A"}, "is float32 (1,) instead of float32 (2,)"),
        (GOOD, predicted(4, 0.1, np.nan), {4: "A"}, "version 4: probability is off by nan"),
        (GOOD, predicted(3, 0.1, 0.5), {4: "A"}, "answered by version 3, which was not in"),
        (GOOD, Reply(Code.UNAVAILABLE), {4: "A"}, "UNAVAILABLE instead of OK"),
        (BAD, REFUSED, {4: "A"}, None),
        (BAD, Reply(Code.INTERNAL), {4: "A"}, "INTERNAL instead of INVALID_ARGUMENT"),
        (BAD, Reply(Code.INVALID_ARGUMENT, details="rank"), {4: "A"}, "for another reason: rank"),
        (BAD, predicted(4, 0.1), {4: "A"}, "OK instead of INVALID_ARGUMENT"),
        (OWN, REFUSED, {4: "A", 5: "B"}, None),
        (OWN, REFUSED, {4: "A"}, "INVALID_ARGUMENT instead of OK"),
        (OWN, predicted(5, 0.1, 0.5), {4: "A", 5: "B"}, "version 5 said OK instead of INVALID"),
    ],
)
def test_replies_are_judged(case, reply, possible, words):
    found = cases.fault(case, reply, possible)
    assert (found is None) if words is None else (words in found)


def test_outputs_of_every_method_are_read():
    response = regression_pb2.RegressionResponse()
    response.model_spec.version.value = 1
    response.result.regressions.add(value=0.25)
    case = Case("r", "Regress", b"", {"A": Answer(outputs={"outputs": np.float32([0.25])})})
    assert cases.fault(case, Reply(Code.OK, response.SerializeToString()), {1: "A"}) is None
    response.result.regressions[0].value = 0.75
    found = cases.fault(case, Reply(Code.OK, response.SerializeToString()), {1: "A"})
    assert "off by 0.5" in found


@pytest.mark.parametrize(
    ("reply", "pinned", "possible", "words"),
    [
        (predicted(5, 0.9, 0.5), 5, {5: "B"}, None),
        (Reply(Code.NOT_FOUND, details="Specific(loopctr, 4)"), 4, {5: "B"}, None),
        (Reply(Code.NOT_FOUND, details="Specific(loopctr, 4)"), 4, {4: "A", 5: "B"}, None),
        (Reply(Code.NOT_FOUND, details="(loopctr, 5)"), 5, {5: "B"}, "in service and not found"),
        (predicted(5, 0.9, 0.5), 4, {5: "B"}, "OK instead of NOT_FOUND of version 4"),
        (predicted(5, 0.9, 0.5), 4, {4: "A", 5: "B"}, "answered by version 5"),
    ],
)
def test_replies_to_requests_for_one_version_are_judged(reply, pinned, possible, words):
    found = clients.pinned_fault(GOOD, reply, pinned, possible)
    assert (found is None) if words is None else (words in found)


def test_versions_know_when_they_may_answer(tmp_path, monkeypatch):
    (tmp_path / "export").mkdir()
    clock = iter([10.0, 20.0, 30.0])
    monkeypatch.setattr(versions.time, "monotonic", lambda: next(clock))
    found = versions.Versions(tmp_path / "models", {"A": tmp_path / "export"})
    assert (found.publish("A"), found.publish("A")) == (1, 2)  # at 10 and 20
    found.settled(2)  # at 30
    found.remove_others(2)
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["2"]
    spans = {12: {1}, 20: {1, 2}, 29: {1, 2}, 31: {2}}
    assert {t: set(found.possible(t, t)) for t in spans} == spans
    assert set(found.possible(5, 9)) == set()
    assert found.possible(15, 40) == {1: "A", 2: "A"}


# The report.


def summary(**changes):
    account, quiet = clients.Account(), clients.Account()
    account.add(GOOD, Reply(Code.OK), 2.0, None)
    settings = {"seconds": 300.0, "clients": 2}
    facts = {
        "account": account,
        "quiet": quiet,
        "memory": {"start": 100.0, "warm": 110.0, "end": 120.0},
        "samples": [(float(t), 110.0, False) for t in range(300)],
        "swaps": [1.0, 3.0],
        "refused": {},
        "checks": 10,
        "problems": [],
        "died": None,
        "exit_code": 0,
        "log": "",
        "settings": settings,
    }
    return reports.summary(**{**facts, **changes})


def test_the_report_of_a_good_soak():
    report = summary()
    assert report["problems"] == []
    assert report["memory_mb"]["minutes"] == [110.0] * 5
    assert report["memory_mb"]["slope_per_minute"] == pytest.approx(0, abs=1e-9)
    assert report["swap_seconds"] == {"median": 2.0, "longest": 3.0}
    assert reports.markdown(report).endswith("All was right.")


def test_the_slope_is_that_of_the_last_two_thirds():
    # 1 MB a second up to 100 s, then 0.1 MB a second: 6 MB a minute, 19.9 MB on 200 MB.
    values = [100.0 + t if t < 100 else 190.0 + 0.1 * t for t in range(300)]
    # A version that loads needs memory of its own, which is no growth.
    loading = [(t + 0.5, 400.0 + t, True) for t in range(150, 250)]
    samples = [(float(t), value, False) for t, value in enumerate(values)]
    report = summary(samples=sorted([*samples, *loading]))
    assert report["memory_mb"]["slope_per_minute"] == pytest.approx(6.0)
    assert report["memory_mb"]["growth_percent"] == pytest.approx(9.95)
    assert report["problems"] == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"samples": [(float(t), 100.0 + t, False) for t in range(300)]}, "memory grew by 99.5 %"),
        ({"swaps": []}, "no version was swapped"),
        ({"problems": ["no version was AVAILABLE"] * 3}, "no version was AVAILABLE"),
        ({"died": -9}, "the server ended by itself with exit code -9"),
        ({"exit_code": None}, "the server's exit code after SIGTERM is None"),
        ({"log": "x\nTraceback (most recent call last):\n"}, "1 tracebacks in the server's log"),
        ({"account": clients.Account()}, "no request was sent"),
    ],
)
def test_the_report_names_what_was_wrong(changes, words):
    assert summary(**changes)["problems"] == [words]


# The load test.


def test_a_closed_loop(server, run):
    arguments = (
        "--target",
        server.target,
        "--signature",
        "rank_cached_loop_0",
        "--candidates",
        "7",
    )
    code, printed, _ = run(
        load_test, *arguments, "--history", 3, "--clients", "1,2", "--seconds", 0.2, "--json"
    )
    assert code == 0
    report = json.loads(printed)
    assert report["request_bytes"] > 100
    assert [found["clients"] for found in report["runs"]] == [1, 2]
    for found in report["runs"]:
        assert found["requests"] > 0
        assert found["errors"] == {}
        assert found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"]
        assert found["candidates_per_s"] == pytest.approx(7 * found["requests_per_s"])


@pytest.mark.parametrize("signature", ["serving_default", "regress", "encode_user_loop_0"])
def test_every_kind_of_signature_can_be_asked(server, exports, signature, run):
    schema = exports["A"] / "assets" / "schema.yaml"
    arguments = ("--target", server.target, "--signature", signature, "--schema", schema)
    sizes = ("--candidates", 3, "--history", 4, "--clients", 1, "--seconds", 0.05)
    code, printed, _ = run(load_test, *arguments, *sizes)
    assert code == 0
    assert printed.startswith(f"{signature} of loopctr at {server.target}: 3 candidates, history 4")
    assert printed.splitlines()[-1].endswith(" 0 |")


class Stalled(loops.Endpoint):
    """An endpoint on which every call takes a tenth of a second."""

    @contextmanager
    def channel(self):
        ready = SimpleNamespace(subscribe=lambda call, try_to_connect: call(READY))
        yield SimpleNamespace(**vars(ready), unsubscribe=lambda call: None)

    def call(self, channel, method):
        return lambda payload: time.sleep(0.1)


READY = grpc.ChannelConnectivity.READY


def test_an_open_loop_counts_from_when_a_request_was_due():
    # 50 a second for 0.4 s: 20 are due, one client sends 4 of them at most. The waits of the others
    # reach back to when they were due; half of all wait 0.1 s or more.
    found = loops.measure(Stalled("nobody:1"), "Predict", [b""], 1, 0.4, rate=50.0)
    assert found["requests"] <= 4
    assert found["requests"] + found["unsent"] == 20
    assert found["p50_ms"] >= 100
    closed = loops.measure(Stalled("nobody:1"), "Predict", [b""], 1, 0.2)
    assert closed["unsent"] == 0
    assert closed["p50_ms"] >= 100


def test_errors_are_counted_by_status(server, made):
    endpoint = loops.Endpoint(server.target)
    bad = next(case.payload for case in made if case.kind == "unknown signature")
    good = next(case.payload for case in made if case.kind == "serving_default")
    found = loops.measure(endpoint, "Predict", [bad, good], 1, 0.1, rate=100.0)
    assert set(found["errors"]) == {"FAILED_PRECONDITION"}
    found = loops.measure(endpoint, "Predict", [bad], 1, 0.05)
    assert found["requests"] == 0
    assert found["p50_ms"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("--signature", "nope"),
            "signature 'nope' is not served; choose encode_user_loop_0, rank_",
        ),
        (("--signature", "regress"), "give the export's assets/schema.yaml with --schema"),
        (("--name", "other"), "Servable not found for request: Latest(other); check --name"),
        (("--clients", "x"), "give whole numbers such as 1,4,16"),
        (("--clients", "0"), "--clients is 0; give 1 or more"),
        (("--candidates", "0"), "--candidates is 0; give 1 or more"),
        (("--seconds", "0"), "--seconds is 0.0; give a number above 0"),
        (("--rate", "-1"), "--rate is -1.0; give a number above 0"),
        (("--metadata", "token"), "give NAME=VALUE"),
        (("--tls", "nowhere.pem"), "'nowhere.pem' cannot be read"),
        (("--target", "127.0.0.1:1"), "UNAVAILABLE from 127.0.0.1:1"),
    ],
)
def test_mistakes_are_one_line(server, arguments, words, run):
    code, printed, told = run(load_test, "--target", server.target, *arguments)
    assert code == 2
    assert printed == ""
    assert len(told.splitlines()) == 1
    assert told.startswith("load_test.py: ")
    assert words in told


# Random features.


def signature(name="serving_default", candidates=frozenset(), **inputs):
    infos = {
        alias: TensorInfo(np.dtype(dtype), (None,) * rank)
        for alias, (dtype, rank) in inputs.items()
    }
    return Signature(name, infos, {}, candidates=candidates)


SEQUENCE = {
    "history_length": ("int32", 1),
    "history_movie": (object, 2),
    "history_genres": (object, 3),
}


def test_sizes_follow_the_names_of_inputs_where_there_is_no_schema():
    rank = signature(
        "rank_loop_0",
        frozenset({"movie_id", "genres"}),
        **SEQUENCE,
        movie_id=(object, 2),
        genres=(object, 3),
        interests=(object, 2),
        age=("float32", 1),
        refine_top_k=("int32", 1),
    )
    drawn = samples.Sampler({"rank_loop_0": rank}).features("rank_loop_0", 2, 30, 9)
    assert {alias: array.shape for alias, array in drawn.items()} == {
        "history_length": (2,),
        "history_movie": (2, 9),
        "history_genres": (2, 9, 3),
        "movie_id": (2, 30),
        "genres": (2, 30, 3),
        "interests": (2, 3),
        "age": (2,),
        "refine_top_k": (2,),
    }
    assert drawn["history_length"].tolist() == [9, 9]
    assert drawn["refine_top_k"].tolist() == [3, 3]


def test_a_sequence_whose_fields_its_name_does_not_tell_makes_every_list_as_long():
    found = signature(past_length=("int32", 1), movies=(object, 2), interests=(object, 2))
    drawn = samples.Sampler({"serving_default": found}).features("serving_default", 2, 1, 9)
    assert drawn["movies"].shape == drawn["interests"].shape == (2, 9)


def test_draws_are_of_the_schema_and_the_same_for_a_seed():
    schema = compact_schema()
    found = signature(**SEQUENCE, movie_id=(object, 1), genres=(object, 2), age=("float32", 1))

    def drawn(seed):
        sampler = samples.Sampler({"serving_default": found}, schema, seed)
        return sampler.features("serving_default", 500, 1, 4, mixed=True)

    first, again, other = drawn(1), drawn(1), drawn(2)
    for alias, array in first.items():
        np.testing.assert_array_equal(array, again[alias])
        assert (array != other[alias]).any()
    assert set("abcd") < set(first["movie_id"])
    assert set(first["history_length"]) == {0, 1, 2, 3, 4}
    assert abs(first["age"].mean() - 40) < 2


def test_examples_hold_what_their_lengths_say():
    found = signature(**SEQUENCE, movie_id=(object, 1), genres=(object, 2), age=("float32", 1))
    sampler = samples.Sampler({"serving_default": found}, compact_schema())
    for serialized in sampler.examples(20, 4):
        features = tf.train.Example.FromString(serialized).features.feature
        events = len(features["history_movie"].bytes_list.value)
        assert events <= 4
        assert len(features["history_genres"].bytes_list.value) == 3 * events
        assert len(features["age"].float_list.value) == 1
        assert len(features["genres"].bytes_list.value) == 3
