import numpy as np
import pytest
import tensorflow as tf

from loopctr_tf.layers import WukongLayer
from loopctr_tf.layers.counting import count_flops
from tests.layers import harness
from tests.layers.harness import Case, normal
from tests.layers.test_interactions import mlp, norm


def test_by_hand():
    layer = WukongLayer(fm_outputs=1, compressed=1, rank=1)
    layer.build(tf.TensorShape([None, 2, 3]))
    layer.projection.assign([[1], [-1]])
    layer.mlp.layers[0].kernel.assign([[2, 0, 1], [0, 1, 0]])
    layer.compression.kernel.assign([[0], [3]])
    # X^T Y = (-1, -1, 2) and X X^T Y = (3, -3), normalised (1, -1), so that FMB is (2, -1, 1); LCB is
    # 3 x_2 = (6, 3, 0). Two vectors in, two out: X is added, (3, -1, 3) and (8, 4, 0), and normalised.
    found = layer(tf.constant([[[1.0, 0.0, 2.0], [2.0, 1.0, 0.0]]]))
    half, wide = 0.5**0.5, 1.5**0.5
    np.testing.assert_allclose(found, [[[half, -2 * half, half], [wide, 0, -wide]]], atol=1e-5)


def reference(w, x):
    vectors = []
    for row in x:
        products = row @ row.T @ w["projection"]  # the other order of products
        machine = mlp(w, "mlp", norm(w, "fm_norm", products.reshape(-1))).reshape(3, -1)
        found = np.concatenate([machine, w["compression/kernel"].T @ row])
        residual = w["residual/kernel"].T @ row if "residual/kernel" in w else row
        vectors.append(norm(w, "norm", found + residual))
    return np.stack(vectors)


def make(**kwargs):
    return WukongLayer(fm_outputs=3, compressed=2, rank=2, mlp_units=[6], **kwargs)


CASES = {
    "another number of vectors": Case(make, (normal(3, 4, 4),), reference),
    "the same number": Case(make, (normal(3, 5, 4),), reference),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("check", harness.CHECKS)
def test_layer(case, check, tmp_path):
    check(case, tmp_path)


def test_products_are_counted():
    case = CASES["another number of vectors"]
    layer = harness.made(case, "float32")
    with count_flops() as counted:
        layer(*harness.tensors(case.inputs, "float32"))
    machine = 2 * 4 * 4 * 2 + 8 * 6 + 6 * 12
    assert sum(counted) == 2 * 3 * (machine + 4 * 4 * 2 + 4 * 4 * 5)


def test_every_option_is_kept():
    options = {"fm_outputs": 3, "compressed": 2, "rank": 4, "mlp_units": [5], "dropout": 0.5}
    harness.keeps_options(WukongLayer, **options)
