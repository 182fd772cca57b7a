import numpy as np
import pytest
import tensorflow as tf

from loopctr_tf.layers import ExitBlock
from tests.layers import harness
from tests.layers.harness import Case, mask_of, normal
from tests.reference import blocks


def test_the_tower_by_hand():
    # No norm, no hidden layer: the logit is the sum of the tokens' numbers weighted by the head.
    layer = ExitBlock(1, 1, 1, 1, tower_units=(), global_norm=False)
    tokens = tf.constant([[[[1.0, 2.0], [3.0, 4.0]]]])
    layer([tf.zeros([1, 1, 2]), tf.ones([1, 1], tf.bool), tokens, tf.ones([1, 1, 1])])
    layer.head.kernel.assign([[1], [10], [100], [1000], [10000]])
    layer.head.bias.assign([0.5])
    np.testing.assert_allclose(layer.score(tokens, tf.constant([[[5.0]]])), [[54321.5]])


HEADS, FFN, EXPERTS, ACTIVE, WIDTH = 2, 3, 3, 2, 4
LENGTHS = (3, 1)


def inputs(tokens=3, candidates=2, lengths=LENGTHS, extra=0):
    requests = len(lengths)
    arguments = (
        normal(requests, tokens, WIDTH),
        mask_of(lengths, tokens),
        normal(requests, candidates, 2, WIDTH),
    )
    return (*arguments, normal(requests, 1, extra)) if extra else arguments


def reference(w, arguments):
    sequence, mask, tokens, *extra = arguments
    return blocks.exit_logits(w, sequence, mask, tokens, extra[0] if extra else None, HEADS, ACTIVE)


def case(extra=0, tower_units=(5, 3), lengths=LENGTHS, **options):
    def make(**kwargs):
        return ExitBlock(HEADS, FFN, EXPERTS, ACTIVE, tower_units, **options, **kwargs)

    return Case(make, (inputs(lengths=lengths, extra=extra),), reference)


@pytest.fixture(scope="module")
def layer():
    """For tests that do not change it."""
    return harness.made(case(), jitter=0.4)


@pytest.mark.parametrize("check", harness.CHECKS)
def test_layer(check, tmp_path):
    check(case(extra=2), tmp_path)


@pytest.mark.parametrize(
    "variant",
    [
        case(),
        case(sink=False, lengths=(2, 0)),
        case(global_norm=False, tower_units=()),
        case(tower_units=(2,), lengths=(0, 3)),
    ],
    ids=["plain", "no sink", "no norm, no tower", "empty history"],
)
def test_equals_reference(variant):
    harness.equals_reference(variant)


def test_a_global_token_sees_the_sequence_and_no_other_global_before_the_tower(layer):
    ((sequence, mask, tokens),) = harness.tensors(case().inputs)
    for request, candidate, token in np.ndindex(2, 2, 2):
        with tf.GradientTape() as tape:
            tape.watch([sequence, tokens])
            keys, values, _ = layer.keys_values(sequence, mask)
            shown = layer.attention.keys_values_by_head(keys, values, sequence, mask)
            read, _ = layer.attend(tokens, shown)
            total = tf.reduce_sum(read[request, candidate, token] ** 2)
        by_sequence, by_tokens = tape.gradient(total, [sequence, tokens])
        touched = np.zeros([2, 3], bool)
        touched[request, : LENGTHS[request]] = True
        np.testing.assert_array_equal(np.any(by_sequence, axis=-1), touched)
        touched = np.zeros([2, 2, 2], bool)
        touched[request, candidate, token] = True
        np.testing.assert_array_equal(np.any(by_tokens, axis=-1), touched)


@pytest.mark.parametrize("extra", [0, 2])
def test_many_candidates_at_once_equal_one_at_a_time_in_any_order(extra):
    layer = harness.made(case(extra), jitter=0.4)
    ((sequence, mask, tokens, *rest),) = harness.tensors((inputs(candidates=3, extra=extra),))
    together, _ = layer((sequence, mask, tokens, *rest))
    assert together.shape == [2, 3]
    for c in range(3):
        alone, _ = layer((sequence, mask, tokens[:, c : c + 1], *rest))
        np.testing.assert_allclose(alone[:, 0], together[:, c], rtol=1e-10, atol=1e-12)
    turned, _ = layer((sequence, mask, tf.gather(tokens, [2, 0, 1], axis=1), *rest))
    np.testing.assert_allclose(
        turned, tf.gather(together, [2, 0, 1], axis=1), rtol=1e-10, atol=1e-12
    )


def test_gradients_of_biases_count_every_row_in_bfloat16():
    layer = harness.made(case(tower_units=(1,)), "mixed_bfloat16")
    layer.head.kernel.assign([[1.0]])
    layer.tower[0].bias.assign([30.0])  # where GELU has a slope of one
    with tf.GradientTape() as tape:
        logits = layer.finish(tf.zeros([3000, 1, 1], tf.bfloat16))
        total = tf.reduce_sum(logits)
    assert logits.dtype == tf.float32
    biases = [layer.tower[0].bias, layer.head.bias]
    np.testing.assert_allclose(tape.gradient(total, biases), [[3000.0]] * 2, rtol=0.01)


def test_no_candidate_is_legal():
    layer = harness.made(case(2), "float32")
    logits, _ = layer(harness.tensors(inputs(candidates=0, extra=2), "float32"))
    assert logits.shape == [2, 0]


@pytest.mark.parametrize("sink", [True, False])
def test_padding_moves_nothing(sink):
    layer = harness.made(case(sink=sink), "float32", jitter=0.4)
    ((sequence, mask, tokens),) = harness.tensors(case().inputs, "float32")
    expected, counted = layer((sequence, mask, tokens))
    for filler in (0.0, 1e4, 1e30):
        padded = tf.pad(
            tf.where(mask[..., None], sequence, filler),
            [[0, 0], [0, 2], [0, 0]],
            constant_values=filler,
        )
        logits, statistics = layer((padded, tf.pad(mask, [[0, 0], [0, 2]]), tokens))
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(statistics, counted, rtol=1e-5)


@pytest.mark.parametrize("sink", [True, False])
def test_an_empty_history_is_as_no_history_and_has_finite_gradients(sink):
    layer = harness.made(case(sink=sink), "float32", jitter=0.4)
    for tokens in (0, 3):
        arguments = (harness.tensors(inputs(tokens=tokens, lengths=(0, 0)), "float32"),)
        logits, _ = layer(*arguments)
        expected, _ = layer(harness.tensors(inputs(tokens=0, lengths=(0, 0)), "float32"))
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
        by_inputs, by_weights = harness.gradients(
            layer, arguments, lambda parts: tf.add_n([tf.reduce_sum(part**2) for part in parts])
        )
        for part in (*by_inputs, *by_weights):
            assert np.isfinite(part).all()


def test_dropout_follows_both_sub_layers_and_every_hidden_layer():
    layer = harness.made(case(tower_units=(5, 3)))
    for training in (True, False, None):
        calls = []
        layer.drop = lambda x, training, calls=calls: (calls.append((*x.shape, training)), x)[1]
        layer(harness.tensors(inputs()), training=training)
        assert calls == [(*shape, training) for shape in ((8, WIDTH), (8, WIDTH), (4, 5), (4, 3))]


@pytest.mark.parametrize("options", [{}, {"tower_units": (), "global_norm": False}])
def test_the_tower_s_inputs_may_be_summed_part_by_part(options):
    layer = harness.made(case(2, **options), jitter=0.4)
    _, _, tokens, extra = harness.tensors(inputs(candidates=3, extra=2))
    user, candidates = tokens[:, :1, :1], tokens[:, :, 1:]
    parts = layer.tower_input(user) + layer.extra_input(extra)
    parts += layer.tower_input(candidates, first=1)
    whole = tf.concat([tf.repeat(user, 3, axis=1), candidates], axis=2)
    assert parts.shape == [2, 3, layer.tower_width]
    np.testing.assert_allclose(
        layer.finish(parts), layer.score(whole, extra), rtol=1e-10, atol=1e-12
    )


def test_every_option_is_kept():
    harness.keeps_options(
        ExitBlock,
        heads=1,
        ffn_dim=3,
        experts=3,
        active_experts=1,
        activation="relu",
        tower_units=[3],
        global_norm=False,
        dropout=0.1,
        sink=False,
        equal_experts=False,
        zero_outputs=True,
        dispatch="dense",
    )
