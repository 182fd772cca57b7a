"""One TensorFlow set-up for every test (no GPU, a CPU that counts as two devices), and one small
training, two exports and a server that the whole session shares: prepare, train, export, serve.
"""

import gc
import os
import shutil

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
if "PYTEST_XDIST_WORKER" in os.environ:
    # A worker a core: more threads would only take each other's.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import loopctr_tf as lc  # noqa: I001  (it sets TF_USE_LEGACY_KERAS, so it comes before TensorFlow)
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

SHARING = {
    "tests/evaluation/test_predict.py",
    "tests/export/test_export.py",
    "tests/export/test_inspect.py",
    "tests/export/test_served.py",
    "tests/test_cli.py",
    "tests/test_examples.py",
    "tests/training/test_run_folder.py",
    "tests/training/test_train.py",
}
"""Modules that take the session's training: one worker makes it once for all of them."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """What `--dist loadscope` does, with the modules of `SHARING` as one scope."""
    if config.getoption("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            scope = nodeid.partition("::")[0]
            return "sharing" if scope in SHARING else scope

    # In the order of the collection: by number of tests, some of the dearest would come last.
    config.option.loadscopereorder = False
    return Scheduling(config, log)


def pytest_collection_modifyitems(config, items):
    """Modules of `SHARING` first, then those with a slow test, so that workers end together."""
    modules = {item.nodeid.partition("::")[0] for item in items if "training" in item.fixturenames}
    if not modules <= SHARING:
        raise pytest.UsageError(f"add to SHARING in {__file__}: {', '.join(modules - SHARING)}")
    slow = {item.path for item in items if item.get_closest_marker("slow")}

    def place(item):
        return item.nodeid.partition("::")[0] not in SHARING, item.path not in slow

    items.sort(key=place)


def pytest_collection_finish():
    """Tracing makes many objects, among which the collector would look through TensorFlow's own."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


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
