"""What the row-sparse optimizers share: only the rows in a batch are read and written."""

import math
import re

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.errors import UsageError
from loopctr_tf.training.optimizers.dense import COPIES, AdamW

_TABLE = re.compile(r"(^|/)embeddings" + COPIES)  # as Keras's Embedding layer names it


def is_table(variable: tf.Variable) -> bool:
    """Whether ``variable`` is an embedding table [rows, dim], or a replica or partition of one."""
    return _TABLE.search(variable.name) is not None


def gather(variable: tf.Variable, rows: tf.Tensor) -> tf.Tensor:
    """``rows`` of ``variable``; ``tf.gather`` would read the whole of a mirrored variable."""
    return tf.raw_ops.ResourceGather(resource=variable.handle, indices=rows, dtype=variable.dtype)


class RowSparse(AdamW):
    """:class:`AdamW` for dense weights; a subclass's :meth:`row_change` is the rule for table rows.

    The cost of a step does not depend on the number of rows of a table. A gradient that is not
    ``tf.IndexedSlices`` counts as one for every row.

    Decay of tables is decoupled, as in AdamW: each step multiplies every row by 1 - rate * decay. A row
    receives all decay that it missed at once, when it is next in a batch. The optimizer stores the
    running sum of log(1 - rate * decay), in float64, and for every row the sum at its last update, so
    that rates may change. Until then the model reads the row without that decay (ours; otherwise the
    forward pass would have to write rows). :meth:`catch_up` brings all rows up to date. Without decay
    none of this is stored. A checkpoint of partitioned tables with decay can only be restored into
    tables with the same partitions.

    A moving average of weights (``use_ema``) is Keras's: it reads and writes whole tables at every step,
    and with it every step also catches up all rows.

    Args:
      table_learning_rate: constant rate of tables; None means ``learning_rate`` and its schedule.
      table_weight_decay: decay of tables.
      args, kwargs: as for Keras's AdamW.

    Raises:
      UsageError: a setting is out of range, or ``amsgrad`` is set.
    """

    def __init__(
        self,
        *args,
        table_learning_rate: float | None = None,
        table_weight_decay: float = 0.0,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        if self.amsgrad:
            raise UsageError("amsgrad is True, which no rule for table rows knows; leave it out")
        if table_learning_rate is not None and not 0 < table_learning_rate < math.inf:
            raise UsageError(
                f"table_learning_rate is {table_learning_rate!r}; give more than 0, "
                "or None for learning_rate"
            )
        if not 0 <= table_weight_decay < math.inf:
            raise UsageError(f"table_weight_decay is {table_weight_decay!r}; give 0 or more")
        self.table_learning_rate = table_learning_rate
        self.table_weight_decay = table_weight_decay
        rate = keras.backend.get_value(self._table_rate())
        if rate * table_weight_decay >= 1:
            raise UsageError(
                f"table_weight_decay is {table_weight_decay!r} at a rate of {rate:g}; "
                "give less: their product must stay below 1"
            )

    def row_change(
        self, table: tf.Variable, rows: tf.Tensor, gradient: tf.Tensor, rate: tf.Tensor
    ) -> tf.Tensor:
        """What a step subtracts from ``rows`` of ``table``; also updates the rows' state.

        Args:
          table: variable [all rows, dim].
          rows: int [n], without duplicates.
          gradient: [n, dim].
          rate: learning rate, scalar of the table's type.

        Returns:
          [n, dim].
        """
        raise NotImplementedError("a row-sparse optimizer must define row_change")

    def build(self, var_list):
        """Creates the state for ``var_list``."""
        if getattr(self, "_built", False):
            return
        super().build(var_list)
        if not self.table_weight_decay:
            return
        self._log_decay = self.add_variable([], tf.float64, name="log_decay")
        self._stood = []  # the name is part of checkpoints
        self._stood_of = self._no_dependency({})
        for table in filter(is_table, var_list):
            with tf.distribute.get_strategy().extended.colocate_vars_with(table):
                updated_at = self.add_variable(table.shape[:1], tf.float64, name="log_decay_stood")
            self._stood.append(updated_at)
            self._stood_of[self._var_key(table)] = updated_at

    def update_step(self, gradient, variable):
        """One step of ``variable``, a table or not; slices must not repeat a row."""
        if not is_table(variable):
            super().update_step(gradient, variable)
            return
        if isinstance(gradient, tf.IndexedSlices):
            rows, gradient = gradient.indices, gradient.values
        else:
            rows = tf.range(variable.shape[0])
        rate = tf.cast(self._table_rate(), variable.dtype)
        change = self.row_change(variable, rows, gradient, rate)
        values = gather(variable, rows)
        if self.table_weight_decay:
            updated_at = self._stood_of[self._var_key(variable)]
            values *= self._missed_decay(gather(updated_at, rows), variable.dtype)
            now = tf.fill(tf.shape(rows), tf.convert_to_tensor(self._log_decay))
            updated_at.scatter_update(tf.IndexedSlices(now, rows))
        # On a CPU six times as fast as scatter_sub, which locks.
        variable.scatter_update(tf.IndexedSlices(values - change, rows))

    def catch_up(self, var_list) -> None:
        """Applies all missed decay to the tables in ``var_list``; reads and writes whole tables."""
        if not self.table_weight_decay or not getattr(self, "_built", False):
            return

        def bring(table, updated_at):
            table.assign(table * self._missed_decay(updated_at, table.dtype))
            updated_at.assign(tf.fill(updated_at.shape, tf.convert_to_tensor(self._log_decay)))

        for table in filter(is_table, var_list):
            updated_at = self._stood_of[self._var_key(table)]
            self._distribution_strategy.extended.update(
                table, bring, args=(updated_at,), group=False
            )

    def finalize_variable_values(self, var_list):
        """Brings all rows up to date; called by Keras at the end of ``fit``."""
        self.catch_up(var_list)
        super().finalize_variable_values(var_list)

    def get_config(self):
        """All settings, as plain values."""
        return {
            **super().get_config(),
            "table_learning_rate": self.table_learning_rate,
            "table_weight_decay": self.table_weight_decay,
        }

    def _table_rate(self):
        return self.learning_rate if self.table_learning_rate is None else self.table_learning_rate

    def _missed_decay(self, updated_at, dtype) -> tf.Tensor:
        """Factor [n, 1] of rows last updated when the sum was ``updated_at`` [n]."""
        return tf.cast(tf.exp(self._log_decay - updated_at), dtype)[:, None]

    def _distributed_apply_gradients_fn(self, distribution, grads_and_vars, **kwargs):
        if self.table_weight_decay:
            rate = tf.cast(self._table_rate(), tf.float64)
            self._log_decay.assign_add(tf.math.log1p(-rate * self.table_weight_decay))
        return super()._distributed_apply_gradients_fn(distribution, grads_and_vars, **kwargs)

    def _update_model_variables_moving_average(self, var_list):
        if self.use_ema:
            self.catch_up(var_list)
        super()._update_model_variables_moving_average(var_list)
