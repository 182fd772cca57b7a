"""The objective of every model: one ranking task a head, their weights, and regularisers."""

from collections.abc import Mapping, Sequence

import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras as keras


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
    """Mean over rows, or their weights, of a value whose per-replica shares sum to the batch's."""

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


class Objective(keras.layers.Layer):
    """The weighted cross-entropy of each head, plus the model's regularisers (eq. 10 and 14).

    One ``tfrs.tasks.Ranking`` a head holds that head's loss and AUC. The value returned is this
    replica's share: shares add up over replicas to the value for the global batch.

    Args:
      heads: names of the model's outputs; metrics are called ``<head>_loss`` and ``<head>_auc``, of
        the head "" ``cross_entropy`` and ``auc``.
      head_weights: weight of each head's cross-entropy; 0 only measures it.
      regularizers: weight of each regulariser, by name.

    Rows may have weights, of which the cross-entropy is a weighted mean: a weight of 2 is the row twice,
    of 0 the row left out. ``loss`` is that objective; all other metrics, and the regularisers, do not
    read weights.

    The AUC here has 200 thresholds; it monitors training and belongs in no table. Everything is
    float32, whatever the type of the inputs and whatever Keras's global policy.
    """

    def __init__(
        self,
        heads: Sequence[str],
        head_weights: Sequence[float],
        regularizers: Mapping[str, float] | None = None,
        **kwargs,
    ):
        super().__init__(dtype="float32", **kwargs)
        self.head_weights = tuple(head_weights)
        self.regularizers = dict(regularizers or {})
        self.tasks = [
            tfrs.tasks.Ranking(
                loss=keras.losses.BinaryCrossentropy(
                    from_logits=True, reduction=keras.losses.Reduction.SUM
                ),
                metrics=[
                    keras.metrics.BinaryCrossentropy(metric_name(head, "loss"), from_logits=True),
                    keras.metrics.AUC(name=metric_name(head, "auc"), from_logits=True),
                ],
                name=head or "head",
            )
            for head in heads
        ]
        self.loss = BatchMean("loss")
        self.means = {name: BatchMean(name) for name in self.regularizers}

    @property
    def tracked_metrics(self) -> list[keras.metrics.Metric]:
        """Every metric, in the order in which ``fit`` prints them."""
        by_head = (metric for task in self.tasks for metric in task.metrics)
        return [self.loss, *by_head, *self.means.values()]

    def call(self, labels, logits, losses=None, sample_weight=None):
        """This replica's share of the objective, float32 scalar; updates all metrics.

        Args:
          labels: [B] or [B, 1], 0 or 1.
          logits: [B, heads].
          losses: regulariser name -> this replica's share of it.
          sample_weight: [B] or [B, 1]; weighs rows in the cross-entropy.
        """
        labels = tf.reshape(tf.cast(labels, tf.float32), [-1, 1])
        logits = tf.cast(logits, tf.float32)
        rows = tf.shape(labels)[0]
        if sample_weight is not None:
            sample_weight = tf.reshape(tf.cast(sample_weight, tf.float32), [-1, 1])
        share = 0.0
        for i, (task, weight) in enumerate(zip(self.tasks, self.head_weights, strict=True)):
            # Not through Keras's __call__, which would cast labels to a global policy's compute type.
            predicted = logits[:, i : i + 1]
            share += weight * task.call(labels, predicted, sample_weight, compute_metrics=False)
            for metric in task.metrics:
                metric.update_state(labels, predicted)
        # Divided by the global batch, which replicas may hold unequal parts of.
        rows_here = tf.cast(rows, tf.float32)
        all_rows = tf.maximum(sum_over_replicas(rows_here), 1.0)
        here, everywhere = rows_here, all_rows
        if sample_weight is not None:
            here = tf.reduce_sum(sample_weight)
            everywhere = sum_over_replicas(here)
        total = tf.math.divide_no_nan(share, everywhere)
        for name, weight in self.regularizers.items():
            total += weight * losses[name]
            self.means[name].update_state(losses[name], rows_here, all_rows)
        self.loss.update_state(total, here, everywhere)
        return total


def metric_name(head: str, metric: str) -> str:
    """The name of a head's "loss" or "auc" in ``fit``; of a lone head the loss has one of its own.

    "loss" alone is the whole objective, regularisers included.
    """
    if head:
        return f"{head}_{metric}"
    return "cross_entropy" if metric == "loss" else metric
