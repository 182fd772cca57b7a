"""`loopctr bench train` measures what it says."""

import json

import numpy as np
import pytest

import loopctr_tf as lc
from loopctr_tf.bench import kinds
from loopctr_tf.bench.steps import (
    TrainingSteps,
    lengths,
    made_up_batches,
    prepared_batches,
)
from loopctr_tf.bench.texts import train_text
from loopctr_tf.bench.train import bench_train
from loopctr_tf.bench.workload import workload_schema
from loopctr_tf.errors import UsageError
from loopctr_tf.models import LoopCTR
from loopctr_tf.models.loopctr.settings import LoopCTRConfig
from loopctr_tf.training.settings import RunConfig, TrainingConfig
from tests.factories import tiny_config
from tests.session import command

LEAST = {"dim": 4, "heads": 1, "ffn_dim": 4, "experts": 2, "loops": 1, "streams": 1}
SMALL = [f"--set={name}={value}" for name, value in LEAST.items()]
SMALL += ["--set=active_experts=1", "--set=tower_units=[4]", "--set=loop_execution=unrolled"]
SIZES = ["--history=3", "--batch-size=4", "--seconds=0"]


@pytest.fixture(scope="module")
def found():
    settings = ["--set", "table_optimizer=lazy_adamw", *SMALL]
    return json.loads(command("bench", "train", *SIZES, *settings, "--json"))


def test_training_on_made_up_rows(found):
    assert found["examples_per_s"] == pytest.approx(4e3 / found["p50_ms"])
    share = found["examples_per_s"] * found["flops_per_example"] / found["matmul_rate"]
    assert found["share_of_matmul_rate"] == pytest.approx(share)
    rates = [found["matmul_rate_before"], found["matmul_rate_after"]]
    assert found["matmul_rate"] == max(rates) > 0
    assert found["mean_lengths"] == found["padded_lengths"] == {"clicks": 3.0}
    assert found["calls"] >= 5
    assert 0 < found["steps_memory_bytes"] <= found["peak_memory_bytes"]


def test_settings_of_model_and_training_are_reported(found):
    settings = RunConfig(
        LoopCTRConfig.from_dict(found["settings"]), TrainingConfig.from_dict(found["training"])
    )
    assert (settings.model.dim, settings.model.loops) == (4, 1)
    assert settings.training.table_optimizer == "lazy_adamw"
    assert settings.training.batch_size == 4


def test_where_the_time_goes(found):
    where = found["where_time_goes"]
    shares = {row["kind"]: row["share"] for row in where["kinds"]}
    assert sum(shares.values()) == pytest.approx(1)
    named = {kinds.PRODUCTS, kinds.ATTENTION, kinds.OPTIMIZER, kinds.EMBEDDING, kinds.MOVING}
    assert named <= set(shares)
    # What stands in no list of operations is next to nothing.
    assert shares.get(kinds.REST, 0) < 0.05
    assert 0 < len(where["operations"]) <= 15


def test_people_read_lines_and_a_table(found):
    text = train_text(found)
    speed, work, memory, empty, where, *_ = text.splitlines()
    assert " examples/s; a step of 4 rows takes " in speed
    assert " MFLOP an example (active experts, with padding): " in work
    assert " GFLOP/s of float32 products (before " in work
    assert memory.startswith("peak memory ")
    assert empty == ""
    assert where.startswith("Where a step's time goes: ")
    assert f"| {kinds.PRODUCTS} " in text
    slow = train_text({**found, "matmul_rate_bfloat16": 3e9})
    assert "; bfloat16 3 GFLOP/s)" in slow
    unseen = {**found["where_time_goes"], "kinds": [], "note": "nothing"}
    assert train_text({**found, "where_time_goes": unseen}).endswith("time goes: nothing")


def test_lengths_of_a_prepared_folder(prepared):
    schema, batches = lc.Schema.load(prepared), prepared_batches(prepared, 100)
    again = lc.read_dataset(prepared / "train", batch_size=100, shuffle=True, drop_remainder=True)
    found = lengths(schema, batches)
    events = np.concatenate([features["history_length"].numpy() for features, _ in again])
    assert found["mean_lengths"]["history"] == pytest.approx(events.mean())
    padded = [features["history_movie"].shape[1] for features, _ in again]
    assert found["padded_lengths"]["history"] == pytest.approx(np.mean(padded))


def test_steps_take_the_batches_in_turn_and_learn():
    schema = workload_schema(3)
    first, second = made_up_batches(schema, 8, 2)
    assert first[0]["item_id"].numpy().tolist() != second[0]["item_id"].numpy().tolist()
    config = tiny_config(loops=0, streams=1, experts=1, active_experts=1)
    model = LoopCTR(workload_schema(3), config)
    step = TrainingSteps(model, TrainingConfig(learning_rate=0.01), [first, second])
    losses = [step() for _ in range(40)]
    assert np.mean(losses[-4:]) < 0.7 * np.mean(losses[:4])
    assert model.optimizer.iterations.numpy() == 40


def test_mistakes(prepared):
    with pytest.raises(UsageError, match="fewer than 5000 rows"):
        bench_train(RunConfig(tiny_config()), prepared, batch_size=5000)
    with pytest.raises(UsageError, match=r"batch sizes are \[0\]; give 1 or more"):
        bench_train(batch_size=0)
    with pytest.raises(UsageError, match="strategy is 'mirrored'; benchmarks run on one device"):
        command("bench", "train", *SIZES, *SMALL, "--set", "strategy=mirrored")
    with pytest.raises(UsageError, match="'batch_size=3' has no effect here; give --batch-size"):
        command("bench", "train", "--set", "batch_size=3")
    with pytest.raises(UsageError, match="not a setting; did you mean 'dim'"):
        command("bench", "train", "--set", "dimm=3")
