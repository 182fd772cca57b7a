"""Any number of loops from one set of weights, and none of the Loop Block at depth 0."""

import numpy as np
import pytest
import tensorflow as tf

import loopctr_tf as lc
from loopctr_tf.errors import UsageError
from tests.factories import compact_schema, copy_weights, random_batch, tiny_config, tiny_model


@pytest.fixture(scope="module")
def batch():
    return random_batch(6, schema=compact_schema())


@pytest.fixture(scope="module")
def model():
    """Trained depths 0..3, at most 6 loops."""
    return small(loops=3)


def small(cls=lc.LoopCTR, **settings):
    """A model of few columns."""
    return tiny_model(cls, compact_schema(), **settings)


def loop_weights(model) -> list[tf.Variable]:
    return [weight for weight in model.weights if "loop_block" in weight.name]


# Parameters.


def test_the_number_of_parameters_is_the_same_for_every_number_of_loops():
    models = [small(seed=None, loops=loops) for loops in (0, 1, 5)]
    assert len({model.count_params() for model in models}) == 1
    names = [weight.name for weight in models[0].weights]
    for model in models[1:]:
        assert [weight.name for weight in model.weights] == names


def test_parameters_of_a_loop_block_counted_by_hand(model):
    d, d_ff, experts, heads = 8, 6, 3, 2
    attention = 2 * d * d + 2 * experts * d * d + d * experts + heads  # Q K, V O, router, sink
    ffn = 2 * experts * d * d_ff + d * experts
    connections = 2 * (4 * d + 10)
    norms = 2 * d
    counted = sum(int(tf.size(weight)) for weight in loop_weights(model))
    assert counted == attention + ffn + connections + norms


def test_stackctr_has_a_loop_block_for_every_loop(model):
    block = sum(int(tf.size(weight)) for weight in loop_weights(model))
    for loops in (0, 1, 3):
        stack = small(lc.StackCTR, seed=None, loops=loops)
        assert stack.count_params() == model.count_params() + (loops - 1) * block


def test_loop_block_variables_say_so_and_no_others(model):
    inside = {id(weight) for weight in model.loop_block.weights}
    assert inside
    for weight in model.weights:
        assert ("loop_block" in weight.name) == (id(weight) in inside), weight.name
    stack = small(lc.StackCTR, loops=3)
    inside = {id(weight) for block in stack.loop_blocks for weight in block.weights}
    for weight in stack.weights:
        assert ("loop_block" in weight.name) == (id(weight) in inside), weight.name
    assert len({weight.name for weight in stack.weights}) == len(stack.weights)


# Loops.


def test_every_number_of_loops_up_to_max_loops_runs(model, batch):
    features, _ = batch
    deepest = model(features, loops=6).numpy()
    assert deepest.shape == (6, 7)
    assert np.isfinite(deepest).all()
    # Each loop changes the scores.
    assert (np.abs(np.diff(deepest, axis=1)).max(axis=0) > 1e-3).all()
    for loops in range(6):
        np.testing.assert_allclose(model(features, loops=loops), deepest[:, : loops + 1], atol=1e-5)
    np.testing.assert_allclose(model(features), deepest[:, :4], atol=1e-5)


def test_score_is_the_probability_of_one_depth(model, batch):
    features, _ = batch
    logits = model(features, loops=4).numpy()
    for loops in (0, 1, 4):
        score = model.score(features, loops)
        assert score.shape == [6]
        assert score.dtype == tf.float32
        np.testing.assert_allclose(score, 1 / (1 + np.exp(-logits[:, loops])), atol=1e-6)
    np.testing.assert_array_equal(model.score(features), model.score(features, 0))


@pytest.mark.parametrize("loops", [-1, 1.0, True, tf.constant(1)])
def test_loops_that_are_no_whole_number_are_refused(model, batch, loops):
    for function in (model, model.score):
        with pytest.raises(UsageError) as error:
            function(batch[0], loops=loops)
        assert str(error.value) == f"loops is {loops!r}; give a whole number from 0 to 6"


def test_more_loops_than_max_loops_are_refused(model, batch):
    for function in (model, model.score):
        with pytest.raises(UsageError) as error:
            function(batch[0], loops=7)
        assert str(error.value) == (
            "loops is 7; this model runs at 0 to 6 loops (LoopCTRConfig.max_loops)"
        )


def test_stackctr_runs_at_no_more_loops_than_it_has_blocks(batch):
    stack = small(lc.StackCTR, loops=2)
    assert stack(batch[0], loops=2).shape == [6, 3]
    with pytest.raises(UsageError) as error:
        stack(batch[0], loops=3)
    assert str(error.value).startswith("loops is 3; this model runs at 0 to 2 loops")


def test_every_block_of_a_stackctr_acts_in_its_own_loop(batch):
    stack = small(lc.StackCTR, loops=3)
    before = stack(batch[0]).numpy()
    gain = stack.loop_blocks[1].ffn_norm.gain
    gain.assign(gain * 2)
    moved = np.abs(stack(batch[0]) - before).max(axis=0)
    assert (moved > 1e-3).tolist() == [False, False, True, True]


@pytest.mark.parametrize("execution", ["while", "unrolled"])
def test_depth_0_touches_no_weight_of_the_loop_block(batch, execution):
    model = small(loops=2, loop_execution=execution)
    features, _ = batch
    weights = loop_weights(model)
    with tf.GradientTape(persistent=True) as tape:
        only = tf.reduce_sum(model(features, loops=0))
        beside = tf.reduce_sum(model(features, loops=2)[:, 0])
    assert tape.gradient(only, weights) == [None] * len(weights)
    for gradient in tape.gradient(beside, weights):
        assert gradient is None or not np.any(gradient)
    # Deeper depths do touch it.
    with tf.GradientTape() as tape:
        deeper = tf.reduce_sum(model(features, loops=1)[:, 1])
    touched = [g is not None and np.any(g) for g in tape.gradient(deeper, weights)]
    assert all(touched)


def test_depth_0_does_not_change_with_the_loop_block(batch):
    model = small(loops=2)
    features, _ = batch
    before = model(features).numpy()
    for weight in loop_weights(model):
        weight.assign(weight * 2 + 0.5)
    after = model(features).numpy()
    np.testing.assert_array_equal(after[:, 0], before[:, 0])
    assert (np.abs(after - before)[:, 1:].max(axis=0) > 1e-3).all()


# StackCTR.


def test_stackctr_with_equal_blocks_is_loopctr(model, batch):
    stack = small(lc.StackCTR, loops=3)
    features, _ = batch
    assert np.abs(stack(features) - model(features))[:, 2:].max() > 1e-3
    for i in range(3):
        names = {weight.name for weight in stack.loop_blocks[i].weights}
        assert names == {
            w.name.replace("loop_block", f"loop_block_{i}") for w in loop_weights(model)
        }

    def rename(name):
        for i in range(3):
            name = name.replace(f"loop_block_{i}", "loop_block")
        return name

    copy_weights(model, stack, rename)
    np.testing.assert_allclose(stack(features), model(features), atol=1e-6)


# Heads.


def test_heads_are_depths(model):
    assert model.heads == ("loop_0", "loop_1", "loop_2", "loop_3")
    assert model.served == "loop_0"
    assert model.heads_to(1) == ("loop_0", "loop_1")
    assert [model.loops_of(head) for head in model.heads_to(6)] == list(range(7))
    assert model.head_weights == (0.25,) * 4
    assert small(seed=None, supervision="last", loops=1).head_weights == (0.0, 1.0)


def test_heads_in_any_order_are_columns_of_all_depths(model, batch):
    wanted = ("loop_4", "loop_0")
    found = model.scores(batch[0], False, wanted).logits
    np.testing.assert_allclose(found, model(batch[0], loops=4).numpy()[:, [4, 0]], atol=1e-5)


@pytest.mark.parametrize("head", ["", "loop_", "loop_x", "loop_-1", "auc", "loop_7"])
def test_other_heads_are_refused(model, head):
    with pytest.raises(UsageError, match=r"^(head is '.*'; give loop_0 to loop_6|loops is 7; )"):
        model.loops_of(head)


# Options.


@pytest.mark.parametrize(
    "settings",
    [
        {"streams": 3, "history_mean": True, "tower_units": []},
        {"group_projection": False, "embedding_dim": 8, "streams": 1},
        {"recency_embedding": False, "sink": False, "global_norm": False},
        {"experts": 1, "active_experts": 1, "equal_experts": False},
    ],
    ids=str,
)
def test_every_option_gives_finite_scores_that_depend_on_every_weight(settings):
    features, labels = random_batch(6)
    model = small(loops=1, **settings)
    with tf.GradientTape() as tape:
        logits = model(features)
        loss = tf.reduce_sum(logits * (labels[:, None] - 0.4) * [1.0, 2.0])
    assert logits.shape == [6, 2]
    for weight, gradient in zip(
        model.trainable_variables, tape.gradient(loss, model.trainable_variables), strict=True
    ):
        assert gradient is not None, weight.name
        gradient = tf.convert_to_tensor(gradient)
        assert np.isfinite(gradient).all(), weight.name
        # A router of one expert has nothing to choose.
        if "router" not in weight.name or model.config.experts > 1:
            assert np.any(gradient), weight.name


def test_settings_of_model_and_execution_may_be_given_one_by_one():
    settings = {"dim": 16, "loops": 1}
    model = lc.LoopCTR(compact_schema(), tiny_config(), recompute=True, **settings)
    assert model.config == tiny_config(**settings)
    assert model.execution.non_default() == {"recompute": True, "precision": "float32"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"dimm": 8}, "model setting 'dimm' does not exist; did you mean 'dim'?"),
        ({"heads": 3}, "heads is 3; give a divisor of dim (64)"),
        ({"xlaa": True}, "model setting 'xlaa' does not exist; did you mean 'xla'?"),
        (
            {"activation": "gelux"},
            "activation is 'gelux'; give a name that Keras knows, e.g. 'gelu'",
        ),
    ],
)
def test_bad_settings_are_refused(settings, expected):
    with pytest.raises(UsageError) as error:
        lc.LoopCTR(compact_schema(), **settings)
    assert str(error.value) == expected
