"""Where the time goes: times without what is nested, shares that add up, words where nothing ran."""

import pytest
import tensorflow as tf

from loopctr_tf.bench import kinds, profile
from loopctr_tf.bench.trace import Event, Trace


def event(start, end, operation="Mul", node="x"):
    return Event(start, end, node, operation)


def test_nested_operations_count_once():
    # 100 long; in it one of 30 with one of 10 inside, and one of 20; then one of its own.
    line = [event(0, 100), event(10, 40), event(15, 25), event(50, 70), event(100, 130)]
    own = {(e.start, e.end): time for e, time in profile.own_times(line)}
    assert own == {(0, 100): 50, (10, 40): 20, (15, 25): 10, (50, 70): 20, (100, 130): 30}


def test_sums_over_threads_and_calls(monkeypatch):
    ms = 10**9
    lines = [
        [event(0, 40 * ms, "MatMul"), event(40 * ms, 50 * ms, "Mul")],
        [event(20 * ms, 50 * ms, "_FusedMatMul"), event(60 * ms, 80 * ms, "Mul", "AdamW/mul")],
    ]
    monkeypatch.setattr(profile, "record", lambda call, calls: Trace(lines, 0.1, False))
    found = profile.where_time_goes(None, 2, {"AdamW": kinds.OPTIMIZER})
    # Two calls in 100 ms: 40 + 10 + 30 + 20 ms on two threads; the clock shows 0 to 50 and 60 to 80.
    assert (found["calls"], found["call_ms"]) == (2, pytest.approx(50))
    assert found["operation_ms"] == pytest.approx(50)
    assert found["at_once"] == pytest.approx(100 / 70)
    assert found["idle_share"] == pytest.approx(0.3)
    assert found["kinds"] == [
        {"kind": kinds.PRODUCTS, "share": 0.7, "ms": 35.0, "count": 1.0},
        {"kind": kinds.OPTIMIZER, "share": 0.2, "ms": 10.0, "count": 0.5},
        {"kind": kinds.ELEMENTWISE, "share": 0.1, "ms": 5.0, "count": 0.5},
    ]
    assert [(row["operation"], row["kind"], row["ms"]) for row in found["operations"]] == [
        ("MatMul", kinds.PRODUCTS, 20.0),
        ("_FusedMatMul", kinds.PRODUCTS, 15.0),
        ("Mul", kinds.OPTIMIZER, 10.0),
        ("Mul", kinds.ELEMENTWISE, 5.0),
    ]
    assert "sums over threads" in found["note"]


def test_the_first_fifteen_types_alone(monkeypatch):
    line = [event(100 * n, 100 * n + 1 + n, f"Type{n}") for n in range(20)]
    monkeypatch.setattr(profile, "record", lambda call, calls: Trace([line], 1.0, False))
    found = profile.where_time_goes(None, 1)["operations"]
    assert [row["operation"] for row in found] == [f"Type{n}" for n in range(19, 4, -1)]


def test_nothing_seen_is_said():
    found = profile.where_time_goes(lambda: None, 3)
    assert found["note"] == "the profiler recorded no operations"
    assert (found["kinds"], found["operations"], found["idle_share"]) == ([], [], 1.0)


def test_a_graph_that_is_known():
    @tf.function
    def graph(x):
        with tf.name_scope("Gelu"):
            y = tf.sin((x @ x) @ (x @ x))
        return tf.reduce_sum(tf.math.erf(y))

    x = tf.random.stateless_normal((300, 300), (1, 2))
    graph(x)
    found = profile.where_time_goes(lambda: graph(x).numpy(), 4)
    counts = {row["kind"]: row["count"] for row in found["kinds"]}
    # x @ x is one product: TensorFlow computes what stands there twice once.
    assert counts == {kinds.PRODUCTS: 2, kinds.ACTIVATION: 2, kinds.ELEMENTWISE: 1}
    assert sum(row["share"] for row in found["kinds"]) == pytest.approx(1)
    assert sum(row["ms"] for row in found["kinds"]) == pytest.approx(found["operation_ms"])


@pytest.mark.parametrize(
    ("seconds", "calls"), [(2.0, 3), (0.5, 3), (0.1, 5), (0.03, 17), (1e-4, 50), (0.0, 50)]
)
def test_half_a_second_of_calls(seconds, calls):
    assert profile.calls_for(seconds) == calls
