"""How tests are shared out, and TensorFlow's environment: no GPU, a thread a worker.

Fixtures of the whole session lie in `tests.session`, which loads TensorFlow: the process that only
hands tests to workers does without.
"""

import gc
import os

import pytest

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
# What XLA compiles runs a few times: LLVM need not make it fast.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
if "PYTEST_XDIST_WORKER" in os.environ:
    # A worker a core: more threads would only take each other's.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")

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


def pytest_configure(config):
    """Loads the fixtures where tests run."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        capture = config.pluginmanager.getplugin("capturemanager")
        capture.resume_global_capture()  # of what TensorFlow logs while it loads
        config.pluginmanager.import_plugin("tests.session")
        capture.suspend_global_capture()
        capture.read_global_capture()


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
