"""DLRM: pooled features, dot products of every pair, a tower."""

import tensorflow as tf
import tf_keras as keras
from tensorflow_recommenders.layers.feature_interaction import DotInteraction

from loopctr_tf.layers import MLP, GroupProjection, masked_mean
from loopctr_tf.layers.common import build
from loopctr_tf.layers.counting import record_product
from loopctr_tf.models.base import RankingModel, Scores
from loopctr_tf.models.encoder import TokenGroups, TokenWidths
from loopctr_tf.models.settings import ModelConfig, Widths


class DLRMConfig(ModelConfig):
    """The architecture of DLRM."""

    bottom_units: Widths = (128,)
    """Hidden widths of the network over numeric features; its output has width dim."""
    tower_units: Widths = (128, 64)
    """Hidden widths of the tower over the interactions."""


@keras.utils.register_keras_serializable("loopctr_tf")
class DLRM(RankingModel):
    """logit = MLP([x; <e_i, e_j> for i < j]), with x = MLP(numbers) one of the vectors e (section 2).

    Each categorical feature is a vector of width d: its embedding, projected where its table has
    another width. A sequence is the mean of its events, without order (ours: DLRM sums bags of ids).
    Without numeric features there is no x.

    Parameters beside the tables, for F vectors of width d, m numbers, bottom widths b, tower widths t:
    (m + 1) b_1 + ... + (b_last + 1) d for the bottom; (d_g + 1) d for each projected group; with
    s = F (F - 1) / 2 + d, (s + 1) t_1 + ... + (t_last + 1) for the tower.

    Source: Naumov et al., Deep Learning Recommendation Model for Personalization and Recommendation
    Systems.
    """

    config_class = DLRMConfig

    def build_layers(self, widths: TokenWidths) -> None:
        """Creates the bottom network, the projections and the tower."""
        config, policy = self.config, {"dtype": self.dtype_policy}
        self._numeric = widths.numeric
        groups = [
            width
            for width, numeric in zip(
                (*widths.request, *widths.candidate), widths.numeric, strict=True
            )
            if not numeric
        ]
        groups += widths.sequences
        self._projected = [width != config.dim for width in groups]
        self.projection = GroupProjection(config.dim, name="projection", **policy)
        projected = [[None, w] for w, p in zip(groups, self._projected, strict=True) if p]
        if projected:
            build(self.projection, projected)
        numbers, vectors = sum(widths.numeric), len(groups)
        self.bottom = None
        if numbers:
            self.bottom = MLP(
                (*config.bottom_units, config.dim), activate_last=True, name="bottom", **policy
            )
            build(self.bottom, tf.TensorShape([None, numbers]))
            vectors += 1
        self.interaction = DotInteraction(name="interaction", **policy)
        self.tower = MLP((*config.tower_units, 1), dropout=config.dropout, name="tower", **policy)
        pairs = vectors * (vectors - 1) // 2
        build(self.tower, tf.TensorShape([None, pairs + (config.dim if numbers else 0)]))

    def forward(self, tokens: TokenGroups, training, heads) -> Scores:
        """Logits [B, 1]."""
        groups, numbers = [], []
        for token, numeric in zip((*tokens.request, *tokens.candidate), self._numeric, strict=True):
            (numbers if numeric else groups).append(token)
        groups += [masked_mean(sequence.tokens, sequence.mask) for sequence in tokens.sequences]
        vectors, place = [], 0
        for group, projected in zip(groups, self._projected, strict=True):
            vectors.append(self.projection.project(group, place) if projected else group)
            place += projected
        bottom = []
        if numbers:
            bottom = [self.bottom(tf.concat(numbers, axis=-1))]
        vectors = [*bottom, *vectors]
        record_product(vectors[0].shape, len(vectors) ** 2)
        interactions = self.interaction(vectors)
        return Scores(self.tower(tf.concat([*bottom, interactions], axis=-1), training=training))
