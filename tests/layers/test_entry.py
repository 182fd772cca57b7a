import numpy as np
import pytest
import tensorflow as tf

from loopctr_tf.layers import EntryBlock
from tests.layers import harness
from tests.layers.harness import Case, mask_of, normal
from tests.reference import blocks

HEADS, FFN, EXPERTS, ACTIVE, WIDTH = 2, 3, 3, 2, 4
MASKS = [mask_of([3, 1], 3), mask_of([0, 2], 2)]


def reference(w, arguments):
    return blocks.entry(w, *arguments, HEADS, ACTIVE)


def case(streams=2, sink=True, experts=EXPERTS, active=ACTIVE):
    sequences = [
        tuple(normal(2, tokens, WIDTH, seed=10 * tokens + s) for s in range(streams))
        for tokens in (3, 2)
    ]
    tokens = tuple(normal(2, 2, 2, WIDTH, seed=s) for s in range(streams))

    def make(**kwargs):
        return EntryBlock(HEADS, FFN, experts, active, streams, sink=sink, **kwargs)

    return Case(make, ((sequences, MASKS, tokens),), reference)


@pytest.fixture(scope="module")
def layer():
    """For tests that do not change it."""
    return harness.made(case(), jitter=0.4)


@pytest.mark.parametrize("check", harness.CHECKS)
def test_layer(check, tmp_path):
    check(case(), tmp_path)


@pytest.mark.parametrize(("streams", "sink"), [(1, True), (2, False), (3, True)])
def test_equals_reference(streams, sink):
    harness.equals_reference(case(streams, sink))


def test_groups_do_not_see_each_other(layer):
    ((sequences, masks, tokens),) = harness.tensors(case().inputs)
    groups = [*sequences, tokens]
    for group in range(3):
        with tf.GradientTape() as tape:
            tape.watch(groups)
            (encoded, encoded_tokens), _ = layer((sequences, masks, tokens))
            total = tf.add_n([tf.reduce_sum(s**2) for s in [*encoded, encoded_tokens][group]])
        slopes = tape.gradient(total, groups, unconnected_gradients="zero")
        for other, by_streams in enumerate(slopes):
            assert all(np.any(slope) == (other == group) for slope in by_streams)


def test_one_set_of_weights_serves_all_groups(layer):
    ((sequences, masks, tokens),) = harness.tensors(case().inputs)
    (encoded, _), _ = layer(([sequences[0]] * 2, [masks[0]] * 2, tokens))
    for first, second in zip(*encoded, strict=True):
        np.testing.assert_array_equal(first, second)
    d, f, e = WIDTH, FFN, EXPERTS
    attention = 2 * d * d + 2 * e * d * d + d * e + HEADS
    assert layer.count_params() == 2 * (4 * d + 10) + 2 * d + attention + 2 * e * d * f + d * e


@pytest.mark.parametrize("sink", [True, False])
def test_padding_moves_nothing(sink):
    layer = harness.made(case(sink=sink), "float32", jitter=0.4)
    ((sequences, masks, tokens),) = harness.tensors(case().inputs, "float32")
    (expected, _), counted = layer((sequences, masks, tokens))
    longer = [tf.pad(mask, [[0, 0], [0, 2]]) for mask in masks]
    for filler in (0.0, 1e4, 1e30):
        padded = []
        for group, mask in zip(sequences, masks, strict=True):
            filled = [tf.where(mask[..., None], stream, filler) for stream in group]
            padded.append(tuple(tf.pad(s, [[0, 0], [0, 2], [0, 0]]) for s in filled))
        (encoded, _), statistics = layer((padded, longer, tokens))
        for group, mask, reference_group in zip(encoded, MASKS, expected, strict=True):
            for stream, other in zip(group, reference_group, strict=True):
                np.testing.assert_allclose(
                    stream.numpy()[:, : mask.shape[1]][mask],
                    other.numpy()[mask],
                    rtol=1e-5,
                    atol=1e-6,
                )
        np.testing.assert_allclose(statistics, counted, rtol=1e-5)


@pytest.mark.parametrize("sink", [True, False])
def test_an_empty_sequence_has_finite_outputs_and_gradients(sink):
    layer = harness.made(case(sink=sink), "float32", jitter=0.4)
    for tokens in (0, 3):
        group = tuple(normal(2, tokens, WIDTH, seed=s) for s in range(2))
        inputs = ([group], [np.zeros([2, tokens], bool)], case().inputs[0][2])
        inputs = (harness.tensors(inputs, "float32"),)
        for part in tf.nest.flatten(layer(*inputs)):
            assert np.isfinite(part).all()
        by_inputs, by_weights = harness.gradients(
            layer, inputs, lambda parts: tf.add_n([tf.reduce_sum(part**2) for part in parts])
        )
        for part in (*by_inputs, *by_weights):
            assert np.isfinite(part).all()


def test_at_first_it_is_the_dense_pre_norm_block():
    # Two streams and equal experts against one plain residual stream and one expert.
    layer, plain = harness.made(case()), harness.made(case(1, experts=1, active=1))
    harness.copy_weights(layer, plain)
    ((sequences, masks, tokens),) = harness.tensors(case(1).inputs)
    (expected, expected_tokens), _ = plain((sequences, masks, tokens))
    doubled = [group * 2 for group in sequences]
    (encoded, encoded_tokens), _ = layer((doubled, masks, tokens * 2))
    for streams, (other,) in zip(
        [*encoded, encoded_tokens], [*expected, expected_tokens], strict=True
    ):
        for stream in streams:
            np.testing.assert_allclose(stream, other, rtol=1e-10, atol=1e-12)


def test_every_option_is_kept():
    harness.keeps_options(
        EntryBlock,
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
