"""One function that makes a model's optimizer: AdamW, and the rule for its tables."""

import tf_keras as keras

from loopctr_tf.errors import UsageError
from loopctr_tf.training.optimizers.dense import AdamW
from loopctr_tf.training.optimizers.lazy import LazyAdamW
from loopctr_tf.training.optimizers.rowwise import RowwiseAdagrad

_ROW_SPARSE = {"lazy_adamw": LazyAdamW, "rowwise_adagrad": RowwiseAdagrad}


def adamw(
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 1e-3,
    weight_decay: float = 1e-2,
    clip_norm: float = 0.0,
    ema_momentum: float = 0.0,
    tables: str = "adamw",
    table_learning_rate: float | None = None,
    table_weight_decay: float = 0.0,
) -> keras.optimizers.Optimizer:
    """AdamW (Loshchilov and Hutter, 2019), optionally with another rule for embedding tables.

    With "adamw" a step reads and writes every row of every table and of its two moments; with the other
    two, the cost of a step does not depend on the number of rows.

    Args:
      learning_rate: a rate or a schedule.
      weight_decay: decoupled decay of the matrices.
      clip_norm: limit of the gradients' global norm; 0 means no clipping.
      ema_momentum: momentum of an exponential moving average of all weights; 0 means none. It reads and
        writes whole tables at every step, whatever ``tables`` is.
      tables: "adamw"; "lazy_adamw", which changes a row's moments only when the row is in a batch
        (:class:`LazyAdamW`); "rowwise_adagrad", with one number of state per row
        (:class:`RowwiseAdagrad`).
      table_learning_rate: rate of the tables with the last two; None means ``learning_rate``.
      table_weight_decay: decoupled decay of the tables with the last two. If it is above 0, give ``fit``
        the callback :class:`CatchUp`.

    Raises:
      UsageError: a setting is unknown, out of range or incompatible with another.
    """
    settings = {
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "global_clipnorm": clip_norm or None,
        "use_ema": ema_momentum > 0,
        "ema_momentum": ema_momentum or 0.99,
    }
    if tables == "adamw":
        if table_learning_rate is not None or table_weight_decay:
            raise UsageError(
                f"table_learning_rate is {table_learning_rate!r} and table_weight_decay is "
                f"{table_weight_decay!r}, which tables='adamw' has not; leave them out or choose "
                + " or ".join(map(repr, _ROW_SPARSE))
            )
        return AdamW(**settings)
    if tables not in _ROW_SPARSE:
        known = ", ".join(map(repr, ["adamw", *_ROW_SPARSE]))
        raise UsageError(f"tables is {tables!r}; choose {known}")
    return _ROW_SPARSE[tables](
        **settings,
        table_learning_rate=table_learning_rate,
        table_weight_decay=table_weight_decay,
    )
