"""What the Entry and the Loop Block have in common: their weights and the feed-forward half."""

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers.attention import MoEAttention
from loopctr_tf.layers.common import RMSNorm, build, flat, reshape_last
from loopctr_tf.layers.hyper_connections import Connection, HyperConnection
from loopctr_tf.layers.moe import MoEFeedForward

Streams = tuple[tf.Tensor, ...]
"""The residual state: n tensors [..., T, d]. Kept apart, so that no transpose is ever needed."""


def flat_streams(streams: Streams) -> Streams:
    """[..., d] as [rows, d], stream by stream."""
    return tuple(flat(stream) for stream in streams)


def streams_like(streams: Streams, like: tf.Tensor) -> Streams:
    """[rows, d] as the shape of ``like`` [..., d], stream by stream."""
    return tuple(reshape_last(stream, like, like.shape[-1]) for stream in streams)


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
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.heads, self.ffn_dim = heads, ffn_dim
        self.experts, self.active_experts, self.streams = experts, active_experts, streams
        self.activation = keras.activations.get(activation)
        self.dropout, self.sink, self.equal_experts = dropout, sink, equal_experts
        policy = {"dtype": self.dtype_policy}
        self.attention_connection = HyperConnection(streams, 0, name="attention_hcr", **policy)
        self.attention_norm = RMSNorm(name="attention_norm", **policy)
        self.attention = MoEAttention(
            heads, experts, active_experts, sink, equal_experts, name="attention", **policy
        )
        self.ffn_connection = HyperConnection(streams, 1, name="ffn_hcr", **policy)
        self.ffn_norm = RMSNorm(name="ffn_norm", **policy)
        self.ffn = MoEFeedForward(
            ffn_dim, experts, active_experts, activation, equal_experts, name="ffn", **policy
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

    def read_attention(self, streams: Streams, mask=None) -> tuple[Connection, tf.Tensor, ...]:
        """(connection, normed input, gates, statistics) of the attention sub-layer, tokens [rows, d]."""
        connection = self.attention_connection(streams)
        x = self.attention_norm(connection.layer_input)
        gates, statistics = self.attention.route(x, mask)
        return connection, x, gates, statistics

    def write(self, connection: Connection, output: tf.Tensor, training=None) -> Streams:
        """The streams after a sub-layer gave ``output``."""
        return connection.add(self.drop(output, training=training))

    def attend_within(self, sequence: Streams, mask: tf.Tensor, training=None):
        """The whole block on one sequence, n tensors [R, T, d], whose tokens see each other alone.

        Returns:
          (streams, what other tokens may attend to, statistics [2, 2, E]).
        """
        like, rows, real = sequence[0], flat_streams(sequence), tf.reshape(mask, [-1])
        connection, x, gates, attention_counts = self.read_attention(rows, real)
        shown = self.attention.keys_values(x, gates, like, mask)
        read = self.attention.attend(x, gates, like, shown)
        rows, ffn_counts = self.feed_forward(self.write(connection, read, training), real, training)
        return streams_like(rows, like), shown, tf.stack([attention_counts, ffn_counts])

    def feed_forward(self, streams: Streams, mask=None, training=None):
        """The second half of the block on tokens [rows, d]: (streams, router statistics)."""
        connection = self.ffn_connection(streams)
        output, statistics = self.ffn(self.ffn_norm(connection.layer_input), mask)
        return self.write(connection, output, training), statistics

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
        }
