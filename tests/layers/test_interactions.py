import numpy as np
import pytest
import tensorflow as tf

from loopctr_tf.layers import (
    CrossProducts,
    DotProducts,
    LinearCompression,
    VectorAttention,
    VectorMLP,
)
from loopctr_tf.layers.counting import count_flops
from tests.layers import harness
from tests.layers.harness import Case, normal

X = tf.constant([[[1.0, 2.0], [3.0, -1.0], [0.0, 4.0]]])
"""Three vectors of width 2."""


def given(layer, *values):
    """``layer``, built for X, with these weights."""
    layer.build(X.shape)
    for weight, value in zip(layer.weights, values, strict=True):
        weight.assign(value)
    return layer


def test_linear_compression_by_hand():
    layer = given(LinearCompression(2), [[1, 0], [10, 0], [0, -1]])
    # The first output is x_1 + 10 x_2, the second -x_3.
    np.testing.assert_array_equal(layer(X), [[[31, -8], [0, -4]]])


def test_dot_products_by_hand():
    layer = given(DotProducts(1), [[1, 0], [10, 0], [0, 1]], [0, 0.5])
    # <x_1, x_2> = 1, <x_1, x_3> = 8, <x_2, x_3> = -4; each divided by the root of 2.
    np.testing.assert_allclose(layer(X), [[[81 / 2**0.5, 0.5 - 4 / 2**0.5]]], rtol=1e-6)


def test_vector_mlp_by_hand():
    layer = given(VectorMLP(1, [1]), np.ones([6, 1]), [1], [[1, 2]], [0, 0])
    np.testing.assert_array_equal(layer(X), [[[10, 20]]])


def test_cross_products_by_hand():
    layer = given(
        CrossProducts(1, rank=1),
        np.ones([6, 1]),
        [[0, 0, 1, 0, 0, 2]],
        [1] + [0] * 5,
        np.ones([3, 1]),
    )
    # V x = 9; x * (9 U + b) = (1, 0), (27, 0), (0, 72), and W adds the three.
    np.testing.assert_array_equal(layer(X), [[[28, 72]]])


def test_attention_by_hand():
    layer = VectorAttention(1, heads=1, ffn_units=1)
    layer.build([None, 2, 2])
    values = {"qkv": [[0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1]], "output": np.eye(2)}
    for weight in layer.weights:
        name = weight.name.partition(":")[0].rpartition("/")[2]
        if name in values:
            weight.assign(values[name])
        elif "ffn/" in weight.name:
            weight.assign(tf.zeros_like(weight))
    layer.compression.kernel.assign([[1], [10]])
    # Queries of zero: both read the mean (2, 1). Norms of two numbers leave only the sign.
    found = layer(tf.constant([[[3.0, 0.0], [1.0, 2.0]]]))
    np.testing.assert_allclose(found, [[[1.0, -1.0]]], atol=1e-4)


def dense(w, path, x):
    return x @ w[f"{path}/kernel"] + w[f"{path}/bias"]


def mlp(w, path, x):
    return dense(w, f"{path}/dense_1", np.maximum(dense(w, f"{path}/dense_0", x), 0))


def norm(w, path, x):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    return scaled * w[f"{path}/gamma"] + w[f"{path}/beta"]


def linear_reference(w, x, path="kernel"):
    rows = [w[path].T @ vectors for vectors in x]
    return np.stack(rows)


def dot_reference(w, x):
    n = x.shape[1]
    dots = [[v[i] @ v[j] for i in range(n) for j in range(i + 1, n)] for v in x]
    return mlp(w, "mlp", np.array(dots) / x.shape[2] ** 0.5).reshape(len(x), 2, -1)


def mlp_reference(w, x):
    return mlp(w, "mlp", x.reshape(len(x), -1)).reshape(len(x), 2, -1)


def cross_reference(w, x):
    crossed = []
    for line in x.reshape(len(x), -1):
        crossed.append(line * (line @ w["down"] @ w["up"] + w["bias"]))
    return linear_reference(w, np.array(crossed).reshape(x.shape), "compression/kernel")


def attention_reference(w, x, heads=2):
    read = np.zeros_like(x)
    for row, vectors in enumerate(x):
        queries, keys, values = np.split(vectors @ w["qkv"], 3, axis=1)
        for part in np.split(np.arange(x.shape[2]), heads):
            weights = np.exp(queries[:, part] @ keys[:, part].T / np.sqrt(len(part)))
            weights /= weights.sum(1, keepdims=True)
            read[row][:, part] = weights @ values[:, part]
    h = norm(w, "attention_norm", x + read @ w["output"])
    h = norm(w, "ffn_norm", h + mlp(w, "ffn", h))
    return linear_reference(w, h, "compression/kernel")


VECTORS = (normal(3, 5, 4),)
CASES = {
    "linear": Case(lambda **k: LinearCompression(2, **k), VECTORS, linear_reference),
    "mlp": Case(lambda **k: VectorMLP(2, [6], **k), VECTORS, mlp_reference),
    "dot": Case(lambda **k: DotProducts(2, [6], **k), VECTORS, dot_reference),
    "cross": Case(lambda **k: CrossProducts(2, rank=3, **k), VECTORS, cross_reference),
    "attention": Case(
        lambda **k: VectorAttention(2, heads=2, ffn_units=6, **k), VECTORS, attention_reference
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("check", harness.CHECKS)
def test_layer(case, check, tmp_path):
    check(case, tmp_path)


@pytest.mark.parametrize(
    ("case", "each"),
    [
        ("linear", 5 * 2 * 4),
        ("mlp", 20 * 6 + 6 * 8),
        ("dot", 5 * 5 * 4 + 10 * 6 + 6 * 8),
        ("cross", 2 * 20 * 3 + 5 * 2 * 4),
        ("attention", 5 * 4 * 4 * 4 + 2 * 5 * 5 * 4 + 5 * 2 * 4 * 6 + 5 * 2 * 4),
    ],
)
def test_products_are_counted(case, each):
    layer = harness.made(CASES[case], "float32")
    with count_flops() as counted:
        layer(*harness.tensors(CASES[case].inputs, "float32"))
    assert sum(counted) == 2 * 3 * each


def test_one_vector_has_no_dot_product():
    with pytest.raises(ValueError, match="there is 1 vector; a dot product needs two"):
        DotProducts(2).build(tf.TensorShape([None, 1, 4]))


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="heads is 3; give a divisor of the width 4"):
        VectorAttention(2, heads=3, ffn_units=6).build(tf.TensorShape([None, 2, 4]))


def test_every_option_is_kept():
    harness.keeps_options(LinearCompression, outputs=3)
    harness.keeps_options(VectorMLP, outputs=3, units=[4], dropout=0.5)
    harness.keeps_options(DotProducts, outputs=3, units=[4], dropout=0.5)
    harness.keeps_options(CrossProducts, outputs=3, rank=4)
    harness.keeps_options(VectorAttention, outputs=3, heads=2, ffn_units=4, dropout=0.5)
