"""A callback that validates and saves tables whose decay is up to date."""

import tf_keras as keras


class CatchUp(keras.callbacks.Callback):
    """Brings the rows of tables up to date before validation and at the end of every epoch.

    Needed with a row-sparse optimizer whose ``table_weight_decay`` is above 0. Must stand before
    callbacks that save; what is saved between epochs is not up to date, but training goes on from it
    exactly when the optimizer is saved with it.
    """

    def on_test_begin(self, logs=None):
        """Before validation."""
        self._catch_up()

    def on_epoch_end(self, epoch, logs=None):
        """Before anything is saved."""
        self._catch_up()

    def _catch_up(self):
        self.model.optimizer.catch_up(self.model.trainable_variables)
