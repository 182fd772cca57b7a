"""Weights that do not change: what layers compute of them once, and what they then leave out."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import NamedTuple

import tensorflow as tf

from loopctr_tf.errors import UsageError


class _Frozen(NamedTuple):
    """Variables that replace weights, by name, and the type in which weights are stored."""

    variables: dict[str, tf.Variable]
    weights: tf.DType | None


_FROZEN: ContextVar[_Frozen | None] = ContextVar("frozen", default=None)


@contextlib.contextmanager
def frozen_weights(weights: str = "float32") -> Iterator[None]:
    """Graphs traced inside treat weights as constants.

    Values that depend only on weights are computed once and held in variables, which all graphs traced
    inside share. What only training needs, the routers' statistics, is zero.

    Args:
      weights: type in which embedding tables and the kernels of projections, attention, experts and
        tower are stored: "float32", or at half the size "float16" or "bfloat16". They are cast where
        they are used (of a table, only the rows looked up).
    """
    token = _FROZEN.set(_Frozen({}, None if weights == "float32" else tf.as_dtype(weights)))
    try:
        yield
    finally:
        _FROZEN.reset(token)


def weights_are_frozen() -> bool:
    """Whether graphs being traced treat weights as constants."""
    return _FROZEN.get() is not None


def as_stored(weight):
    """``weight``; if weights are stored in half precision, the variable that holds it so."""
    frozen = _FROZEN.get()
    if frozen is None or frozen.weights is None or not isinstance(weight, tf.Variable):
        return weight
    layer, _, name = weight.name.partition(":")[0].rpartition("/")

    def halved():
        half = tf.cast(weight, frozen.weights)
        if not tf.reduce_all(tf.math.is_finite(half) | ~tf.math.is_finite(weight)):
            raise UsageError(
                f"{weight.name} holds {float(tf.reduce_max(tf.abs(weight))):g}, which is beyond "
                f"{frozen.weights.name}; export its weights as 'bfloat16' or 'float32'"
            )
        return half

    return _variable(frozen, layer, name, halved)


def folded(weight: tf.Variable, name: str, make: Callable[[], tf.Tensor]) -> tf.Tensor:
    """``make()``, which depends only on weights; while they are frozen, from a variable.

    Args:
      weight: one of these weights; the variable is named ``name``, in the same layer.
      name: of the variable.
      make: called without arguments.
    """
    frozen = _FROZEN.get()
    if frozen is None:
        return make()
    return _variable(frozen, weight.name.rpartition("/")[0], name, make).value()


def _variable(frozen: _Frozen, layer: str, name: str, make: Callable[[], tf.Tensor]) -> tf.Variable:
    place = f"{layer}/{name}"
    if place not in frozen.variables:
        with tf.init_scope(), tf.name_scope(f"{layer}/"):
            frozen.variables[place] = tf.Variable(make(), trainable=False, name=name)
    return frozen.variables[place]
