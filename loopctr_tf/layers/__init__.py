"""The layers of LoopCTR, each of use in any Keras 2 model."""

from loopctr_tf.layers.activation_unit import ActivationUnit
from loopctr_tf.layers.attention import (
    KeysValues,
    MoEAttention,
    attend,
    masked_keys_values,
    project_queries,
)
from loopctr_tf.layers.common import RMSNorm
from loopctr_tf.layers.compression import SequenceCompression
from loopctr_tf.layers.cross import CrossLayer
from loopctr_tf.layers.dhen import DHENLayer
from loopctr_tf.layers.entry import EntryBlock
from loopctr_tf.layers.exit import ExitBlock
from loopctr_tf.layers.group_norm import GroupLayerNorm
from loopctr_tf.layers.hiformer import CompositeDense, HiformerLayer
from loopctr_tf.layers.hstu import HSTULayer, Timeline
from loopctr_tf.layers.hyper_connections import Connection, HyperConnection
from loopctr_tf.layers.interacting import InteractingLayer
from loopctr_tf.layers.interactions import (
    CrossProducts,
    DotProducts,
    LinearCompression,
    VectorAttention,
    VectorMLP,
)
from loopctr_tf.layers.interformer import CrossArch, InterFormerLayer, MaskNet
from loopctr_tf.layers.loop import LoopBlock
from loopctr_tf.layers.mixed_block import MixedBlock
from loopctr_tf.layers.mlp import MLP
from loopctr_tf.layers.moe import ExpertDense, MoEFeedForward, StackedExperts
from loopctr_tf.layers.multi_head import MultiHeadAttention, attend_by_head, rotate
from loopctr_tf.layers.newest_first import NewestFirst
from loopctr_tf.layers.pooling import masked_mean
from loopctr_tf.layers.projection import GroupProjection
from loopctr_tf.layers.recency import RecencyEmbedding
from loopctr_tf.layers.routing import Router, Routing, balance_loss
from loopctr_tf.layers.token_dense import TokenDense
from loopctr_tf.layers.wukong import WukongLayer

__all__ = [
    "MLP",
    "ActivationUnit",
    "CompositeDense",
    "Connection",
    "CrossArch",
    "CrossLayer",
    "CrossProducts",
    "DHENLayer",
    "DotProducts",
    "EntryBlock",
    "ExitBlock",
    "ExpertDense",
    "GroupLayerNorm",
    "GroupProjection",
    "HSTULayer",
    "HiformerLayer",
    "HyperConnection",
    "InterFormerLayer",
    "InteractingLayer",
    "KeysValues",
    "LinearCompression",
    "LoopBlock",
    "MaskNet",
    "MixedBlock",
    "MoEAttention",
    "MoEFeedForward",
    "MultiHeadAttention",
    "NewestFirst",
    "RMSNorm",
    "RecencyEmbedding",
    "Router",
    "Routing",
    "SequenceCompression",
    "StackedExperts",
    "Timeline",
    "TokenDense",
    "VectorAttention",
    "VectorMLP",
    "WukongLayer",
    "attend",
    "attend_by_head",
    "balance_loss",
    "masked_keys_values",
    "masked_mean",
    "project_queries",
    "rotate",
]
