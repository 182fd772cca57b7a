"""Counted operations equal those that run, and the user's do not grow with the candidates."""

import pytest
import tensorflow as tf

from loopctr_tf.bench.flops import forward_work
from loopctr_tf.bench.workload import candidate_features, user_features, workload_model
from loopctr_tf.models.loopctr import ranking
from loopctr_tf.models.loopctr.settings import LoopCTRConfig
from tests.operations import watched

SHAPES = {"recent": (7, 0), "recent and long": (5, 9)}


@pytest.fixture(scope="module", params=SHAPES, ids=list(SHAPES))
def model(request):
    # All experts active: value and output experts are computed densely.
    config = LoopCTRConfig(
        dim=8, heads=2, ffn_dim=12, experts=3, active_experts=3, num_queries=4, sink=False,
        tower_units=(6, 5), history_mean=request.param == "recent",
    )  # fmt: skip
    return workload_model(*SHAPES[request.param], config)


def tensors(features):
    return {name: tf.constant(value) for name, value in features.items()}


def user_and_rank(model, count, loops):
    """Operations of the user's side and of the ranking of ``count`` candidates."""
    user, items = tensors(user_features(model.schema, 1)), candidate_features((1, count))
    with watched() as of_user:
        cache = ranking.encode_user(model, user, loops)
    with watched() as of_candidates:
        ranking.rank(model, cache, tensors(items), loops)
    return of_user.flops, of_candidates.flops


def bias_column(config, queries, tokens) -> int:
    """Operations that carry masks and sinks: one more column of queries and keys in each head."""
    return 2 * config.heads * queries * (config.dim + tokens)


def bias_columns(model, loops) -> tuple[int, int]:
    """Those of the user's side and of a candidate: by hand, two user and two candidate tokens."""
    (recent, *long), config = [s.max_length for s in model.schema.sequences], model.config
    tokens, user = recent, bias_column(config, recent, recent)
    for events in long:
        queries = config.num_queries
        tokens += queries
        user += bias_column(config, queries, events) + bias_column(config, queries, queries)
    user += loops * bias_column(config, tokens, tokens)
    if not loops:
        return user + bias_column(config, 2, tokens), bias_column(config, 2, tokens)
    exit_block = bias_column(config, 4, tokens)
    return user, loops * bias_column(config, 4, tokens + 4) + exit_block


@pytest.mark.parametrize("loops", [0, 1, 3])
def test_counted_operations_are_those_that_run(model, loops):
    lengths = {sequence.name: sequence.max_length for sequence in model.schema.sequences}
    work = forward_work(model, lengths, loops)
    ran = user_and_rank(model, 11, loops)
    user, candidate = bias_columns(model, loops)
    # Routers count their choice for statistics too, in eager mode alone; products are the same.
    assert ran == (work.user + user, 11 * (work.candidate + candidate))
    assert work.row == work.user + work.candidate


@pytest.mark.parametrize("loops", [0, 2])
def test_the_users_work_does_not_grow_with_the_candidates(model, loops):
    user, one = user_and_rank(model, 1, loops)
    for count in (100, 1000):
        assert user_and_rank(model, count, loops) == (user, count * one)


def test_histories_count_up_to_their_limit(model):
    limits = {sequence.name: sequence.max_length for sequence in model.schema.sequences}
    more = {name: length + 5 for name, length in limits.items()}
    assert forward_work(model, more, 1) == forward_work(model, limits, 1)


def test_inactive_experts_do_not_count():
    def row(active):
        config = LoopCTRConfig(dim=8, heads=2, ffn_dim=12, experts=4, active_experts=active)
        return forward_work(workload_model(7, 0, config), {"clicks": 7}, 0).row

    # By hand, for each of 7 events and 4 globals: V, O of 8 x 8 in Entry; a feed-forward of 8 x 12
    # twice in Entry; in the Exit V of the events, O and feed-forward of the globals.
    tokens, matrix, network = 11, 2 * 8 * 8, 2 * 2 * 8 * 12
    more = tokens * (2 * matrix + network) + 7 * matrix + 4 * (matrix + network)
    assert row(3) - row(2) == more
