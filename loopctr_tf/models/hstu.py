"""HSTU: a stack of gated, softmax-free attention layers over the user's events, then the candidate."""

from typing import Annotated

import tensorflow as tf
import tf_keras as keras
from pydantic import Field

from loopctr_tf.errors import UsageError
from loopctr_tf.layers import MLP, GroupProjection, HSTULayer, Timeline
from loopctr_tf.layers.common import build
from loopctr_tf.models.base import RankingModel, Scores, probabilities
from loopctr_tf.models.chunks import rank_in_chunks
from loopctr_tf.models.encoder import TokenGroups, TokenWidths
from loopctr_tf.models.settings import AttentionConfig, Positive, Widths
from loopctr_tf.models.two_sided import State


class HSTUConfig(AttentionConfig):
    """The architecture of HSTU."""

    layers: Positive = 2
    """Layers of the stack."""
    time_fields: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Numeric fields, one of each sequence, that say how long before the row an event was; the time bias
    is made of their differences. Without them there is a position bias alone."""
    time_buckets: Positive = 64
    """Logarithmic buckets of the time bias."""
    tower_units: Widths = (64,)
    """Hidden widths of the tower on the candidate's token."""


@keras.utils.register_keras_serializable("loopctr_tf")
class HSTU(RankingModel):
    """User and context features, then the events, then the candidate: one causal line of tokens.

    Each user and context feature is a token in front of all events, each event one token, and all item
    and cross features together are one: the sum of their projections. Positions are counted back from
    the row; the first sequence of the schema is the most recent, the next one continues it. The
    candidate's token, normalised, is scored by a tower (the paper's multi-task head, with one task).

    A candidate sees the user's tokens and itself, and no user's token sees a candidate: keys and values
    of the user's side are computed once (M-FALCON, section 3.4).

    Parameters beside the tables: (d_g + 1) d for each feature and sequence; of each layer
    5 d^2 + 5 d + (T + 2) + time_buckets + 1 (the last two with time fields), T the most tokens that one
    attends to; 2 d and the tower's.

    Source: Zhai et al., Actions Speak Louder than Words: Trillion-Parameter Sequential Transducers for
    Generative Recommendations.
    """

    config_class = HSTUConfig

    def build_layers(self, widths: TokenWidths) -> None:
        """Creates the projections, the layers and the tower."""
        config, policy = self.config, {"dtype": self.dtype_policy}
        self._time_fields = self._checked_time_fields()
        self._events = sum(sequence.max_length for sequence in self.schema.sequences)
        self.projection = GroupProjection(config.dim, name="projection", **policy)
        build(self.projection, [[None, width] for width in widths.groups])
        most = len(widths.request) + self._events + 1
        buckets = config.time_buckets if config.time_fields else 0
        self.stack = [
            HSTULayer(
                config.heads,
                most,
                buckets,
                config.dropout,
                self._norm_groups,
                name=f"layer_{i}",
                **policy,
            )
            for i in range(config.layers)
        ]
        shape = tf.TensorShape([None, None, config.dim])
        self.norm = keras.layers.LayerNormalization(epsilon=1e-6, name="norm", **policy)
        for layer in (*self.stack, self.norm):
            build(layer, shape)
        self.tower = MLP((*config.tower_units, 1), dropout=config.dropout, name="tower", **policy)
        build(self.tower, shape)

    @property
    def _norm_groups(self) -> int:
        """Groups of tokens with norms of their own; 0 means one norm for all."""
        return 0

    def _checked_time_fields(self) -> list[str]:
        """The time field of each sequence, [] where none is configured."""
        chosen = set(self.config.time_fields)
        numeric = [
            {field.name for field in sequence.fields if field.type == "numeric"}
            for sequence in self.schema.sequences
        ]
        if not chosen:
            return []
        if any(len(fields & chosen) != 1 for fields in numeric) or chosen - set().union(*numeric):
            raise UsageError(
                f"time_fields are {sorted(chosen)}; name exactly one numeric field of each sequence, of "
                + " and ".join(str(sorted(fields)) for fields in numeric)
            )
        return [next(iter(fields & chosen)) for fields in numeric]

    def forward(self, tokens: TokenGroups, training, heads) -> Scores:
        """Logits [B, 1]: rows are requests with one candidate each."""
        state = self._user(tokens, training)
        candidates = [token[:, None] for token in tokens.candidate]
        return Scores(self._candidate_logits(state, candidates, training))

    def encode_user(self, tokens: TokenGroups, heads: tuple[str, ...]) -> list[State]:
        """Keys and values of every layer; see :meth:`state_specs`."""
        return [self._user(tokens, training=False)]

    def state_specs(self, head: str, dtype: tf.DType) -> dict[str, tf.TensorSpec]:
        """mask, position and, with time fields, age [R, T]; keys and values [R, layers, T, d]."""
        config = self.config
        length = len(self.schema.request_features) + self._events
        state = tf.TensorSpec([None, config.layers, length, config.dim], dtype)
        specs = {
            "mask": tf.TensorSpec([None, length], tf.bool),
            "position": tf.TensorSpec([None, length], tf.int32),
            "keys": state,
            "values": state,
        }
        if self._time_fields:
            specs["age"] = tf.TensorSpec([None, length], tf.float32)
        return specs

    def rank(self, state: State, candidates: TokenGroups, head: str) -> tf.Tensor:
        """Probability float32 [R, N]."""

        def score(tokens):
            return probabilities(self._candidate_logits(state, tokens, training=False))

        weights = self.config.heads * tf.shape(state["mask"])[1]
        return rank_in_chunks(candidates.candidate, weights, score)

    def _line(self, groups: TokenGroups) -> Timeline:
        """Where the user's tokens stand: request features, then each sequence."""
        rows, prefix = tf.shape(groups.sequences[0].lengths)[0], len(groups.request)
        masks, positions = [tf.fill([rows, prefix], True)], [tf.fill([rows, prefix], self._events)]
        ages, offset = [tf.fill([rows, prefix], -1.0)], 0
        for i, (spec, sequence) in enumerate(
            zip(self.schema.sequences, groups.sequences, strict=True)
        ):
            masks.append(sequence.mask)
            places = tf.range(tf.shape(sequence.tokens)[1])
            positions.append(offset + sequence.lengths[:, None] - 1 - places)
            offset += spec.max_length
            if self._time_fields:
                ages.append(tf.maximum(sequence.numbers[self._time_fields[i]], 0.0))
        age = tf.concat(ages, axis=1) if self._time_fields else None
        return Timeline(tf.concat(masks, axis=1), tf.concat(positions, axis=1), age)

    def _user(self, groups: TokenGroups, training) -> State:
        first = len(self.schema.request_features) + len(self.schema.candidate_features)
        tokens = [
            *(self.projection.project(token, i)[:, None] for i, token in enumerate(groups.request)),
            *(
                self.projection.project(sequence.tokens, first + i)
                for i, sequence in enumerate(groups.sequences)
            ),
        ]
        line, x, keys, values = self._line(groups), tf.concat(tokens, axis=1), [], []
        for layer in self.stack:
            x, k, v = layer(x, line, training=training)
            keys.append(k)
            values.append(v)
        state = {"mask": line.mask, "position": line.position}
        if line.age is not None:
            state["age"] = line.age
        return {**state, "keys": tf.stack(keys, axis=1), "values": tf.stack(values, axis=1)}

    def _candidate_logits(self, state: State, candidates: list[tf.Tensor], training) -> tf.Tensor:
        """[R, N]."""
        first = len(self.schema.request_features)
        x = tf.add_n(
            [self.projection.project(token, first + i) for i, token in enumerate(candidates)]
        )
        line = Timeline(state["mask"], state["position"], state.get("age"))
        keys, values = (tf.cast(state[name], x.dtype) for name in ("keys", "values"))
        for i, layer in enumerate(self.stack):
            x = layer.rank(x, keys[:, i], values[:, i], line, training=training)
        return self.tower(self.norm(x), training=training)[..., 0]
