"""AutoInt: self-attention over the features of a row, and a linear logit."""

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers import InteractingLayer
from loopctr_tf.layers.common import build
from loopctr_tf.models.encoder import TokenWidths
from loopctr_tf.models.settings import AttentionConfig, Positive, Widths
from loopctr_tf.models.vectors import VectorStack


class AutoIntConfig(AttentionConfig):
    """The architecture of AutoInt."""

    layers: Positive = 3
    """Interacting layers."""
    heads: Positive = 2
    """Attention heads H; must divide dim."""
    tower_units: Widths = ()
    """Hidden widths between the last layer's output and the logit; the paper's logit is linear."""


@keras.utils.register_keras_serializable("loopctr_tf")
class AutoInt(VectorStack):
    """logit = w [x_1; ...; x_F] + b, x_1 to x_F the features after all interacting layers (eq. 5-9).

    A layer is ReLU(softmax(Q K^T) V + X W_res) over the features of a row. Interactions are explicit: l
    layers combine up to 2^l features, and the attention weights tell which.

    Ours: features are projected to one width d, with biases, so that tables may have different widths
    (the paper embeds all at width d, a number as x_m v_m, eq. 4), and every layer keeps this width; a
    sequence is the mean of its events, without order. Left out: the feed-forward network that AutoInt+
    trains beside it.

    Parameters beside the tables, for F features and sequences: (d_g + 1) d for each; 4 d^2 for each
    layer; F d + 1 for the logit, or with a tower (F d + 1) t_1 + ... + (t_last + 1).

    Source: Song et al., AutoInt: Automatic Feature Interaction Learning via Self-Attentive Neural
    Networks.
    """

    config_class = AutoIntConfig

    def build_layers(self, widths: TokenWidths) -> None:
        """Creates the vectors' projections, the interacting layers and the tower."""
        config, policy = self.config, {"dtype": self.dtype_policy}
        features = self.build_vectors(widths)
        self.stack = [
            InteractingLayer(config.heads, config.dropout, name=f"layer_{i}", **policy)
            for i in range(config.layers)
        ]
        for layer in self.stack:
            build(layer, tf.TensorShape([None, features, config.dim]))
        self.build_tower(features)
