"""Ways of saving that the harness leaves out: checkpoints, optimizers, other depths, older files."""

import json
import zipfile

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import loopctr_tf as lc
from tests.factories import compact_schema, random_batch, tiny_model


def small(cls=lc.LoopCTR, **settings):
    return tiny_model(cls, compact_schema(), **{"loops": 1, **settings})


@pytest.fixture(scope="module")
def batch():
    return random_batch(6, schema=compact_schema())


@pytest.fixture(scope="module")
def model():
    return small()


def test_a_loaded_model_goes_on_training_as_the_saved_one(batch, tmp_path):
    model = small(loops=0, streams=1)
    model.compile(lc.optimizers.adamw(0.01, clip_norm=1.0), run_eagerly=True)
    model.train_on_batch(*batch)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert int(loaded.optimizer.iterations) == 1
    for one in (model, loaded):
        one.train_on_batch(*batch)
    for expected, weight in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_allclose(weight, expected, atol=1e-6, err_msg=weight.name)


def test_weights_come_back_from_tensorflows_formats(model, batch, tmp_path):
    model.save_weights(tmp_path / "checkpoint" / "w")
    loaded = small(seed=99)
    loaded.load_weights(tmp_path / "checkpoint" / "w")
    np.testing.assert_array_equal(loaded(batch[0]), model(batch[0]))
    path = tf.train.Checkpoint(model=model).save(tmp_path / "tf" / "ckpt")
    loaded = small(seed=99)
    tf.train.Checkpoint(model=loaded).restore(path).assert_existing_objects_matched()
    np.testing.assert_array_equal(loaded(batch[0]), model(batch[0]))


def test_weights_of_a_loopctr_serve_any_number_of_training_loops(model, batch, tmp_path):
    model.save_weights(tmp_path / "w.weights.h5")
    other = small(seed=99, loops=0)
    other.load_weights(tmp_path / "w.weights.h5")
    np.testing.assert_allclose(other(batch[0], loops=1), model(batch[0]), atol=1e-6)


def test_a_seemingly_fitting_file_of_another_model_is_refused(model, tmp_path):
    model.save_weights(tmp_path / "w.weights.h5")
    with pytest.raises(ValueError, match="shape"):
        small(dim=12).load_weights(tmp_path / "w.weights.h5")


@pytest.mark.parametrize("cls", [lc.LoopCTR, lc.StackCTR])
def test_the_configuration_survives_json(cls):
    model = small(cls, seed=None, supervision="last", recompute=True)
    config = json.loads(json.dumps(model.get_config()))
    copy = cls.from_config(config)
    assert (copy.config, copy.execution) == (model.config, model.execution)
    assert copy.execution.recompute
    assert [w.name for w in copy.weights] == [w.name for w in model.weights]
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model))
    assert type(again) is cls


def test_files_with_all_settings_in_one_group_are_read(model, batch, tmp_path):
    """As version 0.1 wrote them."""
    model.save(tmp_path / "new.keras")
    with (
        zipfile.ZipFile(tmp_path / "new.keras") as new,
        zipfile.ZipFile(tmp_path / "old.keras", "w") as old,
    ):
        for name in new.namelist():
            content = new.read(name)
            if name == "config.json":
                saved = json.loads(content)
                saved["config"]["config"] |= saved["config"].pop("execution") | {"xla": True}
                saved["config"]["config"]["loop_execution"] = "auto"
                content = json.dumps(saved)
            old.writestr(name, content)
    loaded = keras.models.load_model(tmp_path / "old.keras")
    assert loaded.config == model.config
    assert (loaded.execution.xla, loaded.execution.loop_execution) == (True, "auto")
    np.testing.assert_array_equal(loaded(batch[0]), model(batch[0]))
