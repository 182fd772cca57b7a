import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers import ExpertDense, MoEFeedForward, StackedExperts
from loopctr_tf.layers.dispatch import BLOCK, DISPATCH
from tests.layers import harness
from tests.layers.harness import Case, mask_of, normal
from tests.reference import moe
from tests.reference.basics import gelu


def test_feed_forward_by_hand():
    layer = MoEFeedForward(1, experts=2, active_experts=2, activation="relu")
    layer.build([None, 2])
    layer.router.kernel.assign([[0.0, np.log(3)], [0.0, 0.0]])  # gates 1/4 and 3/4 at x = (1, 2)
    layer.inner.assign([[[1], [1]], [[1], [-1]]])  # hidden 3, and relu(-1) = 0
    layer.outer.assign([[[4, -8]], [[100, 100]]])
    y, statistics = layer(tf.constant([[1.0, 2.0]]))
    np.testing.assert_allclose(y, [[3, -6]], rtol=1e-6)
    np.testing.assert_allclose(statistics, [[1, 1], [0.25, 0.75]], rtol=1e-6)


def test_expert_dense_by_hand():
    layer = ExpertDense(2)
    layer.build([None, 2])
    layer.kernel.assign([[[1, 0], [0, 1]], [[0, 1], [1, 0]]])
    # 1/4 (1, 2) + 3/4 (2, 1)
    y = layer(tf.constant([[1.0, 2.0]]), tf.constant([[0.25, 0.75]]))
    np.testing.assert_allclose(y, [[1.75, 1.25]], rtol=1e-6)


EXPERTS, ACTIVE, WIDTH = 4, 2, 3


def gates(*shape):
    kernel = normal(WIDTH, EXPERTS, seed=9)
    tokens = normal(*shape, WIDTH, seed=8).reshape(-1, WIDTH)
    return np.reshape(
        [moe.route(token, kernel, ACTIVE).gates for token in tokens], [*shape, EXPERTS]
    )


def dense_reference(w, x, gates):
    y = np.zeros([*x.shape[:-1], w["kernel"].shape[-1]])
    for place in np.ndindex(*x.shape[:-1]):
        y[place] = moe.expert_dense(x[place], gates[place], w["kernel"])
    return y


def feed_forward_reference(w, x, mask=None):
    y, counted = np.zeros_like(x), []
    for place in np.ndindex(*x.shape[:-1]):
        if mask is None or mask[place]:
            y[place], routed = moe.feed_forward(w, x[place], ACTIVE)
            counted.append(routed)
    return y, moe.statistics(counted, EXPERTS)


def dense_case(units, *shape):
    return Case(
        lambda **kwargs: ExpertDense(EXPERTS, units, **kwargs),
        (normal(*shape, WIDTH), gates(*shape)),
        dense_reference,
    )


def feed_forward_case(*shape, mask=None, **settings):
    x = normal(*shape, WIDTH)
    return Case(
        lambda **kwargs: MoEFeedForward(5, EXPERTS, ACTIVE, **settings, **kwargs),
        (x,) if mask is None else (x, mask),
        feed_forward_reference,
    )


@pytest.mark.parametrize("check", harness.CHECKS)
def test_expert_dense(check, tmp_path):
    check(dense_case(5, 2, 3), tmp_path)


@pytest.mark.parametrize("check", harness.CHECKS)
def test_feed_forward(check, tmp_path):
    check(feed_forward_case(2, 3, mask=mask_of([3, 1], 3)), tmp_path)


@pytest.mark.parametrize("dispatch", DISPATCH)
def test_every_dispatch_equals_the_reference(dispatch):
    case = feed_forward_case(2, 3, mask=mask_of([3, 1], 3), dispatch=dispatch)
    harness.equals_reference(case)


@pytest.mark.parametrize("dispatch", ["batched", "dense"])
def test_many_tokens_dispatched_alike(dispatch):
    # Some experts fill several blocks, and a token in seven is padding.
    mask = np.arange(3 * BLOCK) % 7 != 0
    case = feed_forward_case(3 * BLOCK, mask=mask)
    layer = harness.made(case, jitter=0.4)
    other = harness.made(feed_forward_case(3 * BLOCK, mask=mask, dispatch=dispatch))
    harness.copy_weights(layer, other)
    x, mask = harness.tensors(case.inputs)
    found = []
    for each in (layer, other):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y, statistics = each(x, mask)
            y = tf.where(mask[:, None], y, 0.0)
        found.append([y, statistics, *tape.gradient(y, [x, *each.trainable_weights], 1 + y)])
    assert float(tf.reduce_max(found[0][1][0])) > BLOCK
    for one, another in zip(*found, strict=True):
        one, another = (tf.convert_to_tensor(part) for part in (one, another))
        np.testing.assert_allclose(another, one, atol=1e-10)


@pytest.mark.parametrize("dispatch", DISPATCH)
def test_no_token_at_all_and_none_that_is_real(dispatch):
    layer = harness.made(feed_forward_case(2, 3, dispatch=dispatch))
    y, statistics = layer(tf.zeros([0, 3, WIDTH]))
    assert y.shape == (0, 3, WIDTH)
    np.testing.assert_array_equal(statistics, np.zeros([2, EXPERTS]))
    _, statistics = layer(tf.ones([2, 3, WIDTH]), tf.zeros([2, 3], tf.bool))
    np.testing.assert_array_equal(statistics, np.zeros([2, EXPERTS]))


def test_statistics_of_equal_parts():
    layer = harness.made(feed_forward_case(4, 3), jitter=0.4)
    x = harness.tensors(feed_forward_case(4, 3).inputs)[0]
    _, by_part = layer(x, depths=2)
    np.testing.assert_allclose(by_part, [layer(part)[1] for part in (x[:2], x[2:])])


@pytest.mark.parametrize("shape", [(4,), (2, 2, 2)])
def test_any_number_of_leading_axes(shape):
    harness.equals_reference(dense_case(None, *shape))
    harness.equals_reference(feed_forward_case(*shape))


def test_at_first_the_mixtures_are_the_dense_layers():
    x = normal(2, 3, WIDTH)
    dense, ffn = harness.made(dense_case(5, 2, 3)), harness.made(feed_forward_case(2, 3))
    np.testing.assert_allclose(
        dense(tf.constant(x), tf.constant(gates(2, 3))),
        np.einsum("btd,du->btu", x, dense.kernel[0]),
        atol=1e-12,
    )
    hidden = gelu(np.einsum("btd,df->btf", x, ffn.inner[0]).ravel()).reshape(2, 3, -1)
    np.testing.assert_allclose(
        ffn(tf.constant(x))[0], np.einsum("btf,fd->btd", hidden, ffn.outer[0]), atol=1e-12
    )


@pytest.mark.parametrize("equal", [True, False])
def test_experts_start_equal_or_each_on_its_own(equal):
    layer = MoEFeedForward(5, EXPERTS, ACTIVE, equal_experts=equal)
    layer.build([None, WIDTH])
    dense = ExpertDense(EXPERTS, equal_experts=equal)
    dense.build([None, WIDTH])
    for kernel in (layer.inner.numpy(), layer.outer.numpy(), dense.kernel.numpy()):
        for other in kernel[1:]:
            assert np.array_equal(kernel[0], other) == equal
    # Either way an expert is drawn for its own fan-in and fan-out, and in and out are not one draw.
    assert np.abs(layer.inner.numpy()).max() <= (6 / (WIDTH + 5)) ** 0.5
    assert not np.array_equal(layer.inner[0].numpy().ravel(), layer.outer[0].numpy().ravel())


def test_stacked_experts_survive_their_config():
    initializer = StackedExperts(keras.initializers.GlorotUniform(seed=2), equal=False)
    copy = keras.initializers.deserialize(keras.initializers.serialize(initializer))
    assert copy.get_config() == initializer.get_config()
    assert copy([3, 2, 4]).shape == [3, 2, 4]
    constant = StackedExperts("ones")([3, 2, 4])
    np.testing.assert_array_equal(constant, np.ones([3, 2, 4]))


def test_every_option_is_kept():
    harness.keeps_options(ExpertDense, experts=3, units=2, equal_experts=False, zeros=True)
    harness.keeps_options(
        MoEFeedForward,
        ffn_dim=2,
        experts=3,
        active_experts=1,
        activation="relu",
        equal_experts=False,
        zero_outputs=True,
        dispatch="dense",
    )
