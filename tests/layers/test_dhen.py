import numpy as np
import pytest
import tensorflow as tf

from loopctr_tf.layers import DHENLayer, DotProducts, LinearCompression
from tests.layers import harness
from tests.layers.harness import Case, normal
from tests.layers.test_interactions import norm


@pytest.mark.parametrize(
    ("concat", "joined"),
    # Both vectors add up to (1, 3, 5). The sum is five times that, plus the shortcut 10 x_2; the
    # concatenation twice and three times that, plus X as it is.
    [
        (False, [[5 + 10, 15 + 20, 25 + 0]]),
        (True, [[2 + 0, 6 + 1, 10 + 5], [3 + 1, 9 + 2, 15 + 0]]),
    ],
)
def test_by_hand(concat, joined):
    modules = [LinearCompression(1, name=name) for name in ("double", "triple")]
    layer = DHENLayer(modules, concat)
    layer.build(tf.TensorShape([None, 2, 3]))
    for module, factor in zip(modules, (2, 3), strict=True):
        module.kernel.assign([[factor], [factor]])
    if not concat:
        layer.shortcut.kernel.assign([[0], [10]])
    found = layer(tf.constant([[[0.0, 1.0, 5.0], [1.0, 2.0, 0.0]]]))[0]
    centred = joined - np.mean(joined, axis=1, keepdims=True)
    np.testing.assert_allclose(found, centred / np.std(joined, axis=1, keepdims=True), atol=1e-5)


def linear(w, name, x):
    return np.stack([w[f"{name}/kernel"].T @ row for row in x])


def dot(w, x):
    pairs = np.array([[row[i] @ row[j] for i in range(4) for j in range(i + 1, 4)] for row in x])
    path = "dot/mlp/dense_0"
    pairs /= x.shape[2] ** 0.5
    return (pairs @ w[f"{path}/kernel"] + w[f"{path}/bias"]).reshape(len(x), 2, -1)


def summed(w, x):
    return norm(w, "norm", linear(w, "linear", x) + dot(w, x) + linear(w, "shortcut", x))


def concatenated(w, x):
    return norm(w, "norm", np.concatenate([linear(w, "linear", x), dot(w, x)], axis=1) + x)


def make(concat=False, dtype="float32", **kwargs):
    modules = [
        LinearCompression(2, name="linear", dtype=dtype),
        DotProducts(2, name="dot", dtype=dtype),
    ]
    return DHENLayer(modules, concat, dtype=dtype, **kwargs)


CASES = {
    "sum": Case(make, (normal(3, 4, 5),), summed),
    "concatenation": Case(lambda **k: make(True, **k), (normal(3, 4, 5),), concatenated),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("check", harness.CHECKS)
def test_layer(case, check, tmp_path):
    check(case, tmp_path)


def test_a_sum_needs_equal_numbers_of_outputs():
    modules = [LinearCompression(n, name=f"m{n}") for n in (2, 3)]
    with pytest.raises(ValueError, match=r"modules have \[2, 3\] outputs; a sum needs the same"):
        DHENLayer(modules)
    assert DHENLayer(modules, concat=True).outputs == 5
