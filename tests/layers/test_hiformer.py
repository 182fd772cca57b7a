import numpy as np
import pytest
import tensorflow as tf

from loopctr_tf.layers import CompositeDense, HiformerLayer
from tests.layers import harness
from tests.layers.harness import Case, normal
from tests.reference.attention import read
from tests.reference.basics import gelu


def test_by_hand():
    layer = CompositeDense(tokens=1, rank=1)
    layer.build([None, 2, 2])
    layer.set_weights([np.array([[1.0], [2.0], [3.0], [4.0]]), np.array([[1.0, -1.0]])])
    # 1 + 2 * 5 + 3 * 0 + 4 * 2 = 19, spread by (1, -1).
    found = layer(tf.constant([[[1.0, 5.0], [0.0, 2.0]]]))
    np.testing.assert_array_equal(found, [[[19.0, -19.0]]])


def norm(w, name, x):
    centred = x - x.mean()
    scaled = centred / np.sqrt((centred**2).mean() + 1e-6)
    return scaled * w[f"{name}/gamma"] + w[f"{name}/beta"]


def projected(w, name, x):
    """Queries, keys or values [O, d] of tokens [F, d]."""
    if f"{name}/down" in w:
        return (x.reshape(-1) @ w[f"{name}/down"] @ w[f"{name}/up"]).reshape(-1, x.shape[1])
    kernel = w[f"{name}/kernel"]
    if kernel.ndim == 2:
        return (x.reshape(-1) @ kernel).reshape(-1, x.shape[1])
    return np.array([token @ own for token, own in zip(x, kernel, strict=False)])


def reference(w, x):
    encoded = []
    for tokens in x:
        normed = np.array([norm(w, "attention_norm", token) for token in tokens])
        queries, keys, values = (projected(w, name, normed) for name in ("query", "key", "value"))
        for i, by_head in enumerate(np.split(query, 2) for query in queries):
            parts = [
                read(q, k, v)
                for q, k, v in zip(
                    by_head, np.split(keys, 2, 1), np.split(values, 2, 1), strict=True
                )
            ]
            z = tokens[i] + np.concatenate(parts) @ w["output/kernel"][i]
            inner = gelu(norm(w, "ffn_norm", z) @ w["inner/kernel"][i] + w["inner/bias"][i])
            encoded.append(z + inner @ w["outer/kernel"][i] + w["outer/bias"][i])
    return np.reshape(encoded, (len(x), -1, x.shape[2]))


def case(**options) -> Case:
    return Case(
        lambda **k: HiformerLayer(2, 3, **options, **k),
        (normal(3, 5, 4),),
        reference,
    )


CASES = {
    "full": case(),
    "low rank": case(rank=2, outputs=2),
    "pair": case(projection="pair"),
    "one of pair": case(projection="pair", outputs=1),
}
# A Keras model with an unknown number of tokens cannot hold weights of each.
CHECKS = [
    harness.survives_config if check is harness.lives_in_a_keras_model else check
    for check in harness.CHECKS
]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("check", CHECKS)
def test_layer(case, check, tmp_path):
    check(case, tmp_path)


def test_fewer_outputs_are_the_first_of_all():
    every, first = HiformerLayer(2, 3, "pair"), HiformerLayer(2, 3, "pair", outputs=2)
    x = tf.constant(normal(3, 5, 4), tf.float32)
    expected = every(x)
    first(x)
    first.set_weights(
        [w[: new.shape[0]] for w, new in zip(every.get_weights(), first.weights, strict=True)]
    )
    np.testing.assert_allclose(first(x), expected[:, :2], atol=1e-6)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="rank is 3; leave it out"):
        HiformerLayer(2, 3, "pair", rank=3).build([None, 5, 4])
    with pytest.raises(ValueError, match="heads is 3; give a divisor of the width 4"):
        HiformerLayer(3, 3).build([None, 5, 4])


def test_every_option_is_kept():
    harness.keeps_options(CompositeDense, tokens=3, rank=2)
    harness.keeps_options(
        HiformerLayer,
        heads=2,
        ffn_dim=3,
        projection="pair",
        rank=2,
        outputs=1,
        dropout=0.5,
    )
