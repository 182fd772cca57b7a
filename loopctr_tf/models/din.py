"""DIN: the events that have to do with the candidate, weighted by an activation unit, and a tower."""

from typing import Annotated

import tensorflow as tf
import tf_keras as keras
from pydantic import Field

from loopctr_tf.layers import MLP, ActivationUnit, GroupProjection
from loopctr_tf.layers.common import build
from loopctr_tf.models.base import RankingModel, Scores
from loopctr_tf.models.encoder import TokenGroups, TokenWidths
from loopctr_tf.models.settings import ModelConfig, Positive, Widths


class DINConfig(ModelConfig):
    """The architecture of DIN."""

    attention_units: Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)] = (36,)
    """Hidden widths of the activation units, one unit for each sequence."""
    tower_units: Widths = (200, 80)
    """Hidden widths of the tower."""


@keras.utils.register_keras_serializable("loopctr_tf")
class DIN(RankingModel):
    """logit = MLP([request features; candidate features; v_1(t); ...; v_S(t)]) (section 4.3, eq. 3).

    v_s(t) = sum_j a_s(h_j, t) h_j over the events of sequence s, a_s an activation unit of its own.
    Features enter the tower as embedded, without order or time of events.

    Ours: t is a projection of the candidate's concatenated features to width d, h_j one of an event's.
    The paper has the same features in both, and no need of it. The units have one hidden layer of 36, as
    in the paper's figure; the authors' code has 80 and 40. Left out: Dice and PReLU (sigmoid in the
    units, ReLU in the tower), because Dice makes a row's score depend on its batch, and the mini-batch
    aware regularisation, which is a matter of training.

    Parameters beside the tables, for R, C and d_s the widths of all request features, all candidate
    features and an event of sequence s: (C + 1) d for t; (d_s + 1) d + (4 d + 1) u_1 + (u_1 + 1) u_2 +
    ... + (u_last + 1) for each of S sequences, u the attention units; with s = R + C + S d,
    (s + 1) t_1 + ... + (t_last + 1) for the tower.

    Source: Zhou et al., Deep Interest Network for Click-Through Rate Prediction.
    """

    config_class = DINConfig

    def build_layers(self, widths: TokenWidths) -> None:
        """Creates the projections, the activation units and the tower."""
        config, policy = self.config, {"dtype": self.dtype_policy}
        candidate = sum(widths.candidate)
        self.projection = GroupProjection(config.dim, name="projection", **policy)
        build(self.projection, [[None, width] for width in (candidate, *widths.sequences)])
        self.units = [
            ActivationUnit(config.attention_units, name=f"unit_{i}", **policy)
            for i in range(len(widths.sequences))
        ]
        for unit in self.units:
            build(unit, tf.TensorShape([None, config.dim]))
        self.tower = MLP((*config.tower_units, 1), dropout=config.dropout, name="tower", **policy)
        width = sum(widths.request) + candidate + len(self.units) * config.dim
        build(self.tower, tf.TensorShape([None, width]))

    def forward(self, tokens: TokenGroups, training, heads) -> Scores:
        """Logits [B, 1]."""
        target = self.projection.project(tf.concat(tokens.candidate, axis=-1), 0)
        interests = []
        for i, (unit, sequence) in enumerate(zip(self.units, tokens.sequences, strict=True)):
            events = self.projection.project(sequence.tokens, 1 + i)
            interests.append(unit(target, events, sequence.mask))
        x = tf.concat([*tokens.request, *tokens.candidate, *interests], axis=-1)
        return Scores(self.tower(x, training=training))
