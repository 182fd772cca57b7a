"""`loopctr bench train` and `bench input` measure what they say."""

import json

import numpy as np
import pytest
import tensorflow as tf

from loopctr_tf.bench.flops import forward_work, training_work
from loopctr_tf.bench.train import bench_input, bench_train
from loopctr_tf.bench.workload import candidate_features, user_features, workload_model
from loopctr_tf.config import LoopCTRConfig
from loopctr_tf.errors import UsageError
from tests.conftest import command
from tests.factories import tiny_config
from tests.operations import watched


def test_training_on_made_up_rows():
    found = bench_train(tiny_config(loops=1), batch_size=4, history=5, seconds=0)
    per_step = found["p50_ms"] / 1e3
    assert found["examples_per_s"] == pytest.approx(4 / per_step)
    share = found["examples_per_s"] * found["flops_per_example"] / found["matmul_rate"]
    assert found["share_of_matmul_rate"] == pytest.approx(share)
    assert found["mean_lengths"] == {"clicks": 5.0}
    assert found["calls"] >= 3


def test_training_operations_are_three_times_those_of_all_depths():
    # All experts active, as value and output experts are computed densely.
    config = LoopCTRConfig(
        dim=8, heads=2, ffn_dim=6, experts=2, active_experts=2, loops=2, sink=False
    )
    model = workload_model(6, 0, config)
    features = {**user_features(model.schema, 3), **candidate_features((3,))}
    features = {name: tf.constant(value) for name, value in features.items()}
    with watched() as seen:
        model(features)
    # Three rows forward cost what one row costs forward and backward.
    assert seen.flops == training_work(model, {"clicks": 6})
    # With no loops, training is one depth.
    flat = workload_model(6, 0, LoopCTRConfig(dim=8, heads=2, ffn_dim=6, loops=0))
    assert training_work(flat, {"clicks": 6}) == 3 * forward_work(flat, {"clicks": 6}, 0).row


def test_reading_a_prepared_folder(prepared):
    found = json.loads(command("bench", "input", prepared, "--seconds", "0.2", "--json"))
    assert found["examples_per_s"] > 0
    assert found["batches"] >= 1
    assert "examples/s" in command("bench", "input", prepared, "--seconds", "0")


def test_mean_lengths_of_a_prepared_folder(prepared):
    import loopctr_tf as lc

    found = bench_train(tiny_config(loops=0), prepared, batch_size=100, seconds=0)
    lengths = [
        features["history_length"].numpy()
        for features, _ in lc.read_dataset(
            prepared / "train", batch_size=100, shuffle=True, drop_remainder=True
        )
    ]
    assert found["mean_lengths"]["history"] == pytest.approx(np.mean(lengths))


def test_mistakes(prepared):
    with pytest.raises(UsageError, match="fewer than 5000 rows"):
        bench_train(tiny_config(), prepared, batch_size=5000)
    with pytest.raises(UsageError, match="batch_size is 0"):
        bench_input(prepared, batch_size=0)
