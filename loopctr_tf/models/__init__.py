"""Complete models."""

from loopctr_tf.models.loopctr.loopctr import LoopCTR
from loopctr_tf.models.loopctr.stackctr import StackCTR

__all__ = ["LoopCTR", "StackCTR"]
