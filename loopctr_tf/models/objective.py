"""The multi-depth objective: one ranking task a depth, their mean, and the balance of experts."""

import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras as keras

from loopctr_tf.layers import balance_loss


def replicas() -> int:
    """Replicas that train in sync; 1 outside a strategy."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def sum_over_replicas(value: tf.Tensor) -> tf.Tensor:
    """The sum of ``value`` over all replicas; no gradient passes."""
    context = tf.distribute.get_replica_context()
    if context is None or replicas() == 1:
        return tf.stop_gradient(value)
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.stop_gradient(value))


class BatchMean(keras.metrics.Metric):
    """Mean over rows of a value that replicas know their share of: shares add up to a batch's value."""

    def __init__(self, name: str):
        super().__init__(name)
        self.total = self.add_weight("total", initializer="zeros")
        self.rows = self.add_weight("rows", initializer="zeros")

    def update_state(self, share, rows_here, all_rows):
        """Adds a replica's share of the value of a batch of ``all_rows``, ``rows_here`` of them its."""
        self.total.assign_add(share * all_rows)
        self.rows.assign_add(rows_here)

    def result(self):
        """The mean so far, 0 before any row."""
        return tf.math.divide_no_nan(self.total, self.rows)


class MultiDepthObjective(keras.layers.Layer):
    """mean over depths of BCE(y, depth l) + lambda L_bal (eq. 10 and 14).

    One ``tfrs.tasks.Ranking`` a depth keeps that depth's loss and AUC. The value returned is this
    replica's share: shares add up over replicas to the value for the global batch, the balance loss
    included, whose expert counts are summed over replicas first.

    Args:
      depths: L + 1.
      balance_weight: lambda.
      supervision: "all" or "last" (only depth L is trained; all are measured).

    The AUC here has 200 thresholds; it watches training and belongs in no table. All is float32,
    whatever the type of what is given and whatever Keras's global policy.
    """

    def __init__(self, depths: int, balance_weight: float, supervision: str = "all", **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.balance_weight = balance_weight
        self._weights_of_depths = (
            [1 / depths] * depths if supervision == "all" else [0.0] * (depths - 1) + [1.0]
        )
        self.tasks = []
        for depth in range(depths):
            self.tasks.append(
                tfrs.tasks.Ranking(
                    loss=keras.losses.BinaryCrossentropy(
                        from_logits=True, reduction=keras.losses.Reduction.SUM
                    ),
                    metrics=[
                        keras.metrics.BinaryCrossentropy(f"loop_{depth}_loss", from_logits=True),
                        keras.metrics.AUC(name=f"loop_{depth}_auc", from_logits=True),
                    ],
                    name=f"loop_{depth}",
                )
            )
        self.loss = BatchMean("loss")
        self.balance = BatchMean("balance_loss")

    @property
    def tracked_metrics(self) -> list[keras.metrics.Metric]:
        """Every metric, in the order in which ``fit`` shows them."""
        return [self.loss, *(m for task in self.tasks for m in task.metrics), self.balance]

    def call(self, labels, logits, statistics, sample_weight=None):
        """This replica's share of the objective, float32 scalar; updates all metrics.

        Args:
          labels: [B] or [B, 1], 0 or 1.
          logits: [B, L + 1].
          statistics: router statistics [routers, depths, 2, E] of this replica, zero where a router
            did not run.
          sample_weight: [B] or [B, 1]; weighs rows in loss and metrics.
        """
        labels = tf.reshape(tf.cast(labels, tf.float32), [-1, 1])
        logits = tf.cast(logits, tf.float32)
        rows = tf.shape(labels)[0]
        if sample_weight is not None:
            sample_weight = tf.reshape(tf.cast(sample_weight, tf.float32), [-1, 1])
        share = 0.0
        for depth, (task, weight) in enumerate(
            zip(self.tasks, self._weights_of_depths, strict=True)
        ):
            # Not by way of Keras, which would cast labels to the compute type of a global policy.
            share += weight * task.call(labels, logits[:, depth : depth + 1], sample_weight)
        # Divided by the global batch, which replicas may hold unequal parts of.
        rows_here = tf.cast(rows, tf.float32)
        all_rows = tf.maximum(sum_over_replicas(rows_here), 1.0)
        share /= all_rows
        balance = self._balance_share(statistics)
        total = share + self.balance_weight * balance
        for metric, value in ((self.loss, total), (self.balance, balance)):
            metric.update_state(value, rows_here, all_rows)
        return total

    def _balance_share(self, statistics: tf.Tensor) -> tf.Tensor:
        """Mean over the routers that ran of the mean over the depths at which each did."""
        whole = sum_over_replicas(statistics)
        ran = tf.cast(tf.reduce_sum(whole, axis=[-2, -1]) > 0, whole.dtype)  # [routers, depths]
        # The value with global sums, the gradient through this replica's probabilities.
        mixed = whole + statistics - tf.stop_gradient(statistics)
        loss = tf.math.divide_no_nan(
            tf.reduce_sum(balance_loss(mixed) * ran, axis=1), tf.reduce_sum(ran, axis=1)
        )
        used = tf.cast(tf.reduce_any(ran > 0, axis=1), loss.dtype)  # no loop, no Loop Block router
        loss = tf.math.divide_no_nan(tf.reduce_sum(loss), tf.reduce_sum(used))
        # Every replica computes the global value: a share of it each, with the whole gradient.
        return loss - tf.stop_gradient(loss) + tf.stop_gradient(loss) / replicas()
