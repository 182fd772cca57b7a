"""Normalised entropy and calibration as Keras metrics, kept as sums so that replicas add up.

Two choices hold for every metric here:

- The state is float64 whatever the metric's ``dtype``. A float32 counter stops at 2^24 = 16.8
  million rows, and the state is a few scalars, so that double precision costs nothing, on CPU or
  GPU. ``dtype`` is that of the result.
- A result that the rows seen so far do not define is NaN, not 0: an NE of 0 would read as a perfect
  model, and a checkpoint callback would keep it.
"""

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.errors import UsageError
from loopctr_tf.evaluation.exact import EPSILON


def flatten_inputs(y_true, y_pred, sample_weight):
    """Labels, predictions and weights as float64 of shape [B], from shapes [B] or [B, 1].

    Args:
        y_true: labels of any numeric dtype.
        y_pred: as many predictions.
        sample_weight: as many weights, a scalar, or None for 1.

    Raises:
        UsageError: when the numbers of labels and predictions are known and differ.
    """
    y_true, y_pred = tf.convert_to_tensor(y_true), tf.convert_to_tensor(y_pred)
    sizes = [y_true.shape.num_elements(), y_pred.shape.num_elements()]
    if None not in sizes and sizes[0] != sizes[1]:
        raise UsageError(
            f"y_pred has {sizes[1]} values but y_true has {sizes[0]}; pass one for each label"
        )
    labels = tf.reshape(tf.cast(y_true, tf.float64), [-1])  # [B]
    # Reshaping to the labels' shape fails where a broadcast would hide unequal sizes.
    predictions = tf.reshape(tf.cast(y_pred, tf.float64), tf.shape(labels))  # [B]
    if sample_weight is None:
        return labels, predictions, tf.ones_like(labels)
    weights = tf.reshape(tf.cast(sample_weight, tf.float64), [-1])  # [B] or [1]
    return labels, predictions, tf.broadcast_to(weights, tf.shape(labels))


def _divide_or_nan(numerator, denominator):
    undefined = tf.constant(float("nan"), numerator.dtype)
    return tf.where(denominator > 0.0, tf.math.divide_no_nan(numerator, denominator), undefined)


class _BinaryMetric(keras.metrics.Metric):
    """Base: the ``from_logits`` option and float64 scalar sums."""

    def __init__(self, from_logits: bool = False, name: str | None = None, dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.from_logits = bool(from_logits)

    def _add_sum(self, name: str):
        return self.add_weight(name, initializer="zeros", dtype=tf.float64)

    def get_config(self):
        """The constructor's arguments, so that `from_config` restores an equal metric."""
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
        metric.result()  # 1.0: the base rate says nothing

    Args:
        from_logits: False (default) for probabilities, which are clipped by
            `loopctr_tf.evaluation.EPSILON`; True for logits, whose loss needs no clipping.
        name: "normalized_entropy" by default.
        dtype: of the result; float32 by default. The sums are float64 in any case.

    Inputs: labels 0 or 1, predictions and optional weights, each of shape [B] or [B, 1]. The result
    is a scalar; NaN before any row, and while all labels seen are equal.
    """

    def __init__(self, from_logits: bool = False, name="normalized_entropy", dtype=None):
        super().__init__(from_logits=from_logits, name=name, dtype=dtype)
        self.loss = self._add_sum("loss")
        self.positives = self._add_sum("positives")
        self.count = self._add_sum("count")

    @tf.autograph.experimental.do_not_convert  # AutoGraph would rewrap a UsageError
    def update_state(self, y_true, y_pred, sample_weight=None):
        """Adds a batch: labels and predictions of shape [B] or [B, 1], weights of the same or none.

        Raises:
            UsageError: when the numbers of labels and predictions differ.
        """
        labels, predictions, weights = flatten_inputs(y_true, y_pred, sample_weight)
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

    def __init__(self, from_logits: bool = False, name="calibration", dtype=None):
        super().__init__(from_logits=from_logits, name=name, dtype=dtype)
        self.predicted = self._add_sum("predicted")
        self.observed = self._add_sum("observed")

    @tf.autograph.experimental.do_not_convert  # AutoGraph would rewrap a UsageError
    def update_state(self, y_true, y_pred, sample_weight=None):
        """Adds a batch: labels and predictions of shape [B] or [B, 1], weights of the same or none.

        Raises:
            UsageError: when the numbers of labels and predictions differ.
        """
        labels, predictions, weights = flatten_inputs(y_true, y_pred, sample_weight)
        probabilities = tf.sigmoid(predictions) if self.from_logits else predictions
        self.predicted.assign_add(tf.reduce_sum(weights * probabilities))
        self.observed.assign_add(tf.reduce_sum(weights * labels))

    def result(self):
        """The calibration of all rows seen, a scalar of the metric's dtype."""
        predicted, observed = (
            tf.convert_to_tensor(self.predicted),
            tf.convert_to_tensor(self.observed),
        )
        return tf.cast(_divide_or_nan(predicted, observed), self.dtype)
