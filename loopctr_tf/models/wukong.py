"""Wukong: a stack of factorization machines over the vectors of all features, then a tower."""

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers import WukongLayer
from loopctr_tf.layers.common import build
from loopctr_tf.models.encoder import TokenWidths
from loopctr_tf.models.settings import ModelConfig, Positive, Widths
from loopctr_tf.models.vectors import VectorStack


class WukongConfig(ModelConfig):
    """The architecture of Wukong."""

    layers: Positive = 2
    """Layers of the stack; each doubles the order of interactions."""
    fm_outputs: Positive = 16
    """Vectors n_F that a layer's factorization machine block gives."""
    compressed: Positive = 16
    """Vectors n_L that a layer's linear compression gives."""
    rank: Positive = 16
    """Columns k of the projection in the factorization machine; less than the number of vectors, else
    it saves nothing."""
    mlp_units: Widths = (256,)
    """Hidden widths of the network on the factorization machine's products."""
    tower_units: Widths = (128, 64)
    """Hidden widths of the tower over the last layer's vectors."""


@keras.utils.register_keras_serializable("loopctr_tf")
class Wukong(VectorStack):
    """logit = MLP(flatten(X_l)), X_{i+1} = LN(concat(FMB(X_i), LCB(X_i)) + X_i) (section 3).

    FMB(X) = reshape(MLP(LN(flatten(X (X^T Y))))) with a learned Y, LCB(X) = W_L X, and X_i is mapped
    linearly where a layer changes the number of vectors. X_0 has one vector of width d for each feature
    and, ours, for the mean of each sequence's events. Ours too: Y does not depend on X (the authors also
    describe one computed from X by an MLP); each number has a vector of its own instead of one MLP over
    all; and no feature has more than one vector.

    Parameters beside the tables, for n vectors of width d, m = n_F + n_L, MLP widths u, tower widths t:
    (d_g + 1) d for each group; of each layer 3 n k + (n k + 1) u_1 + ... + (u_last + 1) n_F d + n n_L
    + 2 d, and n m where n is not m, with n the groups in the first layer and m in the others;
    (m d + 1) t_1 + ... + (t_last + 1) for the tower.

    Source: Zhang et al., Wukong: Towards a Scaling Law for Large-Scale Recommendation.
    """

    config_class = WukongConfig

    def build_layers(self, widths: TokenWidths) -> None:
        """Creates the projections, the layers and the tower."""
        config, policy = self.config, {"dtype": self.dtype_policy}
        vectors = self.build_vectors(widths)
        self.stack = [
            WukongLayer(
                config.fm_outputs,
                config.compressed,
                config.rank,
                config.mlp_units,
                config.dropout,
                name=f"layer_{i}",
                **policy,
            )
            for i in range(config.layers)
        ]
        for layer in self.stack:
            build(layer, tf.TensorShape([None, vectors, config.dim]))
            vectors = config.fm_outputs + config.compressed
        self.build_tower(vectors)
