"""One vector of width d for each token group: what models of feature interactions start from."""

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers import GroupProjection, masked_mean
from loopctr_tf.layers.common import build
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
        groups = (*widths.request, *widths.candidate, *widths.sequences)
        build(self.projection, [[None, width] for width in groups])
        self.built = True

    def call(self, tokens: TokenGroups) -> tf.Tensor:
        """[B, groups, d]."""
        pooled = [masked_mean(sequence.tokens, sequence.mask) for sequence in tokens.sequences]
        return tf.stack(self.projection([*tokens.request, *tokens.candidate, *pooled]), axis=1)

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "units": self.units}
