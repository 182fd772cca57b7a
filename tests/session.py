"""What the whole session shares: a CPU that counts as two devices, and one small training, two exports
and a server: prepare, train, export, serve.
"""

import shutil  # noqa: I001  (loopctr_tf sets TF_USE_LEGACY_KERAS, so it comes before TensorFlow)

import loopctr_tf as lc
import numpy as np
import pytest
import tensorflow as tf
import yaml
from click.testing import CliRunner

from tests.exported import DEPTHS, ROW_SIGNATURES
from tests.factories import learnable_frame, rewriting_off, small_schema, tiny_config

# TensorFlow reads this once, when it first places an operation.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


@pytest.fixture(scope="session")
def two_devices():
    """A strategy with two replicas, both on this machine's CPU."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture(scope="session")
def work(tmp_path_factory):
    """The folder in which the session's prepared data, run and models lie as `make demo` lays them."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="session")
def prepared(work):
    """A prepared folder of `learnable_frame`: 300, 60 and 60 rows, two shards of training rows."""
    from loopctr_tf.features.prepared import PreparedWriter

    folder = work / "prepared"
    folder.mkdir()
    writer = PreparedWriter(folder, small_schema(), shard_rows=200)
    for seed, (split, rows) in enumerate({"train": 300, "valid": 60, "test": 60}.items()):
        writer.write(split, learnable_frame(rows, seed))
    writer.finish(protocol="honest")
    return folder


def command(*arguments) -> str:
    """What `loopctr ARGUMENTS` prints; any error passes through."""
    from loopctr_tf.cli import cli

    result = CliRunner().invoke(
        cli, [str(a) for a in arguments], catch_exceptions=False, standalone_mode=False
    )
    return result.stdout


@pytest.fixture(scope="session")
def training(prepared, work):
    """(run folder, what `loopctr train` printed): one loop, two epochs."""
    config = work / "config.yaml"
    model = tiny_config(ffn_dim=8, loops=1).to_dict()
    training = {"epochs": 5, "batch_size": 50, "learning_rate": 0.02}
    config.write_text(yaml.safe_dump({"model": model, "training": training}))
    arguments = ("--config", config, "--set", "epochs=2", "--quiet")
    with rewriting_off():
        return work / "run", command("train", prepared, work / "run", *arguments)


@pytest.fixture(scope="session")
def run(training):
    """The run folder of the session's one training."""
    return training[0]


@pytest.fixture(scope="session")
def trained(run):
    """The model with the best weights of `run`."""
    from loopctr_tf.training.run_folder import load_run

    return load_run(run)[0]


@pytest.fixture(scope="session")
def tested(trained, prepared):
    """(metrics by depth, Predictions) of the test split at all DEPTHS."""
    from loopctr_tf.evaluation.predict import evaluate_run

    return evaluate_run(trained, prepared, "test", loops=DEPTHS[-1])


@pytest.fixture(scope="session")
def raw_rows(prepared):
    """The inputs of the whole test split as NumPy arrays, in the order of `tested`."""
    features, _ = next(iter(lc.read_dataset(prepared / "test", batch_size=60)))
    return {name: value.numpy() for name, value in features.items()}


@pytest.fixture(scope="session")
def exporting(run, work):
    """(SavedModel, what `loopctr export` printed): every signature for rows, one loop too many."""
    path = work / "models" / "loopctr" / "1"
    names = ",".join([*ROW_SIGNATURES, "classify", "regress"])
    arguments = ("--loops", DEPTHS[-1], "--signatures", names)
    return path, command("export", run, path, *arguments)


@pytest.fixture(scope="session")
def saved_model(exporting):
    """The SavedModel of `exporting`, which refuses bad input."""
    return exporting[0]


@pytest.fixture(scope="session")
def repairing_model(trained, work):
    """A SavedModel of `serving_default` alone, which repairs bad input."""
    path = work / "models" / "repairing" / "1"
    return lc.export_saved_model(trained, path, signatures=["serving_default"], bad_input="repair")


@pytest.fixture(scope="session")
def loaded(saved_model):
    """`saved_model`, loaded."""
    return tf.saved_model.load(str(saved_model))


@pytest.fixture(scope="session")
def repairing(repairing_model):
    """A call of the one signature of `repairing_model`."""
    model = tf.saved_model.load(str(repairing_model))
    # Not the signature itself, which the model has to outlive.
    return lambda **inputs: model.signatures["serving_default"](**inputs)


@pytest.fixture(scope="session")
def examples(prepared):
    """The test split as it is stored: serialized tf.Example rows."""
    (shard,) = (prepared / "test").iterdir()
    return np.array(list(tf.data.TFRecordDataset(str(shard)).as_numpy_iterator()), object)


@pytest.fixture(scope="session")
def prediction_server(saved_model, work):
    """A server of `saved_model` under the name loopctr."""
    from loopctr_tf.scoring import PredictionServer

    # Without the warm-up file: to run every signature once takes longer than all tests of the server.
    without = shutil.ignore_patterns("assets.extra")
    shutil.copytree(saved_model, work / "served" / "1", ignore=without)
    with PredictionServer(work / "served", poll_seconds=0) as server:
        yield server
