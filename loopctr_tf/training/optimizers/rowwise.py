"""AdamW for dense weights, row-wise Adagrad for tables: one number of state per row."""

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.training.optimizers.row_sparse import RowSparse, gather, is_table


@keras.utils.register_keras_serializable("loopctr_tf")
class RowwiseAdagrad(RowSparse):
    """AdamW for dense weights; for tables Adagrad with one accumulator per row.

    For the rows in a batch, with gradient g [dim]:
      a += mean(g^2);  row -= rate g / (sqrt(a) + epsilon)
    Accumulators start at 0. This is the exact row-wise Adagrad of DLRM (``optim/rwsadagrad.py``) and of
    FBGEMM and TorchRec (``EXACT_ROWWISE_ADAGRAD``): gradients of a row that occurs several times are
    summed first. The state of a table is 1 / (2 dim) of AdamW's. Most recipes use a separate rate, since
    steps shrink as accumulators grow: give ``table_learning_rate``.

    Decay of tables, and arguments: see ``RowSparse``.
    """

    def add_variable_from_reference(
        self, model_variable, variable_name, shape=None, initial_value=None
    ):
        """As in Keras, but a table's two moments are one variable, with one number per row."""
        if is_table(model_variable):
            if variable_name == "v":
                return self._momentums[-1]  # Keras has just asked for it as this table's "m"
            if variable_name == "m":
                shape = model_variable.shape[:1]
        return super().add_variable_from_reference(
            model_variable, variable_name, shape, initial_value
        )

    def row_change(self, table, rows, gradient, rate):
        """See ``RowSparse``."""
        accumulators = self._velocities[self._index_dict[self._var_key(table)]]
        total = gather(accumulators, rows) + tf.reduce_mean(tf.square(gradient), axis=-1)
        accumulators.scatter_update(tf.IndexedSlices(total, rows))
        return gradient * (rate / (tf.sqrt(total) + self.epsilon))[:, None]
