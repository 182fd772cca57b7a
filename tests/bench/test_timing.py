"""Turns, quantiles and speeds; the machine's rate before and after."""

import numpy as np
import pytest

from loopctr_tf.bench import machine
from loopctr_tf.bench.timing import in_turns, speeds


def test_calls_take_turns():
    seen = []
    times = in_turns([lambda: seen.append("a"), lambda: seen.append("b")], seconds=0, warm=1)
    assert seen == ["a", "b"] * 6  # one warm round, five timed
    assert [len(taken) for taken in times] == [5, 5]


def test_speeds_are_those_of_the_median():
    rates = {"matmul_rate": 1000.0, "matmul_rate_before": 900.0}
    found = speeds([0.3, 0.1, 0.2], examples=8, flops_per_example=5.0, rates=rates)
    # 8 in 0.2 s; 40 examples a second of 5 operations are 200 of 1000.
    assert found["examples_per_s"] == pytest.approx(40)
    assert found["share_of_matmul_rate"] == pytest.approx(0.2)
    assert (found["p50_ms"], found["calls"]) == (pytest.approx(200), 3)
    assert found["matmul_rate_before"] == 900


def test_the_larger_rate_counts(monkeypatch):
    rates = iter([3.0, 2.0])
    asked = []

    def rate(dtype="float32"):
        asked.append(dtype)
        return next(rates) if dtype == "float32" else 7.0

    monkeypatch.setattr(machine, "matmul_rate", rate)
    result, found = machine.beside_matmul_rate(lambda: asked.append("measured") or 5, "bfloat16")
    assert asked == ["float32", "measured", "float32", "bfloat16"]
    assert (result, found) == (
        5,
        {
            "matmul_rate": 3.0,
            "matmul_rate_before": 3.0,
            "matmul_rate_after": 2.0,
            "matmul_rate_bfloat16": 7.0,
        },
    )
    rates = iter([2.0, 3.0])
    _, found = machine.beside_matmul_rate(lambda: None)
    assert found["matmul_rate"] == 3.0
    assert "matmul_rate_float32" not in found


def test_a_peak_of_memory_is_seen_and_forgotten():
    big = np.ones(40 * 2**20, np.uint8)
    high = machine.peak_memory_bytes()
    del big
    machine.forget_peak_memory()
    low = machine.peak_memory_bytes()
    if low == high:
        pytest.skip("this system does not forget")
    assert high - low >= 30 * 2**20
