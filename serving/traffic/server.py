"""The embedded server in a process of its own, and the versions in its folder."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
)

from loopctr_tf.errors import UsageError
from loopctr_tf.scoring.warmup import FILE as WARMUP_FILE
from traffic.cases import MODEL

AVAILABLE = get_model_status_pb2.ModelVersionStatus.AVAILABLE
END = get_model_status_pb2.ModelVersionStatus.END
_START = "import loopctr_tf.cli; loopctr_tf.cli.main()"
_MB = 1 << 20


class Server:
    """`loopctr serve` on a free port.

    Args:
      folder: of the versions.
      log: file that takes what the server prints.
    """

    def __init__(self, folder: Path, log: Path):
        self._folder, self._log = folder, log
        self._process: subprocess.Popen | None = None
        self.target = ""

    def __enter__(self) -> "Server":
        arguments = ("serve", str(self._folder), "--name", MODEL, "--port", "0")
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, *arguments], stdout=log, stderr=subprocess.STDOUT
            )
        while not self.target:
            if self.ended is not None:
                raise UsageError(f"the server did not start: {self.log().strip()[-500:]}")
            found = re.search(r"\bat ([\w.:\[\]]+:\d+); Ctrl-C", self.log())
            self.target = found[1] if found else ""
            time.sleep(0.05)
        return self

    @property
    def ended(self) -> int | None:
        """The exit code, once the process has ended."""
        return self._process.poll()

    def log(self) -> str:
        """What the server has printed."""
        return self._log.read_text(errors="replace")

    def memory_mb(self) -> float | None:
        """Resident memory; None where the process has ended or the system does not tell."""
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text()
        except OSError:
            return None
        found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
        return int(found[1]) / 1024 if found else None

    def stop(self, seconds: float = 30.0) -> int | None:
        """Sends SIGTERM and waits; the exit code, or None when it did not end in time."""
        if self.ended is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def __exit__(self, *exc_info) -> None:
        if self.ended is None:
            self._process.kill()
            self._process.wait()


class Versions:
    """The versions in a server's folder, made of exports in turn, and which may be in service when.

    Args:
      folder: of the versions; the first export becomes version 1.
      exports: name -> folder of the export.
    """

    def __init__(self, folder: Path, exports: Mapping[str, Path]):
        self._folder, self._exports = folder, dict(exports)
        self._lock = threading.Lock()
        self._spans: dict[int, list[float]] = {}  # when a version may have been in service
        self._labels: dict[int, str] = {}
        self._next = 1
        folder.mkdir(parents=True)

    def publish(self, label: str) -> int:
        """Puts an export into the folder, whole, under the next number."""
        version = self._next
        copied = self._folder / f".{version}"
        shutil.copytree(self._exports[label], copied)
        with self._lock:
            self._spans[version] = [time.monotonic(), float("inf")]
            self._labels[version] = label
        self._appear(copied, version)
        return version

    def publish_broken(self, kind: str) -> int:
        """Puts a version into the folder that no server can load."""
        version = self._next
        copied = self._folder / f".{version}"
        shutil.copytree(next(iter(self._exports.values())), copied)
        BROKEN[kind](copied)
        self._appear(copied, version)
        return version

    def _appear(self, copied: Path, version: int) -> None:
        os.rename(copied, self._folder / str(version))
        self._next += 1

    def settled(self, version: int) -> None:
        """Notes that a version is in service, and those before it are not."""
        now = time.monotonic()
        with self._lock:
            for number, span in self._spans.items():
                if number < version:
                    span[1] = min(span[1], now)

    def remove_others(self, version: int) -> None:
        """Removes every other folder."""
        for path in self._folder.iterdir():
            if path.name != str(version):
                shutil.rmtree(path)

    def possible(self, start: float, end: float) -> dict[int, str]:
        """Versions that may have served a call between two times, with the export of each."""
        with self._lock:
            return {
                version: self._labels[version]
                for version, (first, last) in self._spans.items()
                if first <= end and start <= last
            }


def statuses(channel: grpc.Channel) -> dict[int, get_model_status_pb2.ModelVersionStatus]:
    """GetModelStatus: version -> its status."""
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = MODEL
    response = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request, timeout=30)
    return {status.version: status for status in response.model_version_status}


def _truncate(folder: Path) -> None:
    path = folder / "saved_model.pb"
    os.truncate(path, path.stat().st_size // 2)


def _lose_weights(folder: Path) -> None:
    shutil.rmtree(folder / "variables")


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _spoil_warmup(folder: Path) -> None:
    path = folder / WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(b"no PredictionLog")


BROKEN = {
    "graph cut short": _truncate,
    "weights lost": _lose_weights,
    "empty folder": _empty,
    "warm-up that is none": _spoil_warmup,
}
"""How a version is broken -> what does it to a copied export."""
