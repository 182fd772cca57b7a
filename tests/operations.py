"""What runs when a function is called eagerly: every operation's output sizes and multiplications."""

import contextlib
import math
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import op_callbacks


@dataclass
class Operations:
    """What was seen.

    Attributes:
      flops: of matrix products, a multiply and its add being two.
      elements: most elements of an output, by operation type.
      types: of outputs, by operation type.
    """

    flops: int = 0
    elements: dict[str, int] = field(default_factory=dict)
    types: dict[str, set[tf.DType]] = field(default_factory=dict)


@contextlib.contextmanager
def watched():
    """Yields the :class:`Operations` that run eagerly inside the block."""
    seen = Operations()

    def note(op_type, inputs, attrs, outputs, op_name=None, graph=None):
        for output in outputs:
            if hasattr(output, "shape") and output.shape.is_fully_defined():
                size = int(np.prod(output.shape.as_list(), dtype=np.int64))
                seen.elements[op_type] = max(seen.elements.get(op_type, 0), size)
        seen.flops += _flops(op_type, inputs, attrs, outputs)
        seen.types.setdefault(op_type, set()).update(output.dtype for output in outputs)

    op_callbacks.add_op_callback(note)
    try:
        yield seen
    finally:
        op_callbacks.remove_op_callback(note)


def _flops(op_type, inputs, attrs, outputs) -> int:
    named = dict(zip(attrs[::2], attrs[1::2], strict=True)) if attrs else {}
    if op_type in ("MatMul", "BatchMatMulV2"):
        turned = named.get("transpose_a", named.get("adj_x", False))
        inner = inputs[0].shape[-2 if turned else -1]
        return 2 * inner * math.prod(outputs[0].shape)
    if op_type == "Einsum":
        equation = named["equation"]
        equation = equation.decode() if isinstance(equation, bytes) else equation
        left, right = equation.split("->")[0].split(",")
        sizes = dict(zip(left + right, [*inputs[0].shape, *inputs[1].shape], strict=True))
        return 2 * math.prod(sizes.values())
    return 0
