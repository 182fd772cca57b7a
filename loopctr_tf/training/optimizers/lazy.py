"""AdamW that changes a table row's moments only when the row is in a batch."""

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.training.optimizers.row_sparse import RowSparse, gather


@keras.utils.register_keras_serializable("loopctr_tf")
class LazyAdamW(RowSparse):
    """AdamW (Loshchilov and Hutter, 2019) that touches only those rows of a table that are in the batch.

    For these rows, with gradient g at step t:
      m = beta_1 m + (1 - beta_1) g;  v = beta_2 v + (1 - beta_2) g^2
      row -= rate sqrt(1 - beta_2^t) / (1 - beta_1^t) m / (sqrt(v) + epsilon)
    Other rows and their moments do not change; t counts the optimizer's steps, as in
    ``tfa.optimizers.LazyAdam``. A table whose rows are all in every batch trains exactly as with AdamW,
    and the state is the same: two numbers for each number in the table.

    Decay of tables, and arguments: see ``RowSparse``.
    """

    def row_change(self, table, rows, gradient, rate):
        """See ``RowSparse``."""
        place = self._index_dict[self._var_key(table)]
        momentums, velocities = self._momentums[place], self._velocities[place]
        m, v = gather(momentums, rows), gather(velocities, rows)
        m += (gradient - m) * (1 - self.beta_1)
        v += (tf.square(gradient) - v) * (1 - self.beta_2)
        momentums.scatter_update(tf.IndexedSlices(m, rows))
        velocities.scatter_update(tf.IndexedSlices(v, rows))
        step = tf.cast(self.iterations + 1, rate.dtype)
        power_1, power_2 = (tf.cast(b, rate.dtype) ** step for b in (self.beta_1, self.beta_2))
        rate = rate * tf.sqrt(1 - power_2) / (1 - power_1)
        return m * rate / (tf.sqrt(v) + self.epsilon)
