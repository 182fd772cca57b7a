"""DCN-V2: explicit crosses of all features, and a deep network behind or beside them."""

from typing import Literal

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.errors import UsageError
from loopctr_tf.layers import MLP, CrossLayer
from loopctr_tf.layers.common import build
from loopctr_tf.models.base import RankingModel, Scores
from loopctr_tf.models.encoder import TokenGroups, TokenWidths
from loopctr_tf.models.settings import ModelConfig, Positive, Widths
from loopctr_tf.models.vectors import FeatureVectors


class DCNv2Config(ModelConfig):
    """The architecture of DCN-V2."""

    cross_layers: Positive = 2
    """Cross layers; l of them reach interactions of l + 1 features."""
    projection_dim: Positive | None = None
    """Rank r of the cross layers' kernels, less than half of their width; null means full rank."""
    structure: Literal["stacked", "parallel"] = "stacked"
    """Whether the deep network reads the crosses (stacked) or the features, beside them (parallel)."""
    tower_units: Widths = (128, 64)
    """Widths of the deep network; without any, stacked is the cross network alone."""


@keras.utils.register_keras_serializable("loopctr_tf")
class DCNv2(RankingModel):
    """x_{l+1} = x_0 * (W_l x_l + b_l) + x_l (eq. 1), with W_l = U_l V_l for a low rank (eq. 2).

    x_0 [D] is one vector of width d for each of G features, concatenated. The logit is linear in the
    output of the deep network on the last x (stacked), or in the last x and the output of the deep
    network on x_0 (parallel; figure 1).

    Ours: every feature is projected to width d, numbers too, where the paper concatenates embeddings of
    different widths and raw numbers; a sequence is the mean of its events, without order. Left out: the
    mixture of low-rank experts (DCN-Mix).

    Parameters beside the tables, with D = G d: (d_g + 1) d for each feature and sequence; D^2 + D, or
    2 D r + D, for each cross layer; (D + 1) t_1 + ... + (t_before_last + 1) t_last for the deep network;
    t_last + 1 for the logit, D more in parallel.

    Source: Wang et al., DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale
    Learning to Rank Systems.
    """

    config_class = DCNv2Config

    def build_layers(self, widths: TokenWidths) -> None:
        """Creates the vectors' projections, the cross layers, the deep network and the logit."""
        config, policy = self.config, {"dtype": self.dtype_policy}
        width, rank = len(widths.groups) * config.dim, config.projection_dim
        parallel = self._parallel
        if rank is not None and 2 * rank >= width:
            raise UsageError(
                f"projection_dim is {rank}, which saves nothing; give less than half of the width "
                f"{width} of all features, or null for full rank"
            )
        if parallel and not config.tower_units:
            raise UsageError(
                "tower_units is empty and structure is 'parallel'; give tower_units, or take 'stacked' "
                "for the cross network alone"
            )
        self.vectors = FeatureVectors(config.dim, name="vectors", **policy)
        build(self.vectors, widths)
        self.crosses = [
            CrossLayer(rank, name=f"cross_{i}", **policy) for i in range(config.cross_layers)
        ]
        self.deep = MLP(
            config.tower_units, activate_last=True, dropout=config.dropout, name="deep", **policy
        )
        for layer in (*self.crosses, self.deep):
            build(layer, tf.TensorShape([None, width]))
        self.logit = MLP((1,), name="logit", **policy)
        last = (config.tower_units or (width,))[-1] + (width if parallel else 0)
        build(self.logit, tf.TensorShape([None, last]))

    @property
    def _parallel(self) -> bool:
        return self.config.structure == "parallel"

    def forward(self, tokens: TokenGroups, training, heads) -> Scores:
        """Logits [B, 1]."""
        vectors = self.vectors(tokens)
        start = x = tf.reshape(vectors, [-1, vectors.shape[1] * vectors.shape[2]])  # [B, D]
        for cross in self.crosses:
            x = cross(start, x)
        if self._parallel:
            x = tf.concat([x, self.deep(start, training=training)], axis=-1)
        else:
            x = self.deep(x, training=training)
        return Scores(self.logit(x))
