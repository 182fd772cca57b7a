"""A callback that brings the decay of tables up to date before they are validated or saved."""

import tf_keras as keras


class CatchUp(keras.callbacks.Callback):
    """Brings the rows of tables up to date before validation and at the end of every epoch.

    Needed with a row-sparse optimizer whose ``table_weight_decay`` is above 0. List it before callbacks
    that save. What is saved between epochs is not up to date, but training continues from it exactly if
    the optimizer is saved too.
    """

    def on_test_begin(self, logs: dict | None = None):
        """Before validation."""
        self._catch_up()

    def on_epoch_end(self, epoch: int, logs: dict | None = None):
        """Before anything is saved."""
        self._catch_up()

    def _catch_up(self):
        self.model.optimizer.catch_up(self.model.trainable_variables)
