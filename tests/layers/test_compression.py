import numpy as np
import pytest
import tensorflow as tf

from loopctr_tf.layers import SequenceCompression
from tests.layers import harness
from tests.layers.harness import Case, mask_of, normal
from tests.reference.compression import compress


def test_by_hand():
    # One query, one head, d = 1: RMSNorm makes every token its sign. Keys ln 3 x, values x.
    layer = SequenceCompression(1, 1, sink=False, dtype="float64")
    layer.build([None, None, 1])
    layer.queries.assign([[2]])
    for kernel, value in (
        (layer.query_kernel, 0.5),
        (layer.key_kernel, np.log(3) / 2),
        (layer.value_kernel, 1.0),
        (layer.output_kernel, 10.0),
    ):
        kernel.assign([[value]])
    # Logits ln(3)/2 and -ln(3)/2, weights 3/4 and 1/4: 2 + 10 (3/4 - 1/4).
    np.testing.assert_allclose(layer(tf.constant([[[5.0], [-7.0]]])), [[[7.0]]], rtol=1e-6)


HEADS, WIDTH, QUERIES = 2, 4, 3
X, MASK = normal(3, 5, WIDTH), mask_of([5, 2, 0], 5)


def reference(w, x, mask=None):
    return compress(w, x, np.ones(x.shape[:2], bool) if mask is None else mask, HEADS)


def make(sink=True, **kwargs):
    return SequenceCompression(QUERIES, HEADS, sink, **kwargs)


def make_without_sink(**kwargs):
    return make(sink=False, **kwargs)


CASES = {
    "mask": Case(make, (X, MASK), reference),
    "mask, no sink": Case(make_without_sink, (X, MASK), reference),
    "no mask": Case(make, (X,), reference),
    "no mask, no sink": Case(make_without_sink, (X,), reference),
}


@pytest.mark.parametrize("check", harness.IN_KERAS)
def test_layer(check, tmp_path):
    check(CASES["mask"], tmp_path)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_equals_reference(case):
    harness.equals_reference(case)


@pytest.mark.parametrize("case", [CASES["mask"], CASES["mask, no sink"]], ids=["sink", "no sink"])
def test_an_empty_history_leaves_the_queries_with_finite_gradients(case):
    layer = harness.made(case, "float32", jitter=0.4)
    for tokens in (0, 4):
        inputs = harness.tensors((normal(2, tokens, WIDTH), np.zeros([2, tokens], bool)), "float32")
        np.testing.assert_array_equal(layer(*inputs), np.tile(layer.queries, [2, 1, 1]))
        by_inputs, by_weights = harness.gradients(
            layer, inputs, lambda parts: tf.reduce_sum(tf.square(parts[0]))
        )
        for part in (*by_inputs, *by_weights):
            assert np.isfinite(part).all()


@pytest.mark.parametrize("case", [CASES["mask"], CASES["mask, no sink"]], ids=["sink", "no sink"])
def test_padding_moves_nothing(case):
    layer = harness.made(case, "float32", jitter=0.4)
    expected = layer(*harness.tensors(case.inputs, "float32"))
    for filler in (0.0, 1e4, 1e30):
        x = np.where(MASK[..., None], X, filler * normal(*X.shape, seed=1))
        for extra in (0, 4):
            padded = np.concatenate([x, np.full([3, extra, WIDTH], filler)], axis=1)
            mask = np.concatenate([MASK, np.zeros([3, extra], bool)], axis=1)
            np.testing.assert_allclose(
                layer(*harness.tensors((padded, mask), "float32")), expected, rtol=1e-5, atol=1e-6
            )


def test_heads_that_do_not_divide_the_width_are_named():
    with pytest.raises(ValueError, match="heads is 3; give a divisor of the width 4"):
        SequenceCompression(2, heads=3)(tf.zeros([1, 2, 4]))


def test_every_option_is_kept():
    harness.keeps_options(SequenceCompression, num_queries=3, heads=2, sink=False)
