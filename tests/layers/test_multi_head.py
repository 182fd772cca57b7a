import numpy as np
import pytest
import tensorflow as tf

from loopctr_tf.layers import MultiHeadAttention, attend_by_head, rotate
from tests.layers import harness
from tests.layers.harness import Case, mask_of, normal
from tests.reference.attention import read


def test_by_hand():
    layer = MultiHeadAttention(heads=1)
    layer.build([None, None, 1])
    layer.set_weights([np.array([[w]]) for w in (1.0, 2.0, 3.0, 10.0)])
    query, context = tf.constant([[[np.log(2) / 2]]]), tf.constant([[[0.0], [1.0]]])
    # Logits 0 and log 2, weights 1/3 and 2/3, values 0 and 3, times 10.
    np.testing.assert_allclose(layer(query, context), [[[20.0]]], rtol=1e-6)


def turned(x):
    """Each pair of channels as a complex number, multiplied by that of its angle."""
    half = x.shape[-1] // 2
    angles = np.arange(len(x))[:, None] * 10_000.0 ** (-np.arange(half) / half)
    pairs = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * angles)
    return np.concatenate([pairs.real, pairs.imag], axis=1)


def reference(w, queries, context, mask, rotary=False):
    found = []
    for tokens, others, real in zip(queries, context, mask, strict=True):
        parts = []
        for wq, wk, wv in zip(
            *(np.split(w[name], 2, axis=1) for name in ("query", "key", "value")), strict=True
        ):
            q, k, v = tokens @ wq, others @ wk, (others @ wv)[real]
            if rotary:
                q, k = turned(q), turned(k)
            parts.append([read(one, k[real], v) for one in q])
        found.append(np.concatenate(parts, axis=1) @ w["output"])
    return np.array(found)


INPUTS = (normal(3, 2, 8), normal(3, 4, 8), mask_of([4, 1, 0], 4))
CASES = {
    "plain": Case(lambda **k: MultiHeadAttention(2, **k), INPUTS, reference),
    "rotary": Case(
        lambda **k: MultiHeadAttention(2, rotary=True, **k),
        INPUTS,
        lambda w, *inputs: reference(w, *inputs, rotary=True),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("check", harness.CHECKS)
def test_layer(case, check, tmp_path):
    check(case, tmp_path)


def test_rotary_products_depend_on_the_distance_alone():
    same = tf.tile(tf.constant(normal(1, 4)), [5, 1])
    products = tf.matmul(rotate(same), rotate(same), transpose_b=True).numpy()
    for distance in range(5):
        diagonal = np.diagonal(products, distance)
        np.testing.assert_allclose(diagonal, diagonal[0])
    assert np.ptp(products[0]) > 1e-3


def test_without_any_token_the_result_is_zero():
    nothing = tf.zeros([2, 0, 4])
    read = attend_by_head(tf.ones([2, 3, 4]), nothing, nothing, 2, tf.zeros([2, 0], tf.bool))
    np.testing.assert_array_equal(read, np.zeros([2, 3, 4]))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"heads": 3}, "give a divisor of the width 4"), ({"heads": 4, "rotary": True}, "turn pairs")],
)
def test_widths_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MultiHeadAttention(**options).build([None, None, 4])


def test_every_option_is_kept():
    harness.keeps_options(MultiHeadAttention, heads=2, rotary=True)
