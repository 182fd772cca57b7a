import math

import numpy as np
import pytest
import tensorflow as tf

from loopctr_tf.layers import HyperConnection
from tests.layers import harness
from tests.layers.harness import Case, normal
from tests.reference.hyper_connections import coefficients, layer_input, update


def test_by_hand():
    layer = built(2, 0, width=2, dtype="float64")
    half = math.atanh(0.5)
    layer.read_kernel.assign([[half], [0]])
    layer.mix_kernel.assign([[0, 0], [half, 0]])
    layer.write_kernel.assign([[half], [half]])
    layer.read_scale.assign(0.2)
    layer.write_scale.assign(0.5)
    # S = (1, 1), (2, -2); S_bar = (1, 1), (1, -1).
    connection = layer((tf.constant([[1.0, 1.0]]), tf.constant([[2.0, -2.0]])))
    # tanh(S_bar W_m) = 1/2, 1/2: a_m = (1.1, 0.1).
    np.testing.assert_allclose(connection.layer_input, [[1.1 + 0.2, 1.1 - 0.2]], atol=1e-6)
    # tanh(S_bar W_r) = (1/2, 0), (-1/2, 0): a_r = (1.1, 0), (-0.1, 1).
    np.testing.assert_allclose(connection.mixed[0], [[1.1 - 0.2, 1.1 + 0.2]], atol=1e-6)
    np.testing.assert_allclose(connection.mixed[1], [[2, -2]], atol=1e-6)
    # tanh(S_bar W_b) = tanh(2 artanh 1/2) = 4/5 and 0: b = (1.4, 1).
    first, second = connection.add(tf.constant([[10.0, 20.0]], tf.float64))
    np.testing.assert_allclose(first, [[0.9 + 14, 1.3 + 28]], atol=1e-5)
    np.testing.assert_allclose(second, [[2 + 10, -2 + 20]], atol=1e-5)


class Residual(HyperConnection):
    """S' for the sub-layer T = tanh, for the reference to be held against."""

    def call(self, streams):
        connection = super().call(streams)
        return connection.add(tf.tanh(connection.layer_input))


def states(streams):
    """The state [n, d] of each place."""
    for place in np.ndindex(*streams[0].shape[:-1]):
        yield place, np.array([stream[place] for stream in streams])


def connection_reference(w, streams):
    read = np.zeros_like(streams[0])
    mixed = [np.zeros_like(stream) for stream in streams]
    weights = [np.zeros([*stream.shape[:-1], 1]) for stream in streams]
    for place, state in states(streams):
        _, a_r, b = coefficients(w, state)
        read[place] = layer_input(w, state)
        for j, row in enumerate(a_r.T @ state):
            mixed[j][place] = row
            weights[j][place] = b[0, j]
    return read, mixed, weights


def update_reference(w, streams):
    result = [np.zeros_like(stream) for stream in streams]
    for place, state in states(streams):
        for j, row in enumerate(update(w, state, np.tanh(layer_input(w, state)))):
            result[j][place] = row
    return result


def inputs(streams, *shape):
    return tuple(normal(*shape, 4, seed=s) for s in range(streams))


def case(streams=2, sub_layer=0, shape=(2, 3)):
    return Case(
        lambda **kwargs: HyperConnection(streams, sub_layer, **kwargs),
        (inputs(streams, *shape),),
        connection_reference,
    )


def built(streams=2, sub_layer=0, width=4, **kwargs):
    layer = HyperConnection(streams, sub_layer, **kwargs)
    layer.build([tf.TensorShape([None, width])] * streams)
    return layer


@pytest.mark.parametrize("check", harness.CHECKS)
def test_layer(check, tmp_path):
    check(case(), tmp_path)


def test_one_stream_lives_in_a_keras_model(tmp_path):
    harness.lives_in_a_keras_model(case(1), tmp_path)


@pytest.mark.parametrize(("streams", "shape"), [(1, (3,)), (2, (2, 2, 2)), (3, (2, 3))])
def test_updated_streams_equal_the_reference(streams, shape):
    if streams > 1:
        harness.equals_reference(case(streams, 1, shape))
    harness.equals_reference(
        Case(
            lambda **kwargs: Residual(streams, 1, **kwargs),
            (inputs(streams, *shape),),
            update_reference,
        )
    )


@pytest.mark.parametrize("width", [2, 16, 64])
def test_two_streams_cost_four_widths_and_ten_parameters(width):
    assert built(width=width).count_params() == 4 * width + 10


@pytest.mark.parametrize(
    ("streams", "sub_layer", "read"),
    [(2, 0, [1, 0]), (2, 1, [0, 1]), (2, 2, [1, 0]), (3, 1, [0, 1, 0]), (3, 5, [0, 0, 1])],
)
def test_first_values_are_those_of_equation_8(streams, sub_layer, read):
    layer = built(streams, sub_layer)
    np.testing.assert_array_equal(layer.read, read)
    np.testing.assert_array_equal(layer.mix, np.eye(streams))
    np.testing.assert_array_equal(layer.write, np.ones(streams))
    for kernel in (layer.read_kernel, layer.mix_kernel, layer.write_kernel):
        np.testing.assert_array_equal(kernel, np.zeros(kernel.shape))
    np.testing.assert_allclose([layer.read_scale, layer.write_scale], [0.01, 0.01])


@pytest.mark.parametrize("sub_layer", [0, 1])
def test_at_first_it_is_a_plain_residual_exactly(sub_layer):
    layer = built(2, sub_layer)
    x = tf.constant(normal(3, 5, 4), tf.float32)
    connection = layer((x, x))
    np.testing.assert_array_equal(connection.layer_input, x)
    y = tf.sin(x)
    for stream in connection.add(y):
        np.testing.assert_array_equal(stream, x + y)


def test_a_wrong_number_of_streams_is_named():
    x = tf.zeros([3, 4])
    with pytest.raises(ValueError, match="got 3 streams; it was made for 2"):
        built(2)((x, x, x))


def test_zero_tokens_have_finite_gradients():
    layer = harness.made(case(), "float32", jitter=0.4)
    by_inputs, by_weights = harness.gradients(
        layer,
        ((tf.zeros([1, 3, 4]),) * 2,),
        lambda parts: tf.add_n([tf.reduce_sum(p) for p in parts]),
    )
    assert all(np.isfinite(part).all() for part in (*by_inputs, *by_weights))


def test_every_option_is_kept():
    harness.keeps_options(HyperConnection, streams=3, sub_layer=1, scale=0.1)
