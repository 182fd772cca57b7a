"""What is validated and saved has all its decay."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import loopctr_tf as lc


def minus_mean(_, predicted):
    return -tf.reduce_mean(predicted)


@pytest.mark.parametrize("tables", ["lazy_adamw", "rowwise_adagrad"])
@pytest.mark.parametrize("validate", [False, True])
def test_rows_are_up_to_date_when_they_are_validated_and_saved(tables, validate, tmp_path):
    """Training names row 0 alone, validation row 1: 16, halved at each of two steps an epoch."""
    table = keras.layers.Embedding(2, 1, embeddings_initializer=keras.initializers.Constant(16.0))
    model = keras.Sequential([table])
    model.compile(lc.optimizers.adamw(0.5, tables=tables, table_weight_decay=1.0), minus_mean)
    path = str(tmp_path / "epoch-{epoch}.weights.h5")
    history = model.fit(
        np.zeros([4, 1]),
        np.zeros([4]),
        batch_size=2,
        epochs=2,
        validation_data=(np.ones([4, 1]), np.zeros([4])) if validate else None,
        callbacks=[
            lc.optimizers.CatchUp(),
            keras.callbacks.ModelCheckpoint(path, save_weights_only=True),
        ],
        verbose=0,
    ).history
    if validate:
        np.testing.assert_allclose(history["val_loss"], [-4.0, -1.0])
    for epoch, expected in ((1, 4.0), (2, 1.0)):
        model.load_weights(path.format(epoch=epoch))
        np.testing.assert_allclose(model.get_weights()[0][1], [expected])
