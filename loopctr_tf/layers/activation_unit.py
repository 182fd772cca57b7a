"""DIN's local activation unit: a user's events weighted by what they have to do with a candidate."""

from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers.common import build, linear
from loopctr_tf.layers.counting import record_product
from loopctr_tf.layers.frozen import as_stored
from loopctr_tf.layers.mlp import MLP


@keras.utils.register_keras_serializable("loopctr_tf")
class ActivationUnit(keras.layers.Layer):
    """v(t) = sum_j a(h_j, t) h_j with a(h, t) = MLP([t; h; t - h; t * h]) (eq. 3), without a softmax.

    The weights do not sum to one, so that v keeps how strong an interest is. Hidden layers have sigmoid
    activations, as in the authors' code; the paper's Dice would make a row's score in training depend on
    its batch.

    The first layer is linear in h for a given t, so that it is computed with one kernel [d, u] for each
    row, of which the parts for h, t - h and t * h are terms: a quarter of the operations, and no array
    [B, T, 4 d].

    Args:
      units: hidden widths u of the network, at least one.

    Input: candidate t [B, d], events h [B, T, d] and mask [B, T], False at padding, whose values do not
    matter. Output: [B, d], zero without events.

    Weights: (4 d + 1) u_1 + (u_1 + 1) u_2 + ... + (u_last + 1). Source: Zhou et al., Deep Interest
    Network for Click-Through Rate Prediction.

    >>> candidate, events = tf.ones([3, 8]), tf.ones([3, 5, 8])
    >>> ActivationUnit([6])(candidate, events, tf.sequence_mask([5, 2, 0], 5)).shape
    TensorShape([3, 8])
    """

    def __init__(self, units: Sequence[int] = (36,), **kwargs):
        super().__init__(**kwargs)
        self.units = tuple(units)
        if not self.units:
            raise ValueError("units is empty; give at least one hidden width")
        self.rest = MLP((*self.units[1:], 1), "sigmoid", name="rest", dtype=self.dtype_policy)

    def build(self, input_shape):
        """Creates all weights for a candidate [B, d]."""
        shape = (4 * input_shape[-1], self.units[0])
        self.kernel = self.add_weight("kernel", shape, initializer="glorot_uniform")
        self.bias = self.add_weight("bias", (self.units[0],), initializer="zeros")
        build(self.rest, tf.TensorShape([None, self.units[0]]))
        self.built = True

    def call(self, candidate, events, mask):
        """The events' weighted sum [B, d]."""
        # Zeroed first: a NaN times a weight of zero is a NaN.
        events = tf.where(mask[..., None], tf.cast(events, candidate.dtype), 0.0)
        weights = tf.where(mask, self._weights(candidate, events), 0.0)
        record_product(events.shape)
        return tf.matmul(weights[:, None], events)[:, 0]

    def _weights(self, candidate, events) -> tf.Tensor:
        """a(h_j, t) [B, T]."""
        kernel = tf.cast(as_stored(self.kernel), candidate.dtype)
        ours, theirs, difference, product = tf.split(kernel, 4)  # each [d, u]
        constant = linear(candidate, ours + difference) + tf.cast(self.bias, candidate.dtype)
        by_row = theirs - difference + candidate[..., None] * product  # [B, d, u]
        record_product(events.shape, self.units[0])
        hidden = tf.sigmoid(tf.matmul(events, by_row) + constant[:, None])  # [B, T, u]
        return self.rest(hidden)[..., 0]

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "units": list(self.units)}
