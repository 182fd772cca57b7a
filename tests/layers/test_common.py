import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers import MoEFeedForward, RMSNorm
from loopctr_tf.layers.common import build, clone_initializer, linear, stable_dtype
from tests.layers import harness
from tests.layers.harness import Case, normal
from tests.reference.basics import rms_norm


def test_rms_norm_by_hand():
    layer = RMSNorm()
    layer.build([None, 2])
    layer.gain.assign([1.0, 2.0])
    # RMS(3, 4) = sqrt(12.5), RMS(7, 1) = 5.
    np.testing.assert_allclose(
        layer(tf.constant([[3.0, 4.0], [7.0, 1.0]])),
        [[3 / 12.5**0.5, 8 / 12.5**0.5], [7 / 5, 2 / 5]],
        rtol=1e-6,
    )


def norm_reference(w, x):
    gain = np.broadcast_to(w["gain"], x.shape)
    normed = np.zeros_like(x)
    for place in np.ndindex(*x.shape[:-1]):
        normed[place] = rms_norm(x[place], gain[place])
    return normed


CASES = {
    "one gain": Case(RMSNorm, (normal(2, 3, 4),), norm_reference),
    "a gain for each token": Case(
        lambda **kwargs: RMSNorm(axes=2, **kwargs), (normal(2, 3, 2, 4),), norm_reference
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("check", harness.CHECKS)
def test_rms_norm(case, check, tmp_path):
    check(case, tmp_path)


def test_rms_norm_of_zero_and_of_large_numbers_is_finite():
    layer = RMSNorm()
    x = tf.constant([[0.0, 0.0], [1e15, -1e15], [1e-15, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
        total = tf.reduce_sum(tf.square(y))
    np.testing.assert_allclose(y[:2], [[0, 0], [1, -1]], rtol=1e-6)
    assert np.isfinite(tape.gradient(total, x)).all()


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 4, 3), (2, 1, 4, 3), (0, 4, 3)])
def test_linear_is_a_product_over_the_last_axis(shape):
    x, kernel = normal(*shape), normal(3, 5, seed=1)
    y = linear(tf.constant(x), tf.constant(kernel))
    expected = np.zeros([*shape[:-1], 5])
    for place in np.ndindex(*shape[:-1]):
        for unit in range(5):
            expected[(*place, unit)] = sum(x[place][i] * kernel[i, unit] for i in range(3))
    assert y.shape == expected.shape
    np.testing.assert_allclose(y, expected, atol=1e-12)


def test_a_product_of_unequal_ranks_is_found():
    # The check of `multiplies_equal_ranks` can fail: this is what it looks for. Traced, never run.
    kernel = tf.Variable(tf.ones([3, 5]))

    def products(function, *shape):
        traced = tf.function(function, autograph=False)
        return harness.unequal_products(
            traced.get_concrete_function(tf.TensorSpec(shape, tf.float32)).graph
        )

    assert len(products(lambda x: tf.matmul(x, kernel), None, 2, 4, 3)) == 1
    assert products(lambda x: linear(x, kernel), None, 2, 4, 3) == []
    assert products(lambda x: tf.matmul(x, x, transpose_b=True), None, 2, 4, 3) == []


def test_clones_draw_numbers_of_their_own():
    original = keras.initializers.GlorotUniform(seed=3)
    clone = clone_initializer(original)
    assert clone is not original
    assert clone.get_config() == original.get_config()
    np.testing.assert_array_equal(clone([2, 3]), original([2, 3]))


def test_children_are_named_by_the_whole_path():
    layer = MoEFeedForward(3, name="feed")
    with tf.name_scope("outer"):
        build(layer, tf.TensorShape([None, 4]))
    assert [v.name for v in layer.weights] == [
        "outer/feed/inner:0",
        "outer/feed/outer:0",
        "outer/feed/router/kernel:0",
    ]


@pytest.mark.parametrize(
    ("dtype", "stable"),
    [("bfloat16", "float32"), ("float16", "float32"), ("float32",) * 2, ("float64",) * 2],
)
def test_stable_dtype(dtype, stable):
    assert stable_dtype(dtype) == tf.as_dtype(stable)


def test_every_option_is_kept():
    harness.keeps_options(RMSNorm, axes=2)
