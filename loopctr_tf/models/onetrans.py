"""OneTrans: one causal Transformer over the user's events and all other features."""

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.errors import UsageError
from loopctr_tf.layers import (
    MLP,
    GroupProjection,
    MixedBlock,
    NewestFirst,
    RecencyEmbedding,
    RMSNorm,
)
from loopctr_tf.layers.common import build, reshape_last
from loopctr_tf.models.base import RankingModel, Scores, probabilities
from loopctr_tf.models.chunks import rank_in_chunks
from loopctr_tf.models.encoder import SequenceTokens, TokenGroups, TokenWidths
from loopctr_tf.models.settings import AttentionConfig, Positive, Widths
from loopctr_tf.models.two_sided import State


class OneTransConfig(AttentionConfig):
    """The architecture of OneTrans. Section numbers are the paper's."""

    layers: Positive = 3
    """Layers n of the stack."""
    ffn_dim: Positive = 256
    """Inner width d_ff of every feed-forward network."""
    pyramid: bool = True
    """From layer to layer fewer of the newest events issue queries (3.4); false means that all do."""
    final_queries: Positive | None = None
    """Events that issue queries at the pyramid's end; null means as many as there are features beside
    the sequences, as in the paper."""
    tower_units: Widths = (64,)
    """Hidden widths of the tower."""


@keras.utils.register_keras_serializable("loopctr_tf")
class OneTrans(RankingModel):
    """The line is [events; user and context features; item and cross features], under a causal mask.

    Tokens (3.2): a linear projection of its own for each feature (the group-wise tokenizer, one feature
    a group; the paper prefers to split one projection of all features) and each sequence. Sequences
    follow each other in schema order with a learned [SEP] between two (the paper's way without
    timestamps); the pyramid keeps events of the last one longest. Ours: a learned vector for an event's
    age within its sequence, zero at first; the paper's equations have no term for positions.

    Layers (3.3): see :class:`~loopctr_tf.layers.MixedBlock`. Ours: W_O is mixed like W_Q, W_K and W_V.

    Pyramid (3.4): the number of events that issue queries falls linearly over the layers 1..n, from T to
    ``final_queries``; T is the length of a full line, so that the sizes are the same for all users. The
    last layer's outputs for events are read by none and left out, which changes no score.

    The tower reads the features' final tokens, normalised and concatenated.

    An event or a user's feature never sees a candidate: their keys and values are computed once.

    Parameters beside the tables, for M features, S sequences of T_s events each, tower widths t:
    (d_g + 1) d for each feature and sequence; d T_s for each sequence; d for the separator if S > 1;
    n ((M + 1) (4 d^2 + 2 d d_ff) + 2 d) - (2 d^2 + 2 d d_ff); d; (M d + 1) t_1 + ... + (t_last + 1).

    Source: Zhang et al., OneTrans: Unified Feature Interaction and Sequence Modeling with One
    Transformer in Industrial Recommender.
    """

    config_class = OneTransConfig

    def build_layers(self, widths: TokenWidths) -> None:
        """Creates the projections, the layers and the tower."""
        config, policy = self.config, {"dtype": self.dtype_policy}
        self._users, features = len(widths.request), len(widths.request) + len(widths.candidate)
        self.projection = GroupProjection(config.dim, name="projection", **policy)
        build(self.projection, [[None, width] for width in widths.groups])
        shape = tf.TensorShape([None, None, config.dim])
        self.recency = [
            RecencyEmbedding(sequence.max_length, name=f"recency_{i}", **policy)
            for i, sequence in enumerate(self.schema.sequences)
        ]
        self.join = NewestFirst(name="join", **policy)
        build(self.join, [(shape, tf.TensorShape([None]))] * len(self.recency))
        self.queries = self._query_counts(features)
        sizes = (config.heads, config.ffn_dim, features)
        self.stack = [
            MixedBlock(*sizes, count, config.dropout, name=f"layer_{i}", **policy)
            for i, count in enumerate(self.queries)
        ]
        self.norm = RMSNorm(name="norm", **policy)
        for layer in (*self.recency, *self.stack, self.norm):
            build(layer, shape)
        self.tower = MLP((*config.tower_units, 1), dropout=config.dropout, name="tower", **policy)
        build(self.tower, tf.TensorShape([None, features * config.dim]))

    def _query_counts(self, features: int) -> list[int]:
        """How many events issue queries in each layer."""
        config, sequences = self.config, self.schema.sequences
        self._events = sum(sequence.max_length for sequence in sequences) + len(sequences) - 1
        if (config.final_queries or 0) > self._events:
            raise UsageError(
                f"final_queries is {config.final_queries}; give at most {self._events}, the events of "
                "all sequences and their separators"
            )
        if config.final_queries and not config.pyramid:
            raise UsageError(
                f"final_queries is {config.final_queries} without a pyramid; leave it out, or set "
                "pyramid to true"
            )
        dropped = max(self._events - (config.final_queries or features), 0) * config.pyramid
        steps = config.layers - 1
        return [*(self._events - dropped * i // steps for i in range(steps)), 0]

    def forward(self, tokens: TokenGroups, training, heads) -> Scores:
        """Logits [B, 1]: rows are requests with one candidate each."""
        events, mask = self._line(tokens.sequences)
        x = self._features([*tokens.request, *tokens.candidate])[:, None]
        for layer in self.stack:
            events, keys, values = layer.step_events(events, mask, training=training)
            x, _, _ = layer.step_features(x, keys, values, mask, training=training)
            mask = mask[:, : layer.queries]
        return Scores(self._logits(x, training))

    def encode_user(self, tokens: TokenGroups, heads: tuple[str, ...]) -> list[State]:
        """What candidates read in every layer; see :meth:`state_specs`."""
        events, mask = self._line(tokens.sequences)
        rows, width = tf.shape(events)[0], self.config.dim
        state = {"mask": tf.concat([tf.fill([rows, self._users], True), mask], axis=1)}
        x = tf.zeros(tf.stack([rows, 1, 0, width]), events.dtype)
        if self._users:
            x = self._features(tokens.request)[:, None]
        for i, layer in enumerate(self.stack):
            events, keys, values = layer.step_events(events, mask, training=False)
            if self._users:
                x, *own = layer.step_features(x, keys, values, mask, training=False)
                # Features first, so that padding stays at the end.
                keys, values = (
                    tf.concat([ours[:, 0], theirs], axis=1)
                    for ours, theirs in zip(own, (keys, values), strict=True)
                )
            state[f"keys_{i}"], state[f"values_{i}"] = keys, values
            mask = mask[:, : layer.queries]
        return [{**state, "features": x[:, 0]}] * len(heads)

    def state_specs(self, head: str, dtype: tf.DType) -> dict[str, tf.TensorSpec]:
        """For G user and context features and T_l events that layer l = 0..n - 1 reads: keys_l and
        values_l [R, G + T_l, d]; mask [R, G + T_0]; features, after all layers, [R, G, d]."""
        lengths = [self._users + events for events in (self._events, *self.queries[:-1])]
        specs = {"mask": tf.TensorSpec([None, lengths[0]], tf.bool)}
        for name in ("keys", "values"):
            for i, length in enumerate(lengths):
                specs[f"{name}_{i}"] = tf.TensorSpec([None, length, self.config.dim], dtype)
        specs["features"] = tf.TensorSpec([None, self._users, self.config.dim], dtype)
        return specs

    def rank(self, state: State, candidates: TokenGroups, head: str) -> tf.Tensor:
        """Probability float32 [R, N]."""
        state = {
            name: value if value.dtype == tf.bool else tf.cast(value, self.compute_dtype)
            for name, value in state.items()
        }

        def score(tokens):
            x, first = self._features(tokens, first=self._users), self._users
            for i, layer in enumerate(self.stack):
                keys, values = state[f"keys_{i}"], state[f"values_{i}"]
                mask = state["mask"][:, : tf.shape(keys)[1]]
                x, _, _ = layer.step_features(x, keys, values, mask, first, training=False)
            user = tf.repeat(state["features"][:, None], tf.shape(x)[1], axis=1)
            return probabilities(self._logits(tf.concat([user, x], axis=2), training=False))

        features = len(candidates.candidate)
        weights = self.config.heads * features * (tf.shape(state["mask"])[1] + features)
        return rank_in_chunks(candidates.candidate, weights, score)

    def _line(self, sequences: list[SequenceTokens]) -> tuple[tf.Tensor, tf.Tensor]:
        """All events, newest first, [B, T, d], and their mask [B, T]."""
        parts, first = [], len(self.projection.kernels) - len(sequences)
        for i, sequence in enumerate(sequences):
            # A key or value that is not finite would reach a score even with a weight of zero.
            tokens = tf.where(sequence.mask[..., None], sequence.tokens, 0)
            tokens = self.projection.project(tokens, first + i)
            parts.append((self.recency[i](tokens, sequence.lengths), sequence.lengths))
        line, lengths = self.join(parts)
        return line, tf.sequence_mask(lengths, tf.shape(line)[1])

    def _features(self, tokens: list[tf.Tensor], first: int = 0) -> tf.Tensor:
        """Projected features from ``first`` on, [..., features, d]."""
        projected = [self.projection.project(token, first + i) for i, token in enumerate(tokens)]
        return tf.stack(projected, axis=-2)

    def _logits(self, x: tf.Tensor, training) -> tf.Tensor:
        """[R, N] of all features' final tokens [R, N, M, d]."""
        joined = reshape_last(self.norm(x), x[:, :, 0], x.shape[2] * x.shape[3])
        return self.tower(joined, training=training)[..., 0]
