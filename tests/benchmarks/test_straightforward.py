"""The plain model is the library's model, and the script that races them says what it measured."""

import json

import numpy as np
import pytest
import straightforward
from click.testing import CliRunner
from plain_model import PlainLoopCTR, masks

from loopctr_tf.bench.steps import made_up_batches
from loopctr_tf.bench.workload import workload_schema
from loopctr_tf.models import LoopCTR
from loopctr_tf.training.settings import TrainingConfig
from loopctr_tf.training.train import compile_model
from tests.factories import rewriting_off, tiny_config

SMALL = [
    *("--history=3", "--dim=4", "--heads=1", "--ffn-dim=4", "--loops=0", "--experts=2"),
    *("--active-experts=1", "--streams=1", "--batch-size=4", "--seconds=0"),
]


def pair(**settings):
    """The library's model, compiled, and the plain one."""
    config = tiny_config(
        **{"dim": 4, "ffn_dim": 4, "num_queries": 1, "global_norm": True, **settings}
    )
    ours = LoopCTR(workload_schema(3), config)
    compile_model(ours, TrainingConfig())
    return ours, PlainLoopCTR(ours)


@pytest.fixture(scope="module")
def looped():
    return pair()


@pytest.mark.parametrize("loops", ["two", "none"])
def test_both_models_are_the_same(loops, looped):
    flat = {"loops": 0, "streams": 1, "active_experts": 1, "balance_weight": 5.0}
    ours, plain = looped if loops == "two" else pair(**flat)
    start = ours.get_weights()
    found = straightforward.differences(ours, plain)
    assert found["logits"] < 2e-5
    assert found["loss"] < 2e-5
    for weight, before in zip(ours.weights, start, strict=True):
        path = weight.name.split("/", 1)[1].removesuffix(":0")
        np.testing.assert_array_equal(weight.numpy(), before)
        np.testing.assert_array_equal(plain.w[path].numpy(), before)


@pytest.mark.parametrize("change", [{"active_experts": 1}, {"balance_weight": 1.0}])
def test_another_model_is_noticed(change, looped, monkeypatch):
    ours, plain = looped
    monkeypatch.setattr(plain, "config", plain.config.model_copy(update=change))
    found = straightforward.differences(ours, plain)
    assert max(found.values()) > 10 * straightforward.TOLERANCE


def test_masks_of_two_events_and_two_globals():
    real = np.array([[True, False, True, True]])
    entry, loop, exit_block = (mask.numpy()[0].astype(int).tolist() for mask in masks(real, 2))
    # Columns: the sink, an event, padding, two globals.
    assert entry == [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]]
    assert loop == [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 0, 1, 1], [1, 1, 0, 1, 1]]
    assert exit_block == [[1, 1, 0, 0, 0]]


def test_steps_learn_compiled_or_not():
    ours, _ = pair(loops=0, streams=1, experts=2, active_experts=1)
    (batch,) = made_up_batches(ours.schema, 8)
    losses = []
    for xla in (False, True):
        step = straightforward.straightforward_step(PlainLoopCTR(ours), batch, xla)
        with rewriting_off():
            losses.append([step() for _ in range(8)])
    assert losses[0][-1] < 0.7 * losses[0][0]
    # As long as no token has been moved to another expert by a rounding.
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)


def run(*arguments):
    return CliRunner().invoke(straightforward.main, [*SMALL, *arguments])


def test_what_is_printed():
    with rewriting_off():
        result = run("--json", "--dispatch", "dense", "--table-optimizer", "rowwise_adagrad")
    found = json.loads(result.stdout)
    assert found["ratio"] > 0
    assert max(found["difference"].values()) < 1e-4
    assert (found["dispatch"], found["table_optimizer"]) == ("dense", "rowwise_adagrad")
    for name in ("library", "straightforward"):
        one = found[name]
        assert one["calls"] >= 5
        share = one["examples_per_s"] * one["flops_per_example"] / found["library"]["matmul_rate"]
        assert one["share_of_matmul_rate"] == pytest.approx(share)
    text = straightforward.text({**found, "ratio": 3.14159})
    assert "The library's steps are 3.14 times as fast" in text
    assert text.startswith("| step ")


def test_no_ratio_where_the_models_differ(monkeypatch):
    wrong = {"logits": 0.1, "loss": 0.0}
    monkeypatch.setattr(straightforward, "differences", lambda *_: wrong)
    result = run()
    assert result.exit_code == 1
    assert "no ratio where they are not the same model" in result.output
    assert "times as fast" not in result.output


def test_mistakes():
    result = run("--dispatch", "sideways")
    assert result.exit_code == 2
    assert "expert_dispatch is 'sideways'" in result.output
