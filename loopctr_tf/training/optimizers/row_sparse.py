"""What the row-sparse optimizers share: only the rows that a batch names are read and written."""

import math
import re

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.errors import UsageError
from loopctr_tf.training.optimizers.dense import COPIES, AdamW

_TABLE = re.compile(r"(^|/)embeddings" + COPIES)  # as Keras's Embedding layer names it


def is_table(variable) -> bool:
    """Whether ``variable`` is an embedding table [rows, dim], or a strategy's copy or part of one."""
    return _TABLE.search(variable.name) is not None


def gather(variable, rows) -> tf.Tensor:
    """``rows`` of ``variable``; ``tf.gather`` would read all of what a strategy mirrors."""
    return tf.raw_ops.ResourceGather(resource=variable.handle, indices=rows, dtype=variable.dtype)


class RowSparse(AdamW):
    """:class:`AdamW` for dense weights; of tables, :meth:`row_change` says how a row moves.

    The work of a step does not depend on how many rows a table has. A gradient that is not
    ``tf.IndexedSlices`` counts as one of every row.

    Decay of tables is decoupled, as AdamW's: each step multiplies every row by 1 - rate * decay. A row
    gets all that it missed at once, when a batch next names it: the optimizer keeps the running sum of
    log(1 - rate * decay), in float64, and of every row the sum at which it last stood, so that a
    changing rate makes no difference. Until then the model reads the row as it stood (ours; nothing else
    is possible without touching rows in the forward pass). :meth:`catch_up` brings all rows up to date.
    Without decay none of this is kept. A checkpoint of partitioned tables that decay restores into
    tables partitioned alike.

    A moving average of weights (``use_ema``) is Keras's: it reads and writes whole tables at every step.
    With it, rows are caught up at every step too.

    Args:
      table_learning_rate: constant rate of tables; None means ``learning_rate``, its schedule too.
      table_weight_decay: decay of tables.
      args, kwargs: as Keras's AdamW takes them.

    Raises:
      UsageError: for settings outside their range, and for ``amsgrad``.
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

    def row_change(self, table, rows, gradient, rate) -> tf.Tensor:
        """What a step takes from ``rows`` of ``table``; updates the rows' state.

        Args:
          table: variable [all rows, dim].
          rows: int [n], no number twice.
          gradient: [n, dim].
          rate: learning rate, scalar of the table's type.

        Returns:
          [n, dim].
        """
        raise NotImplementedError("a row-sparse optimizer says how a row moves")

    def build(self, var_list):
        """Creates the state of all of ``var_list``."""
        if getattr(self, "_built", False):
            return
        super().build(var_list)
        if not self.table_weight_decay:
            return
        self._log_decay = self.add_variable([], tf.float64, name="log_decay")
        self._stood = []
        self._stood_of = self._no_dependency({})
        for table in filter(is_table, var_list):
            with tf.distribute.get_strategy().extended.colocate_vars_with(table):
                stood = self.add_variable(table.shape[:1], tf.float64, name="log_decay_stood")
            self._stood.append(stood)
            self._stood_of[self._var_key(table)] = stood

    def update_step(self, gradient, variable):
        """One step of ``variable``, a table or not; slices name no row twice."""
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
            stood = self._stood_of[self._var_key(variable)]
            values *= self._missed_decay(gather(stood, rows), variable.dtype)
            now = tf.fill(tf.shape(rows), tf.convert_to_tensor(self._log_decay))
            stood.scatter_update(tf.IndexedSlices(now, rows))
        # Six times as fast on a CPU as scatter_sub, which locks.
        variable.scatter_update(tf.IndexedSlices(values - change, rows))

    def catch_up(self, var_list) -> None:
        """Gives every row of the tables in ``var_list`` the decay that it missed; reads whole tables."""
        if not self.table_weight_decay or not getattr(self, "_built", False):
            return

        def bring(table, stood):
            table.assign(table * self._missed_decay(stood, table.dtype))
            stood.assign(tf.fill(stood.shape, tf.convert_to_tensor(self._log_decay)))

        for table in filter(is_table, var_list):
            stood = self._stood_of[self._var_key(table)]
            self._distribution_strategy.extended.update(table, bring, args=(stood,), group=False)

    def finalize_variable_values(self, var_list):
        """Brings all rows up to date; Keras calls it when ``fit`` ends."""
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

    def _missed_decay(self, stood, dtype) -> tf.Tensor:
        """Factor [n, 1] of rows that last stood at ``stood`` [n]."""
        return tf.cast(tf.exp(self._log_decay - stood), dtype)[:, None]

    def _distributed_apply_gradients_fn(self, distribution, grads_and_vars, **kwargs):
        if self.table_weight_decay:
            rate = tf.cast(self._table_rate(), tf.float64)
            self._log_decay.assign_add(tf.math.log1p(-rate * self.table_weight_decay))
        return super()._distributed_apply_gradients_fn(distribution, grads_and_vars, **kwargs)

    def _update_model_variables_moving_average(self, var_list):
        if self.use_ema:
            self.catch_up(var_list)
        super()._update_model_variables_moving_average(var_list)
