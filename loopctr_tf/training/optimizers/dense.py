"""AdamW that decays matrices alone and clips what a batch asks of a row, not its parts."""

import tensorflow as tf
import tf_keras as keras

COPIES = r"(/(replica|part)_\d+)*(:\d+)?$"
"""How a name may go on: a strategy's copies and parts of a variable."""

UNDECAYED = (
    r"(^|/)(embeddings|bias(_\d+)?|gain|sink|vectors|queries)" + COPIES,
    r"_hcr/\w+?" + COPIES,
)
"""Patterns of the variables that weight decay leaves alone; the ends of names, so that what a user calls
a model or a sequence does not matter."""


@keras.utils.register_keras_serializable("loopctr_tf")
class AdamW(keras.optimizers.AdamW):
    """Keras's AdamW that never decays :data:`UNDECAYED`, also after it was saved and loaded.

    Gradients come in the precision of their variables. Those of a table's row that a batch names several
    times are summed before they are clipped, as they would be in a dense gradient; Keras clips first, by
    a norm that knows nothing of the sums.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.exclude_from_weight_decay(var_names=list(UNDECAYED))

    def apply_gradients(self, grads_and_vars, *args, **kwargs):
        """Keras's, for gradients of any floating-point type."""
        grads_and_vars = [
            (gradient if gradient is None else tf.cast(gradient, variable.dtype), variable)
            for gradient, variable in grads_and_vars
        ]
        return super().apply_gradients(grads_and_vars, *args, **kwargs)

    def _clip_gradients(self, grads):
        return super()._clip_gradients(super()._deduplicate_sparse_grad(grads))

    def _deduplicate_sparse_grad(self, grads):
        return grads  # before clipping

    def _update_step_xla(self, gradient, variable, key):
        # A batch names any number of rows, and XLA would compile anew for each.
        if isinstance(gradient, tf.IndexedSlices):
            return self._update_step(gradient, variable)
        return super()._update_step_xla(gradient, variable, key)
