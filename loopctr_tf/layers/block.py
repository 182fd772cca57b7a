"""What the Entry, Loop and Exit Blocks share: their settings, and all work done token by token."""

from collections.abc import Callable, Sequence

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers.attention import MoEAttention
from loopctr_tf.layers.common import RMSNorm, build, flat, reshape_last
from loopctr_tf.layers.hyper_connections import HyperConnection
from loopctr_tf.layers.moe import MoEFeedForward

Streams = tuple[tf.Tensor, ...]
"""The residual state: n tensors [..., T, d]. Separate tensors, so that no transpose is ever needed."""


class MixtureBlock(keras.layers.Layer):
    """The settings of a block with MoE attention and an MoE feed-forward network.

    Args:
      heads: H, a divisor of d.
      ffn_dim: d_ff of one expert.
      experts: E.
      active_experts: k.
      activation: of the feed-forward experts (and of the Exit Block's tower).
      dropout: rate in training on the outputs of both sub-layers (and of the tower's hidden layers).
      sink: one learned null logit a head in attention over sequences.
      equal_experts: see :class:`~loopctr_tf.layers.moe.StackedExperts`.
      zero_outputs: whether both sub-layers start with an output of zero, as no change of the residual.
      dispatch: of the feed-forward experts, see :class:`~loopctr_tf.layers.moe.MoEFeedForward`.
    """

    def __init__(
        self,
        heads: int,
        ffn_dim: int,
        experts: int = 4,
        active_experts: int = 2,
        *,
        activation: str | Callable[[tf.Tensor], tf.Tensor] = "gelu",
        dropout: float = 0.0,
        sink: bool = True,
        equal_experts: bool = True,
        zero_outputs: bool = False,
        dispatch: str = "grouped",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.heads, self.ffn_dim = heads, ffn_dim
        self.experts, self.active_experts = experts, active_experts
        self.activation = keras.activations.get(activation)
        self.dropout, self.sink, self.equal_experts = dropout, sink, equal_experts
        self.zero_outputs, self.dispatch = zero_outputs, dispatch
        self.drop = keras.layers.Dropout(dropout, name="drop", dtype=self.dtype_policy)

    # The order in which a subclass sets its children is the order of its weights in saved files.

    def _make_attention(self) -> MoEAttention:
        return MoEAttention(
            self.heads,
            self.experts,
            self.active_experts,
            self.sink,
            self.equal_experts,
            self.zero_outputs,
            name="attention",
            dtype=self.dtype_policy,
        )

    def _make_ffn(self) -> MoEFeedForward:
        return MoEFeedForward(
            self.ffn_dim,
            self.experts,
            self.active_experts,
            self.activation,
            self.equal_experts,
            self.zero_outputs,
            self.dispatch,
            name="ffn",
            dtype=self.dtype_policy,
        )

    def get_config(self):
        """Constructor arguments."""
        return {
            **super().get_config(),
            "heads": self.heads,
            "ffn_dim": self.ffn_dim,
            "experts": self.experts,
            "active_experts": self.active_experts,
            "activation": keras.activations.serialize(self.activation),
            "dropout": self.dropout,
            "sink": self.sink,
            "equal_experts": self.equal_experts,
            "zero_outputs": self.zero_outputs,
            "dispatch": self.dispatch,
        }


class TransformerBlock(MixtureBlock):
    """A pre-norm Transformer block with MoE attention, MoE feed-forward and HCR around both.

    Args:
      streams: n residual streams; 1 means plain residuals.
      heads, ffn_dim, experts, active_experts, kwargs: see :class:`MixtureBlock`.
    """

    def __init__(
        self,
        heads: int,
        ffn_dim: int,
        experts: int = 4,
        active_experts: int = 2,
        streams: int = 2,
        **kwargs,
    ):
        super().__init__(heads, ffn_dim, experts, active_experts, **kwargs)
        self.streams = streams
        policy = {"dtype": self.dtype_policy}
        self.attention_connection = HyperConnection(streams, 0, name="attention_hcr", **policy)
        self.attention_norm = RMSNorm(name="attention_norm", **policy)
        self.attention = self._make_attention()
        self.ffn_connection = HyperConnection(streams, 1, name="ffn_hcr", **policy)
        self.ffn_norm = RMSNorm(name="ffn_norm", **policy)
        self.ffn = self._make_ffn()

    def build_width(self, width: int) -> None:
        """Creates all weights for tokens of ``width``."""
        shape = tf.TensorShape([None, None, width])
        for connection in (self.attention_connection, self.ffn_connection):
            build(connection, [shape] * self.streams)
        for child in (self.attention_norm, self.attention, self.ffn_norm, self.ffn):
            build(child, shape)
        self.built = True

    def transform(
        self,
        groups: Sequence[Streams],
        masks: Sequence[tf.Tensor | None],
        attend: Callable,
        training: bool | None = None,
    ):
        """The whole block on several groups of tokens, which differ only in what they attend to.

        Work that is done token by token is done for all groups together, in one large product.

        Args:
          groups: n-stream groups, each n tensors [..., T_g, d].
          masks: for each group [..., T_g], False at padding, or None if all tokens are real.
          attend: called with a list of each group's normed tokens and a list of their values, each
            [tokens of the group, d]; returns (a list of attention outputs of the same shapes, and
            anything else).

        Returns:
          (groups, whatever else ``attend`` returned, statistics [2 routers, 2, E]).
        """
        shapes = [group[0] for group in groups]
        flats = [[flat(stream) for stream in group] for group in groups]
        sizes = [tf.shape(streams[0])[0] for streams in flats]
        real = None
        if any(mask is not None for mask in masks):
            real = _concat(
                [
                    tf.fill([size], True) if mask is None else tf.reshape(mask, [-1])
                    for size, mask in zip(sizes, masks, strict=True)
                ]
            )
        streams = [_concat(parts) for parts in zip(*flats, strict=True)]
        if all(stream is group[0] for group in groups for stream in group):
            streams = streams[:1] * len(streams)
        connection = self.attention_connection(streams)
        x = self.attention_norm(connection.layer_input)
        gates, attention_counts = self.attention.route(x, real)
        values = self.attention.value(x, gates)
        attended, further = attend(_split(x, sizes), _split(values, sizes))
        output = self.attention.out(_concat(attended), gates)
        streams = connection.add(self.drop(output, training=training))
        connection = self.ffn_connection(streams)
        output, ffn_counts = self.ffn(self.ffn_norm(connection.layer_input), real)
        streams = connection.add(self.drop(output, training=training))
        by_group = zip(*(_split(stream, sizes) for stream in streams), strict=True)
        groups = [
            tuple(reshape_last(part, shape, shape.shape[-1]) for part in parts)
            for parts, shape in zip(by_group, shapes, strict=True)
        ]
        return groups, further, tf.stack([attention_counts, ffn_counts])

    def attend_within(self, sequence: Streams, mask: tf.Tensor, training: bool | None = None):
        """The whole block on one sequence, n tensors [R, T, d], whose tokens see only each other.

        Returns:
          (streams, keys and values [R, T, d] that other tokens may attend to, statistics [2, 2, E]).
        """
        first = sequence[0]

        def attend(tokens, values):
            keys = self.attention.project_keys(*tokens)
            visible = self.attention.keys_values_by_head(keys, *values, first, mask)
            cached = tuple(tf.reshape(x, tf.shape(first)) for x in (keys, *values))
            return [self.attention.attend(*tokens, first, visible)], cached

        (sequence,), cached, counts = self.transform([sequence], [mask], attend, training)
        return sequence, cached, counts

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "streams": self.streams}


def _concat(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    return parts[0] if len(parts) == 1 else tf.concat(parts, axis=0)


def _split(rows: tf.Tensor, sizes: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    return [rows] if len(sizes) == 1 else tf.split(rows, sizes)
