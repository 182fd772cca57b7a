"""The router of a mixture of experts, its statistics, and the loss that keeps experts in use."""

from typing import NamedTuple

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers.common import clone_initializer, linear, stable_dtype
from loopctr_tf.layers.frozen import weights_are_frozen


class Choice(NamedTuple):
    """The experts chosen for each token.

    Attributes:
      experts: int32 [..., k], their indices.
      weights: [..., k], their gates, which sum to one.
      logits: [..., E], of all experts, at least float32.
    """

    experts: tf.Tensor
    weights: tf.Tensor
    logits: tf.Tensor


class Routing(NamedTuple):
    """The experts of each token, as a weight for every expert.

    Attributes:
      gates: [..., E]; zero for experts not chosen; they sum to one.
      statistics: [2, E]: numbers of assignments, and sums of router probabilities, over real tokens.
    """

    gates: tf.Tensor
    statistics: tf.Tensor


def balance_loss(statistics: tf.Tensor) -> tf.Tensor:
    """Load-balancing loss E * sum_e f_e p_e (eq. 13): 1 at uniform routing, E when one expert has all.

    Args:
      statistics: [..., 2, E], :class:`Routing` statistics; those of several calls of a router, or of
        several replicas, may be added up.

    Returns:
      [...]; 0 if no token was counted. The gradient flows only through p_e, as in Switch.

    >>> float(balance_loss(tf.constant([[6.0, 0.0], [6.0, 0.0]])))
    2.0
    """
    counts, probabilities = tf.unstack(statistics, axis=-2)
    share = tf.math.divide_no_nan(counts, tf.reduce_sum(counts, axis=-1, keepdims=True))
    # A token's probabilities sum to one, so that their sum over experts is the number of tokens.
    tokens = tf.stop_gradient(tf.reduce_sum(probabilities, axis=-1, keepdims=True))
    mean = tf.math.divide_no_nan(probabilities, tokens)
    experts = tf.cast(tf.shape(statistics)[-1], statistics.dtype)
    return experts * tf.reduce_sum(tf.stop_gradient(share) * mean, axis=-1)


@keras.utils.register_keras_serializable("loopctr_tf")
class Router(keras.layers.Layer):
    """Chooses k of E experts for each token (section 3.4).

    gates = softmax(x W) over all E, restricted to the k largest and renormalised, which equals the
    softmax over the k largest logits. No bias; at least float32 whatever the compute type.

    Args:
      experts: E.
      active_experts: k.
      kernel_initializer: of W; random, so that tokens use different experts from the first step on.

    Input: x [..., d], and optionally mask [...], False at padding, which is not counted.
    Output: :class:`Routing`.

    >>> gates, statistics = Router(experts=4, active_experts=2)(tf.ones([3, 8]))
    >>> tf.math.count_nonzero(gates, axis=-1).numpy()
    array([2, 2, 2])
    """

    def __init__(
        self,
        experts: int,
        active_experts: int,
        kernel_initializer: str | dict | keras.initializers.Initializer = "glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.experts, self.active_experts = experts, active_experts
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape):
        """Creates W [d, E]."""
        self.kernel = self.add_weight(
            "kernel",
            (input_shape[-1], self.experts),
            initializer=clone_initializer(self.kernel_initializer),
            experimental_autocast=False,
        )
        self.built = True

    def call(self, x, mask=None, depths=None):
        """Routes the tokens ``x`` [..., d]; ``depths``: see :meth:`count`."""
        choice = self.choose(x)
        picked = tf.one_hot(choice.experts, self.experts, dtype=choice.weights.dtype)
        gates = tf.reduce_sum(picked * choice.weights[..., None], axis=-2)
        return Routing(gates, self.count(choice, mask, depths))

    def choose(self, x: tf.Tensor) -> Choice:
        """The experts of the tokens ``x`` [..., d], for callers that only dispatch to these."""
        dtype = stable_dtype(x.dtype)
        # A tensor, which no export stores in half precision: a choice may depend on the last digits.
        kernel = tf.cast(tf.convert_to_tensor(self.kernel), dtype)
        logits = linear(tf.cast(x, dtype), kernel)
        # One top_k for gates and counts, so that both agree.
        largest, experts = tf.math.top_k(logits, self.active_experts)
        weights = tf.cast(tf.nn.softmax(largest), x.dtype)
        return Choice(experts, weights, logits)

    def count(self, choice: Choice, mask=None, depths: int | None = None) -> tf.Tensor:
        """Statistics [2, E] of all tokens but padding; see :class:`Routing`.

        With ``depths``, [depths, 2, E]: the tokens are those of that many depths, concatenated.
        """
        if weights_are_frozen():
            shape = [depths, 2, self.experts] if depths else [2, self.experts]
            return tf.zeros(shape, choice.logits.dtype)
        with tf.name_scope("count"):
            probabilities = tf.nn.softmax(choice.logits)
            picked = tf.one_hot(choice.experts, self.experts, dtype=probabilities.dtype)
            both = tf.stack([tf.reduce_sum(picked, axis=-2), probabilities], axis=-2)  # [..., 2, E]
            if mask is not None:
                both *= tf.cast(mask, both.dtype)[..., None, None]
            counted = tf.reduce_sum(tf.reshape(both, [depths or 1, -1, 2, self.experts]), axis=1)
            return counted if depths else counted[0]

    def get_config(self):
        """Constructor arguments."""
        return {
            **super().get_config(),
            "experts": self.experts,
            "active_experts": self.active_experts,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
