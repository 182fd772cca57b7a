"""Hiformer: a transformer over features whose projections know all features."""

from typing import Literal

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.errors import UsageError
from loopctr_tf.layers import MLP, HiformerLayer
from loopctr_tf.layers.common import build
from loopctr_tf.models.base import RankingModel, Scores
from loopctr_tf.models.encoder import TokenGroups, TokenWidths
from loopctr_tf.models.settings import AttentionConfig, Positive, Widths
from loopctr_tf.models.vectors import FeatureVectors


class HiformerConfig(AttentionConfig):
    """The architecture of Hiformer."""

    layers: Positive = 2
    """Layers of the stack."""
    ffn_dim: Positive = 128
    """Inner width f of each feature's feed-forward network."""
    projection: Literal["pair", "composite"] = "composite"
    """Where queries, keys and values come from: pair, each feature from itself with weights of its own
    (heterogeneous attention); composite, each from all features together (Hiformer)."""
    rank: Positive | None = None
    """Rank r of composite projections; null means full matrices, of (features x dim)^2 weights each."""
    tower_units: Widths = (64,)
    """Hidden widths of the tower on the task token."""


@keras.utils.register_keras_serializable("loopctr_tf")
class Hiformer(RankingModel):
    """A learned task token and one token for each feature through a stack of heterogeneous layers.

    A feature is its embedding, projected to width d; a sequence is the mean of its events, without
    order. The layers are :class:`~loopctr_tf.layers.HiformerLayer`. The task token of the last one,
    normalised, is scored by a tower; the last layer computes that token alone, which changes no score
    (the paper's pruning). Ours: one low-rank pair of matrices serves all heads; norms stand in front of
    attention and feed-forward network.

    Every feature sees the candidate's from the first layer on, so that nothing of the user's side but
    its embeddings can be computed once for all candidates.

    Parameters beside the tables, for F features and sequences, the task token among them: (d_g + 1) d
    for each group, d for the token; of each layer, with O = F outputs and in the last one O = 1,
    (2 F + O) d^2 for "pair", (2 F + O) F d^2 for "composite" or (5 F + O) d r with rank r, and
    O (d^2 + 2 d f + f + d) + 4 d; 2 d and the tower's.

    Source: Gui et al., Hiformer: Heterogeneous Feature Interactions Learning with Transformers for
    Recommender Systems.
    """

    config_class = HiformerConfig

    def build_layers(self, widths: TokenWidths) -> None:
        """Creates the feature tokens, the task token, the layers and the tower."""
        config, policy = self.config, {"dtype": self.dtype_policy}
        if config.rank is not None and config.projection == "pair":
            raise UsageError(
                f"rank is {config.rank}, but projection is 'pair', whose matrices are dim x dim; leave "
                "rank out or give projection 'composite'"
            )
        self.vectors = FeatureVectors(config.dim, name="vectors", **policy)
        build(self.vectors, widths)
        self.task = self.add_weight(
            "task_token", (config.dim,), initializer=keras.initializers.RandomNormal(stddev=0.001)
        )
        self.stack = [
            HiformerLayer(
                config.heads,
                config.ffn_dim,
                config.projection,
                config.rank,
                outputs=1 if last else None,
                dropout=config.dropout,
                name=f"layer_{i}",
                **policy,
            )
            for i, last in enumerate([False] * (config.layers - 1) + [True])
        ]
        shape = tf.TensorShape([None, 1 + len(widths.groups), config.dim])
        self.norm = keras.layers.LayerNormalization(epsilon=1e-6, name="norm", **policy)
        self.tower = MLP((*config.tower_units, 1), dropout=config.dropout, name="tower", **policy)
        for layer in self.stack:
            build(layer, shape)
        for layer in (self.norm, self.tower):
            build(layer, tf.TensorShape([None, config.dim]))

    def forward(self, tokens: TokenGroups, training, heads) -> Scores:
        """Logits [B, 1]."""
        x = self.vectors(tokens)
        task = tf.cast(self.task, x.dtype)[None, None]
        x = tf.concat([tf.tile(task, [tf.shape(x)[0], 1, 1]), x], axis=1)
        for layer in self.stack:
            x = layer(x, training=training)
        return Scores(self.tower(self.norm(x[:, 0]), training=training))
