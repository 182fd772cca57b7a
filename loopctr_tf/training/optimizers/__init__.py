"""Optimizers for click models: AdamW for dense weights, a separate rule for embedding tables."""

from loopctr_tf.training.optimizers.catch_up import CatchUp
from loopctr_tf.training.optimizers.choice import adamw
from loopctr_tf.training.optimizers.dense import UNDECAYED, AdamW
from loopctr_tf.training.optimizers.lazy import LazyAdamW
from loopctr_tf.training.optimizers.rowwise import RowwiseAdagrad

__all__ = ["UNDECAYED", "AdamW", "CatchUp", "LazyAdamW", "RowwiseAdagrad", "adamw"]
