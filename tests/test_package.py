"""What `import loopctr_tf` does to a fresh Python: each test runs one."""

import os
import subprocess
import sys

import pytest

import loopctr_tf as lc


def fresh_python(code: str, **environment: str) -> subprocess.CompletedProcess:
    inherited = {name: v for name, v in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**inherited, "TF_CPP_MIN_LOG_LEVEL": "2", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_import_alone_is_quick_and_loads_no_tensorflow():
    code = "import sys, loopctr_tf; print('tensorflow' in sys.modules, loopctr_tf.__version__)"
    assert fresh_python(code).stdout == f"False {lc.__version__}\n"


@pytest.mark.parametrize("chosen", [None, "0"])
def test_onednn_is_on_unless_the_user_has_chosen(chosen):
    code = "import os, loopctr_tf; print(os.environ['TF_ENABLE_ONEDNN_OPTS'])"
    environment = {} if chosen is None else {"TF_ENABLE_ONEDNN_OPTS": chosen}
    found = fresh_python(
        "import os; os.environ.pop('TF_ENABLE_ONEDNN_OPTS', 0); " * (chosen is None) + code,
        **environment,
    )
    assert found.stdout == f"{chosen or 1}\n"


def test_schema_and_config_load_no_tensorflow():
    code = "import sys, loopctr_tf as lc; lc.Schema; lc.LoopCTRConfig; "
    code += "print('tensorflow' in sys.modules)"
    assert fresh_python(code).stdout == "False\n"


@pytest.mark.parametrize("value", ["0", "false", "no"])
def test_keras_3_by_environment_is_an_import_error_with_the_remedy(value):
    result = fresh_python("import loopctr_tf", TF_USE_LEGACY_KERAS=value)
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 1
    assert last.startswith("ImportError: loopctr_tf needs Keras 2")
    assert f"TF_USE_LEGACY_KERAS={value!r} is set" in last
    assert "set the environment variable TF_USE_LEGACY_KERAS=1" in last


def test_keras_3_already_loaded_is_an_import_error_with_the_remedy():
    result = fresh_python("import tensorflow as tf; tf.keras.Model; import loopctr_tf")
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 1
    assert last.startswith("ImportError: loopctr_tf needs Keras 2")
    assert "tf.keras is already Keras 3" in last
    assert "or import loopctr_tf before anything that touches tf.keras" in last


def test_tf_keras_is_what_tf_keras_means_after_the_import():
    result = fresh_python(
        "import loopctr_tf, tensorflow as tf, tf_keras; print(tf.keras.Model is tf_keras.Model)"
    )
    assert result.stdout == "True\n", result.stderr


def test_public_names_resolve_and_others_do_not():
    for name in ("Schema", "LoopCTR", "StackCTR", "LoopCTRConfig", "read_dataset", "UsageError"):
        assert name in dir(lc)
        assert getattr(lc, name).__name__ == name
    for name in ("layers", "metrics", "optimizers", "supervision"):
        assert name in dir(lc)
        assert getattr(lc, name).__name__.startswith("loopctr_tf.")
    with pytest.raises(AttributeError, match="no attribute 'LoopCRT'"):
        lc.LoopCRT  # noqa: B018
