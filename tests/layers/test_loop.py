import numpy as np
import pytest
import tensorflow as tf

from loopctr_tf.layers import LoopBlock
from tests.layers import harness
from tests.layers.harness import Case, mask_of, normal
from tests.reference import blocks

HEADS, FFN, EXPERTS, ACTIVE, WIDTH = 2, 3, 3, 2, 4
LENGTHS = (3, 1)


def inputs(streams=2, tokens=3, candidates=2, global_tokens=2, lengths=LENGTHS):
    requests = len(lengths)
    return (
        tuple(normal(requests, tokens, WIDTH, seed=s) for s in range(streams)),
        mask_of(lengths, tokens),
        tuple(normal(requests, candidates, global_tokens, WIDTH, seed=s) for s in range(streams)),
    )


def reference(w, arguments):
    return blocks.loop(w, *arguments, HEADS, ACTIVE)


def case(streams=2, sink=True, experts=EXPERTS, active=ACTIVE, lengths=LENGTHS):
    def make(**kwargs):
        return LoopBlock(HEADS, FFN, experts, active, streams, sink=sink, **kwargs)

    return Case(make, (inputs(streams, lengths=lengths),), reference)


@pytest.fixture(scope="module")
def layer():
    """For tests that do not change it."""
    return harness.made(case(), jitter=0.4)


@pytest.mark.parametrize("check", harness.CHECKS)
def test_layer(check, tmp_path):
    check(case(), tmp_path)


@pytest.mark.parametrize(
    ("streams", "sink", "lengths"), [(1, True, (3, 1)), (2, False, (2, 0)), (3, True, (0, 3))]
)
def test_equals_reference(streams, sink, lengths):
    harness.equals_reference(case(streams, sink, lengths=lengths))


def test_one_plain_stream_lives_in_a_keras_model(tmp_path):
    harness.lives_in_a_keras_model(case(1), tmp_path)


# The prefix.


def test_sequence_tokens_do_not_depend_on_any_global_token(layer):
    ((sequence, mask, tokens),) = harness.tensors(case().inputs)
    with tf.GradientTape() as tape:
        tape.watch(tokens)
        (encoded, _), _ = layer((sequence, mask, tokens))
        total = tf.add_n([tf.reduce_sum(stream**2) for stream in encoded])
    for slope in tape.gradient(total, tokens, unconnected_gradients="zero"):
        np.testing.assert_array_equal(slope, np.zeros_like(slope))
    other = harness.tensors(inputs(candidates=3, global_tokens=1)[2])
    (same, _), _ = layer((sequence, mask, other))
    for stream, again in zip(encoded, same, strict=True):
        np.testing.assert_array_equal(stream, again)


def test_a_global_token_sees_its_sequence_and_its_candidate_s_tokens_and_nothing_else(layer):
    ((sequence, mask, tokens),) = harness.tensors(case().inputs)
    for request, candidate, token in np.ndindex(2, 2, 2):
        with tf.GradientTape() as tape:
            tape.watch([sequence, tokens])
            (_, encoded), _ = layer((sequence, mask, tokens))
            total = tf.reduce_sum(encoded[1][request, candidate, token] ** 2)
        by_sequence, by_tokens = tape.gradient(total, [sequence, tokens])
        for slope in by_sequence:
            expected = np.zeros([2, 3], bool)
            expected[request, : LENGTHS[request]] = True
            np.testing.assert_array_equal(np.any(slope, axis=-1), expected)
        for slope in by_tokens:
            expected = np.zeros([2, 2, 2], bool)
            expected[request, candidate] = True
            np.testing.assert_array_equal(np.any(slope, axis=-1), expected)


def test_many_candidates_at_once_equal_one_at_a_time(layer):
    ((sequence, mask, tokens),) = harness.tensors((inputs(candidates=3),))
    (_, together), _ = layer((sequence, mask, tokens))
    for c in range(3):
        (_, alone), _ = layer((sequence, mask, tuple(s[:, c : c + 1] for s in tokens)))
        for stream, other in zip(alone, together, strict=True):
            np.testing.assert_allclose(stream[:, 0], other[:, c], rtol=1e-10, atol=1e-12)


def test_no_candidate_is_legal(layer):
    ((sequence, mask, tokens),) = harness.tensors((inputs(candidates=0),))
    (_, encoded), statistics = layer((sequence, mask, tokens))
    assert all(stream.shape == [2, 0, 2, WIDTH] for stream in encoded)
    np.testing.assert_array_equal(np.sum(statistics[:, 0], axis=-1), [ACTIVE * sum(LENGTHS)] * 2)


# Padding.


@pytest.mark.parametrize("sink", [True, False])
def test_padding_moves_nothing(sink):
    layer = harness.made(case(sink=sink), "float32", jitter=0.4)
    ((sequence, mask, tokens),) = harness.tensors(case().inputs, "float32")
    (encoded, read), counted = layer((sequence, mask, tokens))
    for filler in (0.0, 1e4, 1e30):
        padded = tuple(
            tf.pad(
                tf.where(mask[..., None], s, filler),
                [[0, 0], [0, 2], [0, 0]],
                constant_values=filler,
            )
            for s in sequence
        )
        longer = tf.pad(mask, [[0, 0], [0, 2]])
        (padded_encoded, padded_read), statistics = layer((padded, longer, tokens))
        real = mask.numpy()
        for stream, other in zip(padded_encoded, encoded, strict=True):
            np.testing.assert_allclose(
                stream.numpy()[:, :3][real], other.numpy()[real], rtol=1e-5, atol=1e-6
            )
        for stream, other in zip(padded_read, read, strict=True):
            np.testing.assert_allclose(stream, other, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(statistics, counted, rtol=1e-5)


@pytest.mark.parametrize("sink", [True, False])
def test_an_empty_history_is_as_no_history_and_has_finite_gradients(sink):
    layer = harness.made(case(sink=sink), "float32", jitter=0.4)
    for tokens in (0, 3):
        arguments = (harness.tensors(inputs(tokens=tokens, lengths=(0, 0)), "float32"),)
        (_, read), _ = layer(*arguments)
        none = harness.tensors(inputs(tokens=0, lengths=(0, 0)), "float32")
        (_, expected), _ = layer(none)
        for stream, other in zip(read, expected, strict=True):
            np.testing.assert_allclose(stream, other, rtol=1e-5, atol=1e-6)
        by_inputs, by_weights = harness.gradients(
            layer, arguments, lambda parts: tf.add_n([tf.reduce_sum(part**2) for part in parts])
        )
        for part in (*by_inputs, *by_weights):
            assert np.isfinite(part).all()


# The block as a whole.


def test_at_first_it_is_the_dense_pre_norm_block_however_often_it_runs():
    layer, plain = harness.made(case()), harness.made(case(1, experts=1, active=1))
    harness.copy_weights(layer, plain)
    sequence, mask, tokens = harness.tensors(inputs(1))
    state, reference_state = (sequence * 2, tokens * 2), (sequence, tokens)
    for _ in range(3):
        state, _ = layer((state[0], mask, state[1]))
        reference_state, _ = plain((reference_state[0], mask, reference_state[1]))
    for streams, (other,) in zip(state, reference_state, strict=True):
        for stream in streams:
            np.testing.assert_allclose(stream, other, rtol=1e-10, atol=1e-12)


def test_dropout_works_in_training_alone():
    def make(**kwargs):
        return LoopBlock(HEADS, FFN, EXPERTS, ACTIVE, dropout=0.5, **kwargs)

    layer = harness.made(Case(make, (inputs(),)), "float32")
    arguments = harness.tensors(inputs(), "float32")
    tf.random.set_seed(1)
    calm = layer(arguments, training=False)
    tf.nest.map_structure(np.testing.assert_array_equal, layer(arguments), calm)
    shaken = layer(arguments, training=True)
    assert not np.allclose(shaken[0][0][0], calm[0][0][0])
    assert not np.allclose(shaken[0][1][0], calm[0][1][0])


def test_every_option_is_kept():
    harness.keeps_options(
        LoopBlock,
        heads=1,
        ffn_dim=3,
        experts=3,
        active_experts=1,
        streams=3,
        activation="relu",
        dropout=0.1,
        sink=False,
        equal_experts=False,
        zero_outputs=True,
        dispatch="dense",
    )
