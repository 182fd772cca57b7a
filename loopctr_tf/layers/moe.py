"""Mixtures of experts: linear maps and feed-forward networks of which a token uses k of E."""

from typing import NamedTuple

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers.common import build, clone_initializer, flat, linear, reshape_last
from loopctr_tf.layers.routing import Router


@keras.utils.register_keras_serializable("loopctr_tf")
class StackedExperts(keras.initializers.Initializer):
    """Draws one kernel [d_in, d_out] with ``base`` and copies it to all E experts, or draws E.

    Equal experts make a mixture with renormalised gates start as the dense layer; in our study
    independent draws learned far more slowly. They part because their gates differ.
    """

    def __init__(self, base="glorot_uniform", equal=True):
        self.base, self.equal = keras.initializers.get(base), equal

    def __call__(self, shape, dtype=None, **kwargs):
        """A kernel of ``shape`` [E, d_in, d_out]."""
        experts, *matrix = shape
        if self.equal:
            drawn = clone_initializer(self.base)(matrix, dtype=dtype)
            return tf.tile(drawn[None], [experts, 1, 1])
        return tf.stack([clone_initializer(self.base)(matrix, dtype) for _ in range(experts)])

    def get_config(self):
        """Constructor arguments."""
        return {"base": keras.initializers.serialize(self.base), "equal": self.equal}


class Visits(NamedTuple):
    """Which tokens each expert sees, and where its answers lie.

    Attributes:
      tokens: E tensors of places among all tokens, for each expert those that visit it.
      places: int32 [tokens, k], of a token's answers when those of expert 0, 1, ... lie one after the
        other; of padding the place behind the last.
    """

    tokens: list[tf.Tensor]
    places: tf.Tensor


def visit(experts: tf.Tensor, count: int, mask: tf.Tensor | None = None) -> Visits:
    """Sorts tokens by expert.

    Args:
      experts: int32 [..., k], the experts of each token.
      count: E.
      mask: [...], False at padding, which visits nobody.
    """
    active = experts.shape[-1]
    visited = tf.reshape(experts, [-1])
    if mask is not None:
        visited = tf.where(tf.repeat(tf.reshape(mask, [-1]), active), visited, count)
    pairs = tf.range(tf.size(visited))
    *by_expert, nobody = tf.dynamic_partition(pairs, visited, count + 1)
    order = tf.concat(by_expert, axis=0)
    last = tf.size(order)
    places = tf.dynamic_stitch([order, nobody], [tf.range(last), tf.fill(tf.shape(nobody), last)])
    return Visits([pairs // active for pairs in by_expert], tf.reshape(places, [-1, active]))


@keras.utils.register_keras_serializable("loopctr_tf")
class ExpertDense(keras.layers.Layer):
    """y = sum_e g_e x W_e, without bias: the value and output projections of MoE attention (3.4).

    Args:
      experts: E.
      units: width of the output; None keeps the input's.
      equal_experts: see :class:`StackedExperts`.

    Input: x [..., d] and gates [..., E]. Output: [..., units].
    """

    def __init__(self, experts, units=None, equal_experts=True, **kwargs):
        super().__init__(**kwargs)
        self.experts, self.units, self.equal_experts = experts, units, equal_experts

    def build(self, input_shape):
        """Creates W [E, d, units]."""
        self.kernel = self.add_weight(
            "kernel",
            (self.experts, input_shape[-1], self.units or input_shape[-1]),
            initializer=StackedExperts(equal=self.equal_experts),
        )
        self.built = True

    def call(self, x, gates):
        """Applies the gated experts to ``x`` [..., d]."""
        width, units = self.kernel.shape[1:]
        # Scaling copies of x turns the sum over experts into one product: [..., E d] x [E d, units].
        gates = tf.cast(gates, x.dtype)  # Keras casts the first argument alone
        scaled = gates[..., :, None] * x[..., None, :]
        scaled = reshape_last(scaled, x, self.experts * width)
        return linear(scaled, tf.reshape(self.kernel, [self.experts * width, units]))

    def get_config(self):
        """Constructor arguments."""
        return {
            **super().get_config(),
            "experts": self.experts,
            "units": self.units,
            "equal_experts": self.equal_experts,
        }


@keras.utils.register_keras_serializable("loopctr_tf")
class MoEFeedForward(keras.layers.Layer):
    """y = sum_e g_e act(x U_e) V_e, with a router of its own and no biases (section 3.4).

    Args:
      ffn_dim: d_ff, inner width of one expert.
      experts: E.
      active_experts: k.
      activation: of the experts.
      equal_experts: see :class:`StackedExperts`.

    Tokens are gathered by expert, so that a token costs k experts, not E, and padding costs none.

    Input: x [..., d], and optionally mask [...], False at padding.
    Output: (y [..., d], zero at padding; router statistics [2, E]).
    """

    def __init__(
        self,
        ffn_dim,
        experts=4,
        active_experts=2,
        activation="gelu",
        equal_experts=True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.ffn_dim, self.experts, self.active_experts = ffn_dim, experts, active_experts
        self.activation = keras.activations.get(activation)
        self.equal_experts = equal_experts
        self.router = Router(experts, active_experts, name="router", dtype=self.dtype_policy)

    def build(self, input_shape):
        """Creates U [E, d, d_ff] and V [E, d_ff, d]."""
        width = input_shape[-1]
        self.inner = self.add_weight(
            "inner",
            (self.experts, width, self.ffn_dim),
            initializer=StackedExperts(equal=self.equal_experts),
        )
        self.outer = self.add_weight(
            "outer",
            (self.experts, self.ffn_dim, width),
            initializer=StackedExperts(equal=self.equal_experts),
        )
        build(self.router, input_shape)
        self.built = True

    def call(self, x, mask=None):
        """Applies the gated experts to the tokens ``x`` [..., d]."""
        choice = self.router.choose(x)
        width = x.shape[-1]
        visits = visit(choice.experts, self.experts, mask)
        rows, dtype = flat(x), self.inner.dtype
        # Zero, which the graph optimiser cannot know: with a bias it makes product and GELU one kernel.
        nothing = tf.cast(tf.fill([self.ffn_dim], tf.shape(rows)[0] < 0), dtype)
        outputs = []
        for expert, tokens in enumerate(visits.tokens):
            inner = tf.matmul(tf.gather(rows, tokens), self.inner[expert])
            hidden = self.activation(tf.nn.bias_add(inner, nothing))
            outputs.append(tf.matmul(hidden, self.outer[expert]))
        outputs = tf.concat([*outputs, tf.zeros([1, width], x.dtype)], axis=0)
        weights = tf.reshape(choice.weights, [-1, self.active_experts])
        y = tf.add_n(
            [
                tf.gather(outputs, visits.places[:, i]) * weights[:, i : i + 1]
                for i in range(self.active_experts)
            ]
        )
        return reshape_last(y, x, width), self.router.count(choice, mask)

    def get_config(self):
        """Constructor arguments."""
        return {
            **super().get_config(),
            "ffn_dim": self.ffn_dim,
            "experts": self.experts,
            "active_experts": self.active_experts,
            "activation": keras.activations.serialize(self.activation),
            "equal_experts": self.equal_experts,
        }
