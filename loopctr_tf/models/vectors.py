"""One vector of width d for each token group: what models of feature interactions start from."""

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers import MLP, GroupProjection, masked_mean
from loopctr_tf.layers.common import build
from loopctr_tf.models.base import RankingModel, Scores
from loopctr_tf.models.encoder import TokenGroups, TokenWidths


@keras.utils.register_keras_serializable("loopctr_tf")
class FeatureVectors(keras.layers.Layer):
    """v_g = t_g W_g + b_g for every feature, and of a sequence for the mean of its events.

    The order is request features, candidate features, sequences. A sequence without events is b_g.

    Args:
      units: width d of every vector.

    Weights: (d_g + 1) d for each group of width d_g.
    """

    def __init__(self, units: int, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.projection = GroupProjection(units, name="projection", dtype=self.dtype_policy)

    def build(self, widths: TokenWidths):
        """Creates the projections of groups of ``widths``."""
        build(self.projection, [[None, width] for width in widths.groups])
        self.built = True

    def call(self, tokens: TokenGroups) -> tf.Tensor:
        """[B, groups, d]."""
        pooled = [masked_mean(sequence.tokens, sequence.mask) for sequence in tokens.sequences]
        return tf.stack(self.projection([*tokens.request, *tokens.candidate, *pooled]), axis=1)

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "units": self.units}


class VectorStack(RankingModel):
    """A stack of layers over one vector a token group, and a tower on the last vectors, flattened.

    A model's ``build_layers`` calls :meth:`build_vectors`, builds its ``stack`` of layers from
    [B, n, d] to [B, m, d], and calls :meth:`build_tower`. Its settings have ``tower_units``.
    """

    def build_vectors(self, widths: TokenWidths) -> int:
        """Creates the projections; returns the number of vectors."""
        self.vectors = FeatureVectors(self.config.dim, name="vectors", dtype=self.dtype_policy)
        build(self.vectors, widths)
        return len(widths.groups)

    def build_tower(self, vectors: int) -> None:
        """Creates the tower on the ``vectors`` that the last layer returns."""
        units, dropout = (*self.config.tower_units, 1), self.config.dropout
        self.tower = MLP(units, dropout=dropout, name="tower", dtype=self.dtype_policy)
        build(self.tower, tf.TensorShape([None, vectors * self.config.dim]))

    def forward(self, tokens: TokenGroups, training, heads) -> Scores:
        """Logits [B, 1]."""
        x = self.vectors(tokens)
        for layer in self.stack:
            x = layer(x, training=training)
        flattened = tf.reshape(x, [-1, x.shape[1] * x.shape[2]])
        return Scores(self.tower(flattened, training=training))
