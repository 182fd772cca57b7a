"""GAUC as a Keras metric: histograms of scores per group, for watching a training run."""

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.errors import UsageError
from loopctr_tf.evaluation.exact import EPSILON, WEIGHTINGS
from loopctr_tf.evaluation.streaming import flatten_inputs


@keras.saving.register_keras_serializable(package="loopctr_tf")
class GroupAUC(keras.metrics.Metric):
    """Group AUC (GAUC) over all rows seen, from score histograms; a monitor, not a report.

    GAUC = sum_g w_g AUC_g / sum_g w_g over the groups that have both classes (LoopCTR paper,
    section 4.1; DIN, Zhou et al., KDD 2018). The state counts, for each group, positives and
    negatives in ``bins`` equal steps of the logit, so that batches and replicas add up. Two things
    keep it from being exact; `loopctr_tf.evaluation.gauc` has neither:

    - Groups share ``num_groups`` buckets: integers modulo ``num_groups``, strings by
      ``tf.strings.to_hash_bucket_fast``. Groups that collide are judged as one. Consecutive integer
      ids never collide when there are at most ``num_groups`` of them.
    - Scores in the same bin are ties and count half, and all logits beyond ``max_logit`` fall into
      the outermost bins. Steps of the logit, rather than of the probability, keep their resolution
      where click-through rates are low.

    Each update and each result touch all 2 * num_groups * bins counters (6.6 MB by default): watch
    a validation pass with it, rather than every training step. Strings do not compile under XLA;
    pass integers there.

    Example::

        metric = GroupAUC()
        metric.update_state([1, 0, 1], [0.9, 0.2, 0.4], groups=["ann", "ann", "bob"])
        metric.result()  # 1.0: ann's pair is in order, bob has no pair

    Args:
        num_groups: buckets for groups.
        bins: steps of the logit between -max_logit and max_logit.
        max_logit: the largest logit that is told apart; 10 is a probability of 0.99995.
        weighting: "plain", "impressions" or "clicks", as in `loopctr_tf.evaluation.gauc`.
        from_logits: False (default) for probabilities; True for logits.
        name: "group_auc" by default.
        dtype: of the result; float32 by default.

    Inputs: labels 0 or 1, predictions, groups (integers or strings) and optional weights, each of
    shape [B] or [B, 1]. The result is a scalar; NaN while no group has both classes.

    Raises:
        UsageError: for an argument out of range.
    """

    def __init__(
        self,
        num_groups: int = 4096,
        bins: int = 200,
        max_logit: float = 10.0,
        weighting: str = "plain",
        from_logits: bool = False,
        name="group_auc",
        dtype=None,
    ):
        super().__init__(name=name, dtype=dtype)
        if weighting not in WEIGHTINGS:
            raise UsageError(
                f"unknown weighting {weighting!r}; choose one of {', '.join(WEIGHTINGS)}"
            )
        for argument, value, least in (("num_groups", num_groups, 1), ("bins", bins, 2)):
            if value < least:
                raise UsageError(f"{argument} must be at least {least}, got {value}; raise it")
        if max_logit <= 0:
            raise UsageError(f"max_logit must be positive, got {max_logit}; 10 suits most data")
        self.num_groups = int(num_groups)
        self.bins = int(bins)
        self.max_logit = float(max_logit)
        self.weighting = weighting
        self.from_logits = bool(from_logits)
        # float32 halves the memory, and counts in one cell stay exact up to 2^24 rows.
        self.histogram = self.add_weight(
            "histogram", shape=(2, self.num_groups, self.bins), initializer="zeros", dtype="float32"
        )

    @tf.autograph.experimental.do_not_convert  # AutoGraph would rewrap a UsageError
    def update_state(self, y_true, y_pred, sample_weight=None, groups=None):
        """Adds a batch.

        Args:
            y_true: labels 0 or 1, shape [B] or [B, 1].
            y_pred: predictions, the same shape.
            sample_weight: weights of the same shape, a scalar, or None.
            groups: integers or strings, the same shape; required.

        Raises:
            UsageError: when `groups` is missing or of another dtype, or sizes differ.
        """
        if groups is None:
            raise UsageError("groups is None; call update_state(y_true, y_pred, groups=user_ids)")
        labels, predictions, weights = flatten_inputs(y_true, y_pred, sample_weight)
        bucket = tf.reshape(self._bucket(tf.convert_to_tensor(groups)), tf.shape(labels))  # [B]
        is_negative = tf.cast(labels < 0.5, tf.int64)  # plane 0 holds positives, plane 1 negatives
        cell = (is_negative * self.num_groups + bucket) * self.bins + self._bin(predictions)  # [B]
        # Dense, because variables that are summed on read refuse scatter_add under a strategy.
        counts = tf.math.unsorted_segment_sum(
            tf.cast(weights, tf.float32), cell, 2 * self.num_groups * self.bins
        )
        self.histogram.assign_add(tf.reshape(counts, [2, self.num_groups, self.bins]))

    def result(self):
        """The GAUC of all rows seen, a scalar of the metric's dtype."""
        histogram = tf.cast(tf.convert_to_tensor(self.histogram), tf.float64)
        positive, negative = tf.unstack(histogram)  # each [groups, bins]
        lower = tf.cumsum(negative, axis=1, exclusive=True)
        area = tf.reduce_sum(positive * (lower + 0.5 * negative), axis=1)  # [groups]
        clicks = tf.reduce_sum(positive, axis=1)
        others = tf.reduce_sum(negative, axis=1)
        used = tf.cast((clicks > 0.0) & (others > 0.0), tf.float64)
        weight = (
            used
            * {
                "plain": tf.ones_like(clicks),
                "impressions": clicks + others,
                "clicks": clicks,
            }[self.weighting]
        )
        mean = tf.reduce_sum(weight * tf.math.divide_no_nan(area, clicks * others))
        # 0 / 0 is NaN on purpose: no group has both classes.
        return tf.cast(mean / tf.reduce_sum(weight), self.dtype)

    def reset_state(self):
        """Sets all counters to zero."""
        self.histogram.assign(tf.zeros(self.histogram.shape))

    def get_config(self):
        """The constructor's arguments, so that `from_config` restores an equal metric."""
        return {
            **super().get_config(),
            "num_groups": self.num_groups,
            "bins": self.bins,
            "max_logit": self.max_logit,
            "weighting": self.weighting,
            "from_logits": self.from_logits,
        }

    def _bucket(self, groups):
        if groups.dtype == tf.string:
            return tf.strings.to_hash_bucket_fast(groups, self.num_groups)
        if groups.dtype.is_integer:
            return tf.math.floormod(tf.cast(groups, tf.int64), self.num_groups)
        raise UsageError(
            f"groups must be integers or strings, got {groups.dtype.name}; cast the ids"
        )

    def _bin(self, predictions):
        if self.from_logits:
            logits = predictions
        else:
            clipped = tf.clip_by_value(predictions, EPSILON, 1.0 - EPSILON)
            logits = tf.math.log(clipped) - tf.math.log1p(-clipped)
        steps = tf.floor((logits + self.max_logit) * (self.bins / (2.0 * self.max_logit)))
        # Clipped before the cast, because an infinite number has no integer.
        return tf.cast(tf.clip_by_value(steps, 0.0, self.bins - 1.0), tf.int64)
