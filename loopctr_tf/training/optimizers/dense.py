"""AdamW that decays only matrices and clips the summed gradient of a row."""

import tensorflow as tf
import tf_keras as keras

COPIES = r"(/(replica|part)_\d+)*(:\d+)?$"
"""What may end a variable's name: a strategy's replicas and partitions."""

UNDECAYED = (
    r"(^|/)(\w+_)?(embeddings|bias(_\d+)?|gain|gamma|beta|sink|vectors|queries|token)" + COPIES,
    r"_hcr/\w+?" + COPIES,
)
"""Patterns of variables without weight decay. They match the ends of names, so that the names of models
and sequences do not matter."""


@keras.utils.register_keras_serializable("loopctr_tf")
class AdamW(keras.optimizers.AdamW):
    """Keras's AdamW that never decays :data:`UNDECAYED`, even after it was saved and loaded.

    Gradients are cast to the precision of their variables. If a row occurs several times in a batch, its
    gradients are summed before they are clipped, as they would be in a dense gradient; Keras clips
    first, by the norm of the separate gradients.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.exclude_from_weight_decay(var_names=list(UNDECAYED))

    def apply_gradients(self, grads_and_vars, *args, **kwargs):
        """As in Keras, for gradients of any floating-point type."""
        grads_and_vars = [
            (gradient if gradient is None else tf.cast(gradient, variable.dtype), variable)
            for gradient, variable in grads_and_vars
        ]
        return super().apply_gradients(grads_and_vars, *args, **kwargs)

    def _clip_gradients(self, grads):
        return super()._clip_gradients(super()._deduplicate_sparse_grad(grads))

    def _deduplicate_sparse_grad(self, grads):
        return grads  # done before clipping

    def _update_step_xla(self, gradient, variable, key):
        # Batches have any number of distinct rows, and XLA would compile for each number.
        if isinstance(gradient, tf.IndexedSlices):
            return self._update_step(gradient, variable)
        return super()._update_step_xla(gradient, variable, key)
