"""What layers hold ready, and what they leave out, while graphs for serving are made."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import NamedTuple

import tensorflow as tf

from loopctr_tf.errors import UsageError


class _Frozen(NamedTuple):
    """Variables that stand in for weights, by name, and the type in which weights are stored."""

    variables: dict[str, tf.Variable]
    weights: tf.DType | None


_FROZEN: ContextVar[_Frozen | None] = ContextVar("frozen", default=None)


@contextlib.contextmanager
def frozen_weights(weights: str = "float32") -> Iterator[None]:
    """Graphs made inside compute nothing but scores, and nothing of weights alone.

    What is made of weights alone is computed once and held in variables, which all graphs made inside
    share; what training alone wants, the routers' statistics, is zero.

    Args:
      weights: type in which embedding tables and the kernels of projections, attention, experts and
        tower are stored: "float32", or "float16" or "bfloat16", half the bytes. They are cast where they
        are read; of a table, the rows asked for.
    """
    token = _FROZEN.set(_Frozen({}, None if weights == "float32" else tf.as_dtype(weights)))
    try:
        yield
    finally:
        _FROZEN.reset(token)


def weights_are_frozen() -> bool:
    """Whether a graph for serving is being made."""
    return _FROZEN.get() is not None


def as_stored(weight):
    """``weight``; where an export stores weights in half precision, the variable that holds it so."""
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
    """What ``make`` makes of weights alone, or the variable that holds it.

    Args:
      weight: one of these weights; the variable is called ``name`` and stands beside it.
      name: of what is made.
      make: takes nothing.
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
