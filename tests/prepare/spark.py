"""Spark in local mode for a few rows: nothing is compiled, which would take most of the time."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from loopctr_tf.prepare.spark_engine import SparkEngine

SETTINGS = {
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.shuffle.partitions": "1",
}


def small_spark(folder: Path, workers: int) -> SparkEngine:
    """An engine for ``prepare_events``."""
    return SparkEngine(folder, "local[1]", SETTINGS)


def require_spark() -> None:
    """Skips a test, with the reason, without PySpark or a Java of 17 or later."""
    pytest.importorskip("pyspark", reason="PySpark is not installed")
    java = shutil.which("java")
    if java is None:
        pytest.skip("Spark needs Java 17 or later; none is found")
    text = subprocess.run([java, "-version"], capture_output=True, text=True, check=True).stderr
    found = re.search(r'version "(\d+)', text)
    if found is None or int(found[1]) < 17:
        pytest.skip(f"Spark needs Java 17 or later; found {text.splitlines()[0]}")
