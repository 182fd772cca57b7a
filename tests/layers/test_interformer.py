import numpy as np
import pytest
import tensorflow as tf

from loopctr_tf.layers import CrossArch, InterFormerLayer, MaskNet
from tests.layers import harness
from tests.layers.harness import Case, mask_of, normal
from tests.layers.test_hiformer import norm


def test_by_hand():
    layer = CrossArch(cls_tokens=1, pma_tokens=1, recent_tokens=2, heads=1)
    layer.build([None, 2, 2])
    for weight in layer.weights:
        value = {"compress": [[1.0], [2.0]], "gamma": [1, 1]}
        name = weight.name.rpartition("/")[2].partition(":")[0]
        weight.assign(value.get(name, np.eye(2) if name in ("value", "output") else 0 * weight))
    # The norm makes +-(1, -1) of every token and the gates, all weights zero, halve: (1 + 2) / 2.
    x = tf.constant([[[3.0, 1.0], [2.0, 0.0]]])
    np.testing.assert_allclose(layer.features(x), [[[1.5, -1.5]]], rtol=1e-5)
    # CLS; the pooled mean of three events; the most recent two; all halved.
    s = tf.constant([[[0.0, 2.0], [3.0, 1.0], [1.0, 3.0], [3.0, 1.0], [np.inf, 0.0]]])
    found, visible = layer.sequence(s[:, :4], tf.constant([[True] * 4]))
    expected = np.array([[-1, 1], [1 / 3, -1 / 3], [1, -1], [-1, 1]]) / 2
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
    assert visible.numpy().all()
    found, visible = layer.sequence(s[:, :2], tf.constant([[True, False]]))
    np.testing.assert_allclose(found[0], [[-0.5, 0.5], [0, 0], [0, 0], [0, 0]], rtol=1e-5)
    np.testing.assert_array_equal(visible, [[True, False, False, False]])


def mask_net(w, x):
    found = []
    for token in x.reshape(-1, x.shape[-1]):
        h = norm(w, "norm", token)
        inner = np.maximum(h @ w["mask/dense_0/kernel"] + w["mask/dense_0/bias"], 0)
        masked = h * (inner @ w["mask/dense_1/kernel"] + w["mask/dense_1/bias"])
        found.append(masked @ w["compress/dense_0/kernel"] + w["compress/dense_0/bias"])
    return np.reshape(found, (*x.shape[:-1], -1))


CROSS = Case(
    lambda **k: CrossArch(2, 1, 3, heads=2, **k),
    (normal(3, 4, 8), normal(3, 6, 8), mask_of([6, 3, 2], 6)),
)
LAYER = Case(
    lambda **k: InterFormerLayer(2, 2, 5, **k),
    (
        *(normal(3, 4, 8), normal(3, 6, 8), mask_of([6, 3, 2], 6)),
        *(normal(3, 2, 8, seed=1), normal(3, 5, 8), mask_of([5, 4, 2], 5)),
    ),
)
FILTER = Case(lambda **k: MaskNet(3, **k), (normal(4, 5, 6),), mask_net)
CHECKS = [
    *((FILTER, check) for check in harness.CHECKS),
    *((LAYER, check) for check in harness.IN_KERAS),
    (CROSS, harness.survives_config),
    (CROSS, harness.bears_mixed_precision),
]


@pytest.mark.parametrize(("case", "check"), CHECKS)
def test_layer(case, check, tmp_path):
    check(case, tmp_path)


def test_every_option_is_kept():
    harness.keeps_options(MaskNet, units=3)
    harness.keeps_options(CrossArch, cls_tokens=2, pma_tokens=3, recent_tokens=4, heads=2)
    harness.keeps_options(
        InterFormerLayer, cls_tokens=2, heads=4, ffn_dim=3, rotary=False, dropout=0.5
    )
