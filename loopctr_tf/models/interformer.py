"""InterFormer: features and behaviour sequences that read each other's summary in every layer."""

from typing import Literal

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.errors import UsageError
from loopctr_tf.layers import MLP, CrossArch, GroupProjection, InterFormerLayer, MaskNet
from loopctr_tf.layers.common import build
from loopctr_tf.models.base import RankingModel, Scores
from loopctr_tf.models.encoder import SequenceTokens, TokenGroups, TokenWidths
from loopctr_tf.models.settings import AttentionConfig, Positive, Widths


class InterFormerConfig(AttentionConfig):
    """The architecture of InterFormer."""

    layers: Positive = 2
    """Layers of the stack."""
    heads: Positive = 4
    """Heads of every attention; must divide dim."""
    ffn_dim: Positive = 128
    """Hidden width m of the features' MLP, and of the one that makes the sequence's personalised matrix
    of dim x dim numbers."""
    cls_tokens: Positive = 4
    """Tokens c of the features' summary; they stand in front of the sequence as its CLS tokens."""
    pma_tokens: Positive = 2
    """Tokens p of the sequence's summary that are pooled from all events by learned queries."""
    recent_tokens: Positive = 2
    """Most recent events K in the sequence's summary."""
    positions: Literal["rotary", "learned"] = "rotary"
    """How the sequence's attention knows the order: rotary, by the distance between two events, or
    learned, a vector added for each place counted from the most recent event."""
    tower_units: Widths = (64,)
    """Hidden widths of the tower on both summaries."""


@keras.utils.register_keras_serializable("loopctr_tf")
class InterFormer(RankingModel):
    """L layers between L + 1 exchanges of summaries; the last ones, [X_sum; S_sum], enter a tower.

    X is one token for each user, context, item and cross feature. S is one sequence: the schema's are
    projected to width d, the most recent events first, joined in width place by place, and filtered by
    a MaskNet (the paper's way; ours is that equal places count back from the row). In front of S stand
    the first layer's X_sum as CLS tokens. See :class:`~loopctr_tf.layers.InterFormerLayer` for a layer,
    :class:`~loopctr_tf.layers.CrossArch` for the summaries, and both for what is ours in them.

    The candidate is part of X, hence of X_sum, of the CLS tokens and of the personalised matrix that
    every event is multiplied by: no event is the same for two candidates, and nothing of the user's
    side but its embeddings can be computed once for all of them.

    Parameters beside the tables, for n features, k sequences, T the longest one's events: (d_g + 1) d
    for each group; 3 k d^2 + 3 k d + 2 d; (c + T) d with learned positions; L + 1 times
    6 d^2 + (6 + p) d + n c; L times 9 d^2 + 9 d + m (d^2 + (2 + c) d + 2); the tower's on
    (2 c + p + K) d numbers.

    Source: Zeng et al., InterFormer: Effective Heterogeneous Interaction Learning for Click-Through Rate
    Prediction.
    """

    config_class = InterFormerConfig

    def build_layers(self, widths: TokenWidths) -> None:
        """Creates the projections, the MaskNet, the summaries, the layers and the tower."""
        config, policy = self.config, {"dtype": self.dtype_policy}
        self._check_settings()
        width, heads = config.dim, config.heads
        features = (*widths.request, *widths.candidate)
        self.projection = GroupProjection(width, name="projection", **policy)
        build(self.projection, [[None, group] for group in widths.groups])
        self.merge = MaskNet(width, name="merge", **policy)
        build(self.merge, tf.TensorShape([None, None, width * len(widths.sequences)]))
        if config.positions == "learned":
            longest = max(sequence.max_length for sequence in self.schema.sequences)
            self.places = self.add_weight(
                "place_vectors",
                (config.cls_tokens + longest, width),
                initializer=keras.initializers.RandomNormal(stddev=0.02),
            )
        summaries = (config.cls_tokens, config.pma_tokens, config.recent_tokens)
        self.crosses = [
            CrossArch(*summaries, heads, name=f"cross_{i}", **policy)
            for i in range(config.layers + 1)
        ]
        self.stack = [
            InterFormerLayer(
                config.cls_tokens,
                heads,
                config.ffn_dim,
                rotary=config.positions == "rotary",
                dropout=config.dropout,
                name=f"layer_{i}",
                **policy,
            )
            for i in range(config.layers)
        ]
        for layer in (*self.crosses, *self.stack):
            build(layer, tf.TensorShape([None, len(features), width]))
        self._summary = (config.cls_tokens + sum(summaries)) * width
        self.tower = MLP((*config.tower_units, 1), dropout=config.dropout, name="tower", **policy)
        build(self.tower, tf.TensorShape([None, self._summary]))

    def _check_settings(self) -> None:
        dim, heads = self.config.dim, self.config.heads
        if self.config.positions == "rotary" and dim // heads % 2:
            raise UsageError(
                f"heads is {heads}, so that a head has {dim // heads} channels, but rotary positions "
                "turn pairs of them; give other heads or positions 'learned'"
            )

    def forward(self, tokens: TokenGroups, training, heads) -> Scores:
        """Logits [B, 1]."""
        groups = [*tokens.request, *tokens.candidate]
        x = tf.stack([self.projection.project(t, i) for i, t in enumerate(groups)], axis=1)
        s, mask = self._merged(tokens.sequences, first=len(groups))
        x_sum = self.crosses[0].features(x)
        s = tf.concat([x_sum, s], axis=1)  # [B, c + T, d]
        mask = tf.concat([tf.ones_like(x_sum[..., 0], tf.bool), mask], axis=1)
        if self.config.positions == "learned":
            s += tf.cast(self.places, s.dtype)[: tf.shape(s)[1]]
        s_sum, visible = self.crosses[0].sequence(s, mask)
        for layer, cross in zip(self.stack, self.crosses[1:], strict=True):
            x, s = layer(x, s, mask, x_sum, s_sum, visible, training=training)
            x_sum, s_sum, visible = cross(x, s, mask)
        summary = tf.reshape(tf.concat([x_sum, s_sum], axis=1), [-1, self._summary])
        return Scores(self.tower(summary, training=training))

    def _merged(self, sequences: list[SequenceTokens], first: int) -> tuple[tf.Tensor, tf.Tensor]:
        """All sequences as one, the most recent event first: [B, T, d] and its mask [B, T]."""
        length = tf.reduce_max([tf.shape(sequence.mask)[1] for sequence in sequences])
        parts, masks = [], []
        for i, sequence in enumerate(sequences):
            part = self.projection.project(sequence.tokens, first + i)
            part = tf.reverse_sequence(part, sequence.lengths, seq_axis=1)
            part = tf.where(sequence.mask[..., None], part, tf.zeros_like(part))
            missing = length - tf.shape(part)[1]
            parts.append(tf.pad(part, [[0, 0], [0, missing], [0, 0]]))
            masks.append(tf.pad(sequence.mask, [[0, 0], [0, missing]]))
        return self.merge(tf.concat(parts, axis=-1)), tf.reduce_any(tf.stack(masks), axis=0)
