"""The load-balancing loss of a global batch, from every replica's router statistics."""

import tensorflow as tf

from loopctr_tf.layers import balance_loss
from loopctr_tf.models.objective import replicas, sum_over_replicas


def balance_share(statistics: tf.Tensor) -> tf.Tensor:
    """This replica's share of L_bal, a mean over routers and over the depths at which each ran.

    Expert counts are summed over replicas first, so that the shares add up to the value for the global
    batch (eq. 11-13).

    Args:
      statistics: [routers, depths, 2, E] of this replica, zero where a router did not run.
    """
    whole = sum_over_replicas(statistics)
    ran = tf.cast(tf.reduce_sum(whole, axis=[-2, -1]) > 0, whole.dtype)  # [routers, depths]
    # The value with global sums, the gradient through this replica's probabilities.
    mixed = whole + statistics - tf.stop_gradient(statistics)
    loss = tf.math.divide_no_nan(
        tf.reduce_sum(balance_loss(mixed) * ran, axis=1), tf.reduce_sum(ran, axis=1)
    )
    used = tf.cast(tf.reduce_any(ran > 0, axis=1), loss.dtype)  # no loop, no Loop Block router
    loss = tf.math.divide_no_nan(tf.reduce_sum(loss), tf.reduce_sum(used))
    # Every replica computes the global value: each returns a share of it, with the whole gradient.
    return loss - tf.stop_gradient(loss) + tf.stop_gradient(loss) / replicas()
