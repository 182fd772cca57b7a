"""DHEN: layers that each join several kinds of interactions of the features' vectors, then a tower."""

from typing import Annotated, Literal

import tensorflow as tf
import tf_keras as keras
from pydantic import Field

from loopctr_tf.errors import UsageError
from loopctr_tf.layers import (
    CrossProducts,
    DHENLayer,
    DotProducts,
    LinearCompression,
    VectorAttention,
    VectorMLP,
)
from loopctr_tf.layers.common import build
from loopctr_tf.models.encoder import TokenWidths
from loopctr_tf.models.settings import ModelConfig, Positive, Widths
from loopctr_tf.models.vectors import VectorStack

Module = Literal["dot", "attention", "cross", "linear", "mlp"]


class DHENConfig(ModelConfig):
    """The architecture of DHEN."""

    layers: Positive = 2
    """Layers of the stack."""
    modules: Annotated[tuple[Module, ...], Field(strict=False, min_length=1)] = (
        "dot",
        "attention",
        "cross",
        "linear",
    )
    """Interaction modules of every layer: dot (an MLP on the dot products of all pairs), attention (a
    Transformer encoder layer), cross (a low-rank cross layer of DCN V2), linear, and mlp (on all
    vectors, concatenated). One may be given twice."""
    ensemble: Literal["sum", "concat"] = "sum"
    """How a layer joins the outputs of its modules."""
    outputs: Positive = 16
    """Vectors that each module gives."""
    heads: Positive = 4
    """Attention heads; must divide dim where modules have attention."""
    ffn_units: Positive = 128
    """Hidden width of the feed-forward network behind the attention."""
    cross_rank: Positive = 32
    """Rank of the cross module's matrix."""
    mlp_units: Widths = (128,)
    """Hidden widths of the networks of dot and mlp."""
    tower_units: Widths = (128, 64)
    """Hidden widths of the tower over the last layer's vectors."""


@keras.utils.register_keras_serializable("loopctr_tf")
class DHEN(VectorStack):
    """logit = MLP(flatten(X_N)), X_{n+1} = Norm(Ensemble_i(Interaction_i(X_n)) + ShortCut(X_n)) (eq. 1).

    Every module maps n vectors to m: dot and mlp by the last layer of an MLP, reshaped; attention, cross
    and linear by a matrix W_m [m, n]. The ensemble is their sum or their concatenation. ShortCut(X) is X
    where the number of vectors stays, else W X (eq. 2); Norm is a layer norm of each vector. X_0 has one
    vector of width d for each feature and, ours, for the mean of each sequence's events.

    Ours: dot products are divided by sqrt(d), so that they do not outweigh other modules in a sum; the
    cross is DCN V2's of low rank, more expressive than DCN's; attention has no biases; mlp is a module
    (the paper has convolution, left out as features have no order); all modules give the same number
    of vectors; numbers enter as vectors of their own and not as a second, dense input of every layer.

    Parameters beside the tables, with widths u of MLPs and t of the tower, for a layer that maps n
    vectors (the groups in the first layer) to M (m, or m for each module where they are concatenated):
    (d_g + 1) d for each group; in each layer 2 d, n M where n is not M, and of its modules

    - dot: (n (n - 1) / 2 + 1) u_1 + ... + (u_last + 1) m d;
    - mlp: (n d + 1) u_1 + ... + (u_last + 1) m d;
    - attention: 4 d^2 + 2 d f + f + 5 d + n m, with f = ffn_units;
    - cross: n d (2 r + 1) + n m, with r = cross_rank;
    - linear: n m;

    and (M d + 1) t_1 + ... + (t_last + 1) for the tower.

    Source: Zhang et al., DHEN: A Deep and Hierarchical Ensemble Network for Large-Scale Click-Through
    Rate Prediction.
    """

    config_class = DHENConfig

    def build_layers(self, widths: TokenWidths) -> None:
        """Creates the projections, the layers and the tower."""
        config, policy = self.config, {"dtype": self.dtype_policy}
        self._check_modules()
        vectors = self.build_vectors(widths)
        self.stack = []
        for i in range(config.layers):
            modules = [self._module(kind, j) for j, kind in enumerate(config.modules)]
            concat = config.ensemble == "concat"
            layer = DHENLayer(modules, concat, name=f"layer_{i}", **policy)
            build(layer, tf.TensorShape([None, vectors, config.dim]))
            vectors = layer.outputs
            self.stack.append(layer)
        self.build_tower(vectors)

    def _check_modules(self) -> None:
        config = self.config
        if "attention" in config.modules and config.dim % config.heads:
            raise UsageError(f"heads is {config.heads}; give a divisor of dim ({config.dim})")
        one = config.outputs == 1 and (config.ensemble == "sum" or len(config.modules) == 1)
        if "dot" in config.modules and config.layers > 1 and one:
            raise UsageError(
                "outputs is 1, and the modules have 'dot', which needs two vectors; give 2 or more"
            )

    def _module(self, kind: Module, place: int) -> keras.layers.Layer:
        config = self.config
        shared = {"name": f"{kind}_{place}", "dtype": self.dtype_policy}
        match kind:
            case "dot":
                return DotProducts(config.outputs, config.mlp_units, config.dropout, **shared)
            case "attention":
                return VectorAttention(
                    config.outputs, config.heads, config.ffn_units, config.dropout, **shared
                )
            case "cross":
                return CrossProducts(config.outputs, config.cross_rank, **shared)
            case "linear":
                return LinearCompression(config.outputs, **shared)
            case "mlp":
                return VectorMLP(config.outputs, config.mlp_units, config.dropout, **shared)
