"""Mixtures of experts: linear maps and feed-forward networks of which a token uses k of E."""

from collections.abc import Callable

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers.activations import faster_form
from loopctr_tf.layers.common import build, clone_initializer, flat, linear, reshape_last
from loopctr_tf.layers.counting import not_counted, record_idle_experts, record_product
from loopctr_tf.layers.dispatch import DISPATCH
from loopctr_tf.layers.frozen import as_stored
from loopctr_tf.layers.routing import Router


@keras.utils.register_keras_serializable("loopctr_tf")
class StackedExperts(keras.initializers.Initializer):
    """Draws one kernel [d_in, d_out] with ``base`` and copies it to all E experts, or draws E.

    With equal experts a mixture with renormalised gates starts as the dense layer; in our study,
    independent draws learned far more slowly. Experts diverge because their gates differ.

    >>> kernel = StackedExperts()([4, 8, 16])
    >>> bool(tf.reduce_all(kernel[0] == kernel[3]))
    True
    """

    def __init__(
        self,
        base: str | dict | keras.initializers.Initializer = "glorot_uniform",
        equal: bool = True,
    ):
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


@keras.utils.register_keras_serializable("loopctr_tf")
class ExpertDense(keras.layers.Layer):
    """y = sum_e g_e x W_e, without bias: the value and output projections of MoE attention (3.4).

    Args:
      experts: E.
      units: width of the output; None means the input's.
      equal_experts: see :class:`StackedExperts`.
      zeros: whether W starts at zero.

    Input: x [..., d] and gates [..., E]. Output: [..., units].

    >>> gates = tf.constant([[0.5, 0.5, 0.0]])
    >>> ExpertDense(experts=3, units=2)(tf.ones([1, 8]), gates).shape
    TensorShape([1, 2])
    """

    def __init__(
        self,
        experts: int,
        units: int | None = None,
        equal_experts: bool = True,
        zeros: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.experts, self.units = experts, units
        self.equal_experts, self.zeros = equal_experts, zeros

    def build(self, input_shape):
        """Creates W [E, d, units]."""
        self.kernel = self.add_weight(
            "kernel",
            (self.experts, input_shape[-1], self.units or input_shape[-1]),
            initializer=StackedExperts(_start(self.zeros), self.equal_experts),
        )
        self.built = True

    def call(self, x, gates):
        """Applies the gated experts to ``x`` [..., d]."""
        width, units = self.kernel.shape[1:]
        # Scaling copies of x turns the sum over experts into one product: [..., E d] x [E d, units].
        gates = tf.cast(gates, x.dtype)  # Keras casts the first argument alone
        scaled = gates[..., :, None] * x[..., None, :]
        scaled = reshape_last(scaled, x, self.experts * width)
        kernel = tf.reshape(as_stored(self.kernel), [self.experts * width, units])
        record_idle_experts(gates, width * units)
        return linear(scaled, kernel)

    def get_config(self):
        """Constructor arguments."""
        return {
            **super().get_config(),
            "experts": self.experts,
            "units": self.units,
            "equal_experts": self.equal_experts,
            "zeros": self.zeros,
        }


@keras.utils.register_keras_serializable("loopctr_tf")
class MoEFeedForward(keras.layers.Layer):
    """y = sum_e g_e act(x U_e) V_e, with its own router and without biases (section 3.4).

    Args:
      ffn_dim: d_ff, inner width of one expert.
      experts: E.
      active_experts: k.
      activation: of the experts.
      equal_experts: see :class:`StackedExperts`.
      zero_outputs: whether V starts at zero, and y with it.
      dispatch: how tokens get to their experts, a key of :data:`~loopctr_tf.layers.dispatch.DISPATCH`;
        with "grouped" or "batched" a token costs k experts, not E, and padding costs nothing.

    Input: x [..., d], and optionally mask [...], False at padding, and depths, see
    :meth:`~loopctr_tf.layers.routing.Router.count`.
    Output: (y [..., d], zero at padding; router statistics [2, E], or [depths, 2, E]).

    >>> y, statistics = MoEFeedForward(ffn_dim=16)(tf.ones([3, 5, 8]))
    >>> y.shape, float(tf.reduce_sum(statistics[0]))  # 15 tokens, 2 experts each
    (TensorShape([3, 5, 8]), 30.0)
    """

    def __init__(
        self,
        ffn_dim: int,
        experts: int = 4,
        active_experts: int = 2,
        activation: str | Callable[[tf.Tensor], tf.Tensor] = "gelu",
        equal_experts: bool = True,
        zero_outputs: bool = False,
        dispatch: str = "grouped",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.ffn_dim, self.experts, self.active_experts = ffn_dim, experts, active_experts
        self.activation = keras.activations.get(activation)
        self.equal_experts, self.zero_outputs = equal_experts, zero_outputs
        self.dispatch = dispatch
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
            initializer=StackedExperts(_start(self.zero_outputs), self.equal_experts),
        )
        build(self.router, input_shape)
        self.built = True

    def call(self, x, mask=None, depths=None):
        """Applies the gated experts to the tokens ``x`` [..., d]."""
        choice = self.router.choose(x)
        rows, active = flat(x), self.active_experts
        experts = tf.reshape(choice.experts, [-1, active])
        if mask is not None:
            experts = tf.where(tf.reshape(mask, [-1, 1]), experts, self.experts)
        record_product(rows.shape, 2 * active * self.ffn_dim)
        with not_counted():
            y = DISPATCH[self.dispatch](
                rows,
                experts,
                tf.reshape(choice.weights, [-1, active]),
                tf.cast(as_stored(self.inner), x.dtype),
                tf.cast(as_stored(self.outer), x.dtype),
                faster_form(self.activation),
            )
        return reshape_last(y, x, x.shape[-1]), self.router.count(choice, mask, depths)

    def get_config(self):
        """Constructor arguments."""
        return {
            **super().get_config(),
            "ffn_dim": self.ffn_dim,
            "experts": self.experts,
            "active_experts": self.active_experts,
            "activation": keras.activations.serialize(self.activation),
            "equal_experts": self.equal_experts,
            "zero_outputs": self.zero_outputs,
            "dispatch": self.dispatch,
        }


def _start(zeros: bool) -> str:
    return "zeros" if zeros else "glorot_uniform"
