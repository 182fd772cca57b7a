"""Operations are counted while a model runs: every product once, active experts alone."""

import pytest
import tensorflow as tf

from loopctr_tf.bench.flops import flops_of, ranking_flops, training_flops
from loopctr_tf.bench.steps import made_up_batches
from loopctr_tf.bench.workload import candidate_features, user_features, workload_schema
from loopctr_tf.layers.common import linear
from loopctr_tf.layers.counting import count_flops
from loopctr_tf.layers.dispatch import DISPATCH
from loopctr_tf.layers.moe import ExpertDense, MoEFeedForward
from loopctr_tf.models import LoopCTR, StackCTR
from loopctr_tf.models.loopctr.settings import LoopCTRConfig
from tests.operations import watched

SHAPES = {"recent": (7, 0), "recent and long": (5, 9)}
WORKED_OUT = {
    "recent": ({0: (25_664, 6_598), 1: (37_312, 18_694), 3: (66_880, 36_614)}, 296_022),
    "recent and long": ({0: (36_736, 6_726), 1: (53_056, 19_206), 3: (92_224, 37_638)}, 366_102),
}
"""Depth -> operations of (the user's side, one candidate), and of a row in training: from formulas of
the equations' sizes, worked out apart from this code."""


def workload(shape, loops=2, **settings):
    config = LoopCTRConfig(
        dim=8, heads=2, ffn_dim=12, experts=3, num_queries=4, sink=False, tower_units=(6, 5),
        history_mean=shape == "recent", loops=loops, **settings,
    )  # fmt: skip
    return LoopCTR(workload_schema(*SHAPES[shape]), config)


def test_a_product_by_hand():
    x, kernel = tf.ones([2, 3, 5]), tf.ones([5, 7])
    assert flops_of(linear, x, kernel) == 2 * (2 * 3) * 5 * 7
    with count_flops() as counted:
        linear(x, kernel)
        linear(x[0], kernel)
    assert counted == [420, 210]
    linear(x, kernel)
    assert counted == [420, 210]  # nothing after the block


def test_unknown_sizes_are_refused():
    spec = tf.TensorSpec([None, 5])
    with pytest.raises(ValueError, match="call the model eagerly"), count_flops():
        tf.function(lambda x: linear(x, tf.ones([5, 7]))).get_concrete_function(spec)


@pytest.mark.parametrize("dispatch", DISPATCH)
def test_active_experts_alone_count(dispatch):
    layer = MoEFeedForward(6, experts=4, active_experts=2, dispatch=dispatch)
    x = tf.random.stateless_normal([3, 5], (1, 2))
    # The router's 5 x 4, and two experts' 5 x 6 and 6 x 5, for three tokens.
    assert flops_of(layer, x) == 2 * 3 * (5 * 4 + 2 * (5 * 6 + 6 * 5))
    gates = tf.constant([[0.5, 0, 0.5, 0], [0, 0, 0, 0], [0, 0.9, 0, 0.1]])
    assert flops_of(ExpertDense(4, units=7), x, gates) == 2 * 3 * 2 * 5 * 7


@pytest.mark.parametrize("shape", SHAPES)
def test_counts_equal_what_the_equations_give(shape):
    model = workload(shape, active_experts=2)
    by_depth, training = WORKED_OUT[shape]
    batch = made_up_batches(model.schema, 2)
    row = {name: value[:1] for name, value in batch[0][0].items()}
    for depth, wanted in by_depth.items():
        user, candidate = user_features(model.schema, 1), candidate_features((1, 1))
        assert ranking_flops(model, user, candidate, f"loop_{depth}") == wanted
        assert flops_of(model.score, row, loops=depth) == sum(wanted)
    assert training_flops(model, batch) == training


@pytest.mark.parametrize("loops", [1, 2, 3])
def test_stackctr_takes_as_many_operations_as_loopctr_and_more_parameters(loops):
    loop = workload("recent and long", loops)
    stack = StackCTR(loop.schema, loop.config)
    ((features, _),) = made_up_batches(loop.schema, 2)
    for calls in ((loop, stack), (loop.score, stack.score)):
        looped, stacked = (flops_of(call, features, loops=loops) for call in calls)
        assert looped == stacked > 0
    block = sum(weight.shape.num_elements() for weight in loop.loop_block.weights)
    assert stack.count_params() - loop.count_params() == (loops - 1) * block


def test_counted_operations_are_those_that_run():
    model = workload("recent and long", active_experts=3)
    user = {n: tf.constant(v) for n, v in user_features(model.schema, 1).items()}
    (state,) = model.encode_user(model.encoder(user), ("loop_1",))
    ran = []
    for count in (1, 11):
        items = {n: tf.constant(v) for n, v in candidate_features((1, count)).items()}
        items = model.encoder(items)
        with watched() as seen:
            model.rank(state, items, "loop_1")
        counted = flops_of(model.rank, state, items, "loop_1")
        # One more column of queries and keys in each head carries masks, for four globals on each of
        # nine shared and, in the loop, four own tokens.
        column = 2 * 2 * 4 * ((8 + 9 + 4) + (8 + 9))
        assert seen.flops == counted + count * column
        ran.append(seen.flops)
    assert ran[1] == 11 * ran[0]
