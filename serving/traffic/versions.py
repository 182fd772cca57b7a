"""The versions in a server's folder: which may be in service when, and broken ones."""

import os
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf

from loopctr_tf.scoring.server.warmup import FILE as WARMUP_FILE


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
