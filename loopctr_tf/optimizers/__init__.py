"""Optimizers for click models: AdamW for dense weights, a rule of their own for embedding tables."""

from loopctr_tf.optimizers.catch_up import CatchUp
from loopctr_tf.optimizers.choice import adamw
from loopctr_tf.optimizers.dense import UNDECAYED, AdamW
from loopctr_tf.optimizers.lazy import LazyAdamW
from loopctr_tf.optimizers.rowwise import RowwiseAdagrad

__all__ = ["UNDECAYED", "AdamW", "CatchUp", "LazyAdamW", "RowwiseAdagrad", "adamw"]
