"""What the Entry and the Loop Block have in common: weights, and all that is done token by token."""

from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers.attention import MoEAttention
from loopctr_tf.layers.common import RMSNorm, build, flat, reshape_last
from loopctr_tf.layers.hyper_connections import HyperConnection
from loopctr_tf.layers.moe import MoEFeedForward

Streams = tuple[tf.Tensor, ...]
"""The residual state: n tensors [..., T, d]. Kept apart, so that no transpose is ever needed."""


class TransformerBlock(keras.layers.Layer):
    """A pre-norm Transformer block with MoE attention, MoE feed-forward and HCR around both.

    Args:
      heads: H, a divisor of d.
      ffn_dim: d_ff of one expert.
      experts: E.
      active_experts: k.
      streams: n; 1 means plain residuals.
      activation: of the feed-forward experts.
      dropout: rate on both sub-layers' outputs in training.
      sink: one learned null logit a head in attention over sequences.
      equal_experts: see :class:`~loopctr_tf.layers.moe.StackedExperts`.
      dispatch: of the feed-forward experts, see :class:`~loopctr_tf.layers.moe.MoEFeedForward`.
    """

    def __init__(
        self,
        heads,
        ffn_dim,
        experts=4,
        active_experts=2,
        streams=2,
        activation="gelu",
        dropout=0.0,
        sink=True,
        equal_experts=True,
        dispatch="grouped",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.heads, self.ffn_dim = heads, ffn_dim
        self.experts, self.active_experts, self.streams = experts, active_experts, streams
        self.activation = keras.activations.get(activation)
        self.dropout, self.sink, self.equal_experts = dropout, sink, equal_experts
        self.dispatch = dispatch
        policy = {"dtype": self.dtype_policy}
        self.attention_connection = HyperConnection(streams, 0, name="attention_hcr", **policy)
        self.attention_norm = RMSNorm(name="attention_norm", **policy)
        self.attention = MoEAttention(
            heads, experts, active_experts, sink, equal_experts, name="attention", **policy
        )
        self.ffn_connection = HyperConnection(streams, 1, name="ffn_hcr", **policy)
        self.ffn_norm = RMSNorm(name="ffn_norm", **policy)
        self.ffn = MoEFeedForward(
            ffn_dim,
            experts,
            active_experts,
            activation,
            equal_experts,
            dispatch,
            name="ffn",
            **policy,
        )
        self.drop = keras.layers.Dropout(dropout, name="drop", **policy)

    def build_width(self, width: int) -> None:
        """Creates all weights for tokens of ``width``."""
        shape = tf.TensorShape([None, None, width])
        for connection in (self.attention_connection, self.ffn_connection):
            build(connection, [shape] * self.streams)
        for child in (self.attention_norm, self.attention, self.ffn_norm, self.ffn):
            build(child, shape)
        self.built = True

    def transform(self, groups, masks, attend, training=None):
        """The whole block on several groups of tokens at once, which differ only in what they attend to.

        Everything that is done token by token is done for all groups together: one large product
        instead of one for each group.

        Args:
          groups: n-stream groups, each n tensors [..., T_g, d].
          masks: for each group [..., T_g], False at padding, or None where all tokens are real.
          attend: what the groups read, given for each group its normed tokens and their values, both
            [tokens of the group, d]: (a list of [tokens of the group, d], anything else).

        Returns:
          (groups, anything else that ``attend`` returned, statistics [2 routers, 2, E]).
        """
        likes = [group[0] for group in groups]
        flats = [[flat(stream) for stream in group] for group in groups]
        sizes = [tf.shape(streams[0])[0] for streams in flats]
        real = None
        if any(mask is not None for mask in masks):
            real = _joined(
                [
                    tf.fill([size], True) if mask is None else tf.reshape(mask, [-1])
                    for size, mask in zip(sizes, masks, strict=True)
                ]
            )
        streams = [_joined(parts) for parts in zip(*flats, strict=True)]
        if all(stream is group[0] for group in groups for stream in group):
            streams = streams[:1] * len(streams)
        connection = self.attention_connection(streams)
        x = self.attention_norm(connection.layer_input)
        gates, attention_counts = self.attention.route(x, real)
        values = self.attention.value(x, gates)
        reads, kept = attend(_parts(x, sizes), _parts(values, sizes))
        output = self.attention.out(_joined(reads), gates)
        streams = connection.add(self.drop(output, training=training))
        connection = self.ffn_connection(streams)
        output, ffn_counts = self.ffn(self.ffn_norm(connection.layer_input), real)
        streams = connection.add(self.drop(output, training=training))
        by_group = zip(*(_parts(stream, sizes) for stream in streams), strict=True)
        groups = [
            tuple(reshape_last(part, like, like.shape[-1]) for part in parts)
            for parts, like in zip(by_group, likes, strict=True)
        ]
        return groups, kept, tf.stack([attention_counts, ffn_counts])

    def attend_within(self, sequence: Streams, mask: tf.Tensor, training=None):
        """The whole block on one sequence, n tensors [R, T, d], whose tokens see each other alone.

        Returns:
          (streams, keys and values [R, T, d] that other tokens may attend to, statistics [2, 2, E]).
        """

        def attend(tokens, values):
            like = sequence[0]
            keys = self.attention.project_keys(*tokens)
            shown = self.attention.keys_values_by_head(keys, *values, like, mask)
            kept = tuple(tf.reshape(x, tf.shape(like)) for x in (keys, *values))
            return [self.attention.attend(*tokens, like, shown)], kept

        (sequence,), shown, counted = self.transform([sequence], [mask], attend, training)
        return sequence, shown, counted

    def get_config(self):
        """Constructor arguments."""
        return {
            **super().get_config(),
            "heads": self.heads,
            "ffn_dim": self.ffn_dim,
            "experts": self.experts,
            "active_experts": self.active_experts,
            "streams": self.streams,
            "activation": keras.activations.serialize(self.activation),
            "dropout": self.dropout,
            "sink": self.sink,
            "equal_experts": self.equal_experts,
            "dispatch": self.dispatch,
        }


def _joined(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    return parts[0] if len(parts) == 1 else tf.concat(parts, axis=0)


def _parts(rows: tf.Tensor, sizes: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """``rows`` cut into pieces of ``sizes``."""
    return [rows] if len(sizes) == 1 else tf.split(rows, sizes)
