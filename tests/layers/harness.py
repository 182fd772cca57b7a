"""What every layer must bear: each check takes a Case and a folder to write to."""

import inspect
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tf_keras.src import backend

from tests.operations import watched


@dataclass(frozen=True)
class Case:
    """A layer with the arguments of one call.

    Attributes:
      make: makes the layer; takes ``name`` and ``dtype``.
      inputs: positional arguments of a call, NumPy arrays in any structure; floats are float64.
      reference: takes the layer's weights (float64, by their path below the layer) and ``inputs``,
        gives the outputs in any structure, NaN where an output has no meaning.
    """

    make: Callable[..., keras.layers.Layer]
    inputs: tuple
    reference: Callable | None = None


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal numbers, always the same ones."""
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def mask_of(lengths: Sequence[int], tokens: int) -> np.ndarray:
    """[B, T], True at the first ``lengths`` tokens."""
    return np.arange(tokens) < np.asarray(lengths)[:, None]


def tensors(inputs, dtype="float64"):
    """The same structure as tensors, floats as ``dtype``."""
    return tf.nest.map_structure(lambda a: a if a is None else _tensor(a, dtype), inputs)


def made(case: Case, dtype="float64", jitter: float = 0.0) -> keras.layers.Layer:
    """The layer, built by a call; ``jitter`` moves its weights off their special first values."""
    # Where Keras takes the seeds of its initialisers from; its own function empties kernel caches.
    backend._SEED_GENERATOR.generator = random.Random(1)
    layer = case.make(name="layer", dtype=dtype)
    layer(*tensors(case.inputs, keras.mixed_precision.Policy(dtype).variable_dtype))
    if jitter:
        move_weights(layer, jitter)
    return layer


def move_weights(layer: keras.layers.Layer, scale: float = 0.4, seed: int = 7) -> None:
    """Adds normal noise to every weight."""
    rng = np.random.default_rng(seed)
    layer.set_weights([w + scale * rng.normal(size=w.shape) for w in layer.get_weights()])


def weights_of(layer: keras.layers.Layer) -> dict[str, np.ndarray]:
    """Weights in float64 by their path below the layer, e.g. "attention/router/kernel"."""
    paths = [v.name.partition(layer.name + "/")[2].removesuffix(":0") for v in layer.weights]
    assert all(paths), [v.name for v in layer.weights]
    assert len(set(paths)) == len(paths), paths
    return {
        path: v.numpy().astype(np.float64) for path, v in zip(paths, layer.weights, strict=True)
    }


def copy_weights(source: keras.layers.Layer, target: keras.layers.Layer) -> None:
    """Weights of the same path; a target with fewer experts gets the first ones."""
    values = weights_of(source)
    for path, weight in zip(weights_of(target), target.weights, strict=True):
        value = values[path]
        if "router" in path:
            value = value[:, : weight.shape[1]]
        weight.assign(value[tuple(slice(size) for size in weight.shape)])


def gradients(layer, inputs, loss: Callable):
    """Gradients of loss(flat outputs) by the flat float inputs and the weights, zero if unconnected."""
    floats = [x for x in tf.nest.flatten(inputs) if x is not None and x.dtype.is_floating]
    with tf.GradientTape() as tape:
        tape.watch(floats)
        value = loss(tf.nest.flatten(layer(*inputs)))
    slopes = tape.gradient(
        value,
        (floats, layer.trainable_variables),
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    return tf.nest.map_structure(tf.convert_to_tensor, slopes)


# The slow reference.


def equals_reference(case: Case, folder=None) -> None:
    """Values and gradients are the reference's, in float64 and, to 1e-5, in float32.

    Gradients are held to finite differences of the reference along a random direction of every input
    and every weight, those of float32 to those of float64.
    """
    exact, single = made(case, "float64", jitter=0.4), made(case, "float32")
    single.set_weights(exact.get_weights())
    exact.set_weights(single.get_weights())
    # All three see the same rounded numbers.
    inputs = tf.nest.map_structure(
        lambda a: a if a is None or a.dtype.kind != "f" else np.float64(np.float32(a)), case.inputs
    )
    weights = weights_of(exact)
    expected = tf.nest.flatten(case.reference(weights, *inputs))
    said = [~np.isnan(part) for part in expected]
    for layer, tolerance in ((exact, 1e-10), (single, 1e-5)):
        outputs = tf.nest.flatten(layer(*tensors(inputs, layer.dtype)))
        for part, reference, where in zip(outputs, expected, said, strict=True):
            assert part.shape == reference.shape
            assert part.dtype == layer.dtype
            np.testing.assert_allclose(
                part.numpy()[where], reference[where], rtol=tolerance, atol=tolerance
            )

    rng = np.random.default_rng(3)
    pulls = [np.where(where, rng.normal(size=where.shape), 0.0) for where in said]

    def loss(outputs):
        return tf.add_n(
            [tf.reduce_sum(part * pull) for part, pull in zip(outputs, pulls, strict=True)]
        )

    def reference_loss(weights, inputs):
        outputs = tf.nest.flatten(case.reference(weights, *inputs))
        return sum(np.nansum(pull * part) for pull, part in zip(pulls, outputs, strict=True))

    by_inputs, by_weights = gradients(exact, tensors(inputs), loss)
    flat = tf.nest.flatten(inputs)
    places = [i for i, x in enumerate(flat) if x is not None and x.dtype == np.float64]
    for place, gradient in zip(places, by_inputs, strict=True):

        def moved_input(step, place=place):
            parts = [x + step if i == place else x for i, x in enumerate(flat)]
            return reference_loss(weights, tf.nest.pack_sequence_as(inputs, parts))

        _compare_slopes(f"input {place}", moved_input, gradient, rng)
    for path, gradient in zip(weights, by_weights, strict=True):

        def moved_weight(step, path=path):
            return reference_loss({**weights, path: weights[path] + step}, inputs)

        _compare_slopes(path, moved_weight, gradient, rng)

    in_single = tf.nest.flatten(gradients(single, tensors(inputs, "float32"), loss))
    for gradient, reference in zip(in_single, [*by_inputs, *by_weights], strict=True):
        reference = reference.numpy()
        scale = max(1.0, np.abs(reference).max())
        np.testing.assert_allclose(gradient, reference, rtol=0, atol=1e-5 * scale)


def _compare_slopes(name, loss, gradient, rng, step=1e-5):
    gradient = gradient.numpy()
    direction = rng.normal(size=gradient.shape)
    slope = (loss(step * direction) - loss(-step * direction)) / (2 * step)
    scale = max(1.0, np.linalg.norm(gradient) * np.linalg.norm(direction))
    np.testing.assert_allclose(
        np.sum(gradient * direction), slope, rtol=0, atol=1e-7 * scale, err_msg=name
    )


# Life in Keras.


def lives_in_a_keras_model(case: Case, folder) -> None:
    """With unknown batch and token axes it gives what it gives eagerly, also when saved and loaded.

    A file has the layer as ``serialize`` gives it, and its weights.
    """
    layer = made(case, "float32", jitter=0.4)
    inputs = tensors(case.inputs, "float32")
    outputs = tf.nest.flatten(layer(*inputs))
    arguments = tf.nest.map_structure(
        lambda a: a if a is None else keras.Input(_open_shape(a)[1:], dtype=_dtype(a, "float32")),
        case.inputs,
    )
    flat_arguments = [x for x in tf.nest.flatten(arguments) if x is not None]
    model = keras.Model(flat_arguments, tf.nest.flatten(layer(*arguments)))
    for symbolic, eager in zip(model.outputs, outputs, strict=True):
        assert symbolic.shape.rank == eager.shape.rank
        assert symbolic.shape.is_compatible_with(eager.shape)
        assert symbolic.dtype == eager.dtype
    model.save(folder / "model.keras")
    loaded = keras.models.load_model(folder / "model.keras")
    assert type(loaded.get_layer("layer")) is type(layer)
    assert loaded.get_layer("layer").get_config() == layer.get_config()
    flat_inputs = [x for x in tf.nest.flatten(inputs) if x is not None]
    for kept in (model, loaded):
        _assert_equal(tf.nest.flatten(kept(flat_inputs)), outputs)


def learns(case: Case, folder=None) -> None:
    """Every weight has a finite gradient, and a step lowers a loss."""
    layer = made(case, "float32")
    inputs = tensors(case.inputs, "float32")
    targets = [normal(*part.shape, seed=5) for part in tf.nest.flatten(layer(*inputs))]
    optimizer = keras.optimizers.Adam(0.02)
    losses = []
    for _ in range(2):
        with tf.GradientTape() as tape:
            outputs = tf.nest.flatten(layer(*inputs))
            loss = tf.add_n(
                [
                    tf.reduce_mean(tf.square(part - tf.constant(target, part.dtype)))
                    for part, target in zip(outputs, targets, strict=True)
                ]
            )
        by_weights = tape.gradient(loss, layer.trainable_variables)
        for variable, gradient in zip(layer.trainable_variables, by_weights, strict=True):
            assert gradient is not None, variable.name
            assert np.isfinite(tf.convert_to_tensor(gradient).numpy()).all(), variable.name
        optimizer.apply_gradients(zip(by_weights, layer.trainable_variables, strict=True))
        losses.append(float(loss))
    assert losses[-1] < losses[0] or not layer.trainable_variables


def survives_config(case: Case, folder=None) -> None:
    """What a file has of a layer, for those that no functional Keras model holds: ``deserialize`` of
    ``serialize`` has the same configuration and, given the weights, outputs.
    """
    layer = made(case, "float32", jitter=0.4)
    copy = keras.layers.deserialize(keras.layers.serialize(layer))
    assert type(copy) is type(layer)
    assert copy.get_config() == layer.get_config()
    inputs = tensors(case.inputs, "float32")
    copy(*inputs)
    copy.set_weights(layer.get_weights())
    _assert_equal(tf.nest.flatten(copy(*inputs)), tf.nest.flatten(layer(*inputs)))


def keeps_options(kind: type[keras.layers.Layer], **options) -> None:
    """All arguments of the constructor, none at its default, survive serialisation."""
    bases = kind.__mro__[: kind.__mro__.index(keras.layers.Layer)]
    parameters = {}
    for base in bases:
        parameters |= inspect.signature(base).parameters
    assert set(parameters) - {"kwargs"} == set(options)
    assert all(parameters[name].default != value for name, value in options.items())
    copy = keras.layers.deserialize(keras.layers.serialize(kind(**options)))
    config = copy.get_config()
    assert {name: config[name] for name in options} == options


def bears_mixed_precision(case: Case, folder=None) -> None:
    """bfloat16 computation with float32 weights stays finite and near float32."""
    layer = made(case, "float32")
    half = made(case, "mixed_bfloat16")
    half.set_weights(layer.get_weights())
    assert all(weight.dtype == tf.float32 for weight in half.weights)
    inputs = tensors(case.inputs, "float32")
    with watched() as seen:
        outputs = tf.nest.flatten(half(*inputs))
    products = seen.types.get("MatMul", set())
    assert tf.bfloat16 in products | {part.dtype for part in outputs}
    for part, exact in zip(outputs, tf.nest.flatten(layer(*inputs)), strict=True):
        part = tf.cast(part, tf.float32).numpy()
        assert np.isfinite(part).all()
        np.testing.assert_allclose(part, exact.numpy(), rtol=0.05, atol=0.05)


def multiplies_equal_ranks(case: Case, folder=None) -> None:
    """No product of matrices, forward or backward, has operands of different rank."""
    layer = made(case, "float32")
    specs = tf.nest.map_structure(
        lambda a: a if a is None else tf.TensorSpec(_open_shape(a), _dtype(a, "float32")),
        case.inputs,
    )

    @tf.function(autograph=False)
    def forward_and_backward(*inputs):
        return gradients(
            layer,
            inputs,
            lambda outputs: tf.add_n([tf.reduce_sum(tf.square(part)) for part in outputs]),
        )

    assert unequal_products(forward_and_backward.get_concrete_function(*specs).graph) == []


def unequal_products(graph: tf.Graph) -> list[tf.Operation]:
    """Batched products of matrices whose operands differ in rank, or are of unknown rank."""
    operations = graph.get_operations()
    # Nothing may hide in a function that is called.
    assert not [op for op in operations if "Call" in op.type or "While" in op.type]
    return [
        op
        for op in operations
        if "MatMul" in op.type
        and (op.inputs[0].shape.rank is None or op.inputs[0].shape.rank != op.inputs[1].shape.rank)
    ]


IN_KERAS = (
    lives_in_a_keras_model,
    learns,
    bears_mixed_precision,
    multiplies_equal_ranks,
)
CHECKS = (equals_reference, *IN_KERAS)


def _dtype(array, dtype):
    return tf.as_dtype(dtype) if array.dtype.kind == "f" else tf.as_dtype(array.dtype)


def _tensor(array, dtype):
    return tf.constant(array, _dtype(array, dtype))


def _open_shape(array) -> list[int | None]:
    """The shape with batch and tokens unknown; widths stay."""
    shape = [None, *array.shape[1:]]
    if array.ndim > 2 or (array.ndim == 2 and array.dtype == bool):
        shape[1] = None
    return shape


def _assert_equal(actual, expected):
    for part, reference in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(part, reference)
