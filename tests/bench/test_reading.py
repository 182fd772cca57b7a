"""`loopctr bench input` measures what it says."""

import json

import pytest

from loopctr_tf.bench.reading import bench_input
from loopctr_tf.errors import UsageError
from tests.session import command


def test_reading_a_prepared_folder(prepared):
    found = json.loads(command("bench", "input", prepared, "--seconds", "0.2", "--json"))
    assert found["examples_per_s"] > 0
    assert found["batches"] >= 1
    assert "examples/s in batches of 512" in command("bench", "input", prepared, "--seconds", "0")


def test_mistakes(prepared):
    with pytest.raises(UsageError, match=r"batch sizes are \[0\]; give 1 or more"):
        bench_input(prepared, batch_size=0)
