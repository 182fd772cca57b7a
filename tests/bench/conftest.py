"""Measures the machine's rate for less time than a benchmark would."""

import functools

import pytest

from loopctr_tf.bench import machine


@pytest.fixture(scope="package", autouse=True)
def quick_rates():
    quick = functools.partial(machine.matmul_rate, size=128, seconds=0.02)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "matmul_rate", quick)
        yield
