"""Counts the operations of matrix products while a model runs eagerly."""

import contextlib
import math
from collections.abc import Iterator
from contextvars import ContextVar

import tensorflow as tf

_counted: ContextVar[list[int] | None] = ContextVar("counted", default=None)


@contextlib.contextmanager
def count_flops() -> Iterator[list[int]]:
    """Yields the operations of each product in the block; their sum is the total.

    A multiply and its add are two operations. Only active experts count, and only matrix products:
    norms, activations, softmax and sums are left out. Sizes must be known, so call the model eagerly
    on a real batch; padding counts like any other token.
    """
    counted: list[int] = []
    token = _counted.set(counted)
    try:
        yield counted
    finally:
        _counted.reset(token)


@contextlib.contextmanager
def not_counted() -> Iterator[None]:
    """Products in the block are not counted: whoever opens it records them as a whole."""
    token = _counted.set(None)
    try:
        yield
    finally:
        _counted.reset(token)


def record_product(*sizes: int | tf.TensorShape | None) -> None:
    """Counts a product whose number of multiply-adds is the product of ``sizes``.

    Args:
      sizes: axes, or whole shapes. A negative size takes back what is counted elsewhere.

    Raises:
      ValueError: while operations are counted, for a size that is unknown.
    """
    counted = _counted.get()
    if counted is None:
        return
    axes = [n for s in sizes for n in (s if isinstance(s, tf.TensorShape) else (s,))]
    if None in axes:
        raise ValueError("operations are counted with unknown sizes; call the model eagerly")
    counted.append(2 * math.prod(axes))


def record_idle_experts(gates: tf.Tensor, columns: int) -> None:
    """Takes back the products of experts whose gate is zero, of a mixture that is computed densely.

    Args:
      gates: [..., E].
      columns: elements of one expert's kernel.
    """
    if _counted.get() is not None:
        active = int(tf.reduce_max(tf.math.count_nonzero(gates, axis=-1)))
        record_product(gates.shape[:-1], active - gates.shape[-1], columns)
