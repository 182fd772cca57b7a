"""Normalised entropy, calibration and GAUC as Keras metrics, as sums that add up over replicas.

The sums are float64 (the histogram of `GroupAUC` apart) whatever the metric's ``dtype``: a float32
counter stops at 2^24 = 16.8 million rows. ``dtype`` is that of the result. A result that the rows so
far do not define is NaN, not 0: an NE of 0 would read as a perfect model, and a checkpoint callback
would keep it.
"""

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.errors import UsageError
from loopctr_tf.evaluation.exact import EPSILON, WEIGHTINGS


def _flatten_inputs(y_true, y_pred, sample_weight):
    """Labels, predictions and weights as float64 [B]; UsageError when the numbers of rows differ."""
    y_true, y_pred = tf.convert_to_tensor(y_true), tf.convert_to_tensor(y_pred)
    sizes = [y_true.shape.num_elements(), y_pred.shape.num_elements()]
    if None not in sizes and sizes[0] != sizes[1]:
        raise UsageError(
            f"y_pred has {sizes[1]} values but y_true has {sizes[0]}; pass one for each label"
        )
    labels = tf.reshape(tf.cast(y_true, tf.float64), [-1])  # [B]
    # A reshape fails on unequal sizes, which a broadcast would hide.
    predictions = tf.reshape(tf.cast(y_pred, tf.float64), tf.shape(labels))  # [B]
    if sample_weight is None:
        return labels, predictions, tf.ones_like(labels)
    weights = tf.reshape(tf.cast(sample_weight, tf.float64), [-1])  # [B] or [1]
    return labels, predictions, tf.broadcast_to(weights, tf.shape(labels))


def _divide_or_nan(numerator, denominator):
    undefined = tf.constant(float("nan"), numerator.dtype)
    return tf.where(denominator > 0.0, tf.math.divide_no_nan(numerator, denominator), undefined)


class _BinaryMetric(keras.metrics.Metric):
    """Base of the metrics: the ``from_logits`` option and float64 scalar sums."""

    def __init__(
        self, from_logits: bool = False, name: str | None = None, dtype: str | None = None
    ):
        super().__init__(name=name, dtype=dtype)
        self.from_logits = bool(from_logits)

    def _add_sum(self, name: str):
        return self.add_weight(name, initializer="zeros", dtype=tf.float64)

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "from_logits": self.from_logits}


@keras.saving.register_keras_serializable(package="loopctr_tf")
class NormalizedEntropy(_BinaryMetric):
    """Normalised entropy over all rows seen: mean log-loss / entropy of the empirical CTR.

    NE = (sum_i w_i l_i / n) / (-c log c - (1 - c) log(1 - c)), with l_i the binary cross-entropy of
    row i, n = sum_i w_i and c = sum_i w_i y_i / n (LoopCTR paper, section 4.1; He et al.,
    "Practical Lessons from Predicting Clicks on Ads at Facebook", ADKDD 2014, equation 1). The
    state is the three sums, so that batches and replicas add up to the value over all rows. It
    equals `loopctr_tf.evaluation.normalized_entropy`.

    Example::

        metric = NormalizedEntropy()
        metric.update_state([1, 0], [0.5, 0.5])
        metric.result()  # 1.0, as for any constant base rate

    Args:
        from_logits: False (default) for probabilities, which are clipped by
            `loopctr_tf.evaluation.EPSILON`; True for logits, whose loss needs no clipping.
        name: "normalized_entropy" by default.
        dtype: of the result; float32 by default. The sums are float64 in any case.

    Inputs: labels 0 or 1, predictions and optional weights, each of shape [B] or [B, 1]. The result
    is a scalar; NaN before any row, and while all labels seen are equal.
    """

    def __init__(
        self,
        from_logits: bool = False,
        name: str = "normalized_entropy",
        dtype: str | None = None,
    ):
        super().__init__(from_logits=from_logits, name=name, dtype=dtype)
        self.loss = self._add_sum("loss")
        self.positives = self._add_sum("positives")
        self.count = self._add_sum("count")

    @tf.autograph.experimental.do_not_convert  # AutoGraph would rewrap a UsageError
    def update_state(self, y_true, y_pred, sample_weight=None):
        """Adds a batch of labels, predictions and optional weights, each of shape [B] or [B, 1]."""
        labels, predictions, weights = _flatten_inputs(y_true, y_pred, sample_weight)
        if self.from_logits:
            loss = tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=predictions)
        else:
            clipped = tf.clip_by_value(predictions, EPSILON, 1.0 - EPSILON)
            loss = -labels * tf.math.log(clipped) - (1.0 - labels) * tf.math.log1p(-clipped)
        self.loss.assign_add(tf.reduce_sum(weights * loss))
        self.positives.assign_add(tf.reduce_sum(weights * labels))
        self.count.assign_add(tf.reduce_sum(weights))

    def result(self):
        """The normalised entropy of all rows seen, a scalar of the metric's dtype."""
        count = tf.convert_to_tensor(self.count)
        rate = tf.math.divide_no_nan(tf.convert_to_tensor(self.positives), count)
        entropy = -tf.math.xlogy(rate, rate) - tf.math.xlog1py(1.0 - rate, -rate)
        mean_loss = tf.math.divide_no_nan(tf.convert_to_tensor(self.loss), count)
        return tf.cast(_divide_or_nan(mean_loss, entropy), self.dtype)


@keras.saving.register_keras_serializable(package="loopctr_tf")
class Calibration(_BinaryMetric):
    """Mean predicted probability over mean label of all rows seen; 1 is calibrated.

    Calibration = sum_i w_i p_i / sum_i w_i y_i (He et al., ADKDD 2014, section 2). The state is the
    two sums, so that batches and replicas add up to the value over all rows. It equals
    `loopctr_tf.evaluation.calibration`.

    Args:
        from_logits: False (default) for probabilities; True for logits.
        name: "calibration" by default.
        dtype: of the result; float32 by default. The sums are float64 in any case.

    Inputs: labels 0 or 1, predictions and optional weights, each of shape [B] or [B, 1]. The result
    is a scalar; NaN before the first positive row.
    """

    def __init__(
        self,
        from_logits: bool = False,
        name: str = "calibration",
        dtype: str | None = None,
    ):
        super().__init__(from_logits=from_logits, name=name, dtype=dtype)
        self.predicted = self._add_sum("predicted")
        self.observed = self._add_sum("observed")

    @tf.autograph.experimental.do_not_convert  # AutoGraph would rewrap a UsageError
    def update_state(self, y_true, y_pred, sample_weight=None):
        """Adds a batch of labels, predictions and optional weights, each of shape [B] or [B, 1]."""
        labels, predictions, weights = _flatten_inputs(y_true, y_pred, sample_weight)
        probabilities = tf.sigmoid(predictions) if self.from_logits else predictions
        self.predicted.assign_add(tf.reduce_sum(weights * probabilities))
        self.observed.assign_add(tf.reduce_sum(weights * labels))

    def result(self):
        """The calibration of all rows seen, a scalar of the metric's dtype."""
        predicted = tf.convert_to_tensor(self.predicted)
        ratio = _divide_or_nan(predicted, tf.convert_to_tensor(self.observed))
        return tf.cast(ratio, self.dtype)


@keras.saving.register_keras_serializable(package="loopctr_tf")
class GroupAUC(_BinaryMetric):
    """Group AUC (GAUC) over all rows seen, from score histograms; a monitor, not a report.

    GAUC = sum_g w_g AUC_g / sum_g w_g over the groups that have both classes (LoopCTR paper,
    section 4.1; DIN, Zhou et al., KDD 2018). The state counts, for each group, positives and
    negatives in ``bins`` equal steps of the logit, so that batches and replicas add up. It is
    approximate in two ways; `loopctr_tf.evaluation.gauc` is exact:

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
        max_logit: larger logits count as equal; 10 is a probability of 0.99995.
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
        name: str = "group_auc",
        dtype: str | None = None,
    ):
        super().__init__(from_logits=from_logits, name=name, dtype=dtype)
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
        # float32 halves the memory, and counts in one cell stay exact up to 2^24 rows.
        self.histogram = self.add_weight(
            "histogram", shape=(2, self.num_groups, self.bins), initializer="zeros", dtype="float32"
        )

    @tf.autograph.experimental.do_not_convert  # AutoGraph would rewrap a UsageError
    def update_state(self, y_true, y_pred, sample_weight=None, groups=None):
        """Adds a batch; all of shape [B] or [B, 1], ``groups`` (integers or strings) is required."""
        if groups is None:
            raise UsageError("groups is None; call update_state(y_true, y_pred, groups=user_ids)")
        labels, predictions, weights = _flatten_inputs(y_true, y_pred, sample_weight)
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
        weights = {
            "plain": tf.ones_like(clicks),
            "impressions": clicks + others,
            "clicks": clicks,
        }
        weight = used * weights[self.weighting]
        mean = tf.reduce_sum(weight * tf.math.divide_no_nan(area, clicks * others))
        # 0 / 0 is NaN on purpose: no group has both classes.
        return tf.cast(mean / tf.reduce_sum(weight), self.dtype)

    def reset_state(self):
        """Sets all counters to zero."""
        self.histogram.assign(tf.zeros(self.histogram.shape))

    def get_config(self):
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "num_groups": self.num_groups,
            "bins": self.bins,
            "max_logit": self.max_logit,
            "weighting": self.weighting,
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
