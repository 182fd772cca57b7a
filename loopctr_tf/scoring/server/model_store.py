"""The versions of one model in a folder: which are served, and how a new one replaces the old.

The folder is laid out as for TensorFlow Serving, ``<base path>/<version>/saved_model.pb``. Served are
the highest number (TensorFlow Serving's default policy) and the versions that labels name (its policy
``specific``). A new version is loaded and warmed up while the old one serves; requests in progress
finish on the version that they began on. A version that does not load is reported, and tried again
once its files change.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
import tensorflow as tf
from tensorflow_serving.apis import get_model_status_pb2

from loopctr_tf.errors import UsageError
from loopctr_tf.scoring.server.model_folder import fingerprint, require_versions
from loopctr_tf.scoring.server.saved_model import SavedModel
from loopctr_tf.scoring.server.status import StatusError, invalid_argument, not_found
from loopctr_tf.scoring.server.warmup import warm_up

_log = logging.getLogger(__name__)
State = get_model_status_pb2.ModelVersionStatus.State
# the version that a request asks for: a number, a label, or None for the newest
Wanted = int | str | None


@dataclass(frozen=True)
class VersionStatus:
    """One version's state, as GetModelStatus reports it; ``code`` and ``message`` of a failure."""

    state: int
    code: grpc.StatusCode = grpc.StatusCode.OK
    message: str = ""


@dataclass
class _Served:
    """A loaded model and the number of requests on it; once retired, it closes after the last."""

    model: SavedModel
    users: int = 0
    retired: bool = False


class ModelStore:
    """Serves the newest version in a folder, and those that labels name.

    Args:
      name: the name that requests know the model by.
      base_path: the folder of versions.
      labels: version by label.

    Raises:
      UsageError: when the folder does not exist or holds no version, or when its newest or a
        labelled one is missing or does not load.
    """

    def __init__(self, name: str, base_path: str | Path, labels: Mapping[str, int] | None = None):
        self.name = name
        self.base_path = Path(base_path)
        self._lock = threading.Lock()  # of everything below
        self._loaded: dict[int, _Served] = {}
        self._labels = dict(labels or {})  # of loaded versions alone, once the store is open
        self._states: dict[int, VersionStatus] = {}
        self._polling = threading.Lock()  # one look at the folder at a time
        self._failed: tuple | None = None  # the version that did not load, and its files
        self._closed = threading.Event()
        self._poller: threading.Thread | None = None
        folders = require_versions(self.base_path)
        where = f"in model folder {str(self.base_path)!r}"
        _check_labels(self._labels, folders, where)
        for version in sorted({max(folders), *self._labels.values()}):
            if not self._load(version, folders[version]):
                self.close()
                problem = " ".join(self._states[version].message.split())
                raise UsageError(
                    f"version {version} {where} does not load ({problem}); export it again, or "
                    "remove it"
                )

    @property
    def version(self) -> int:
        """The version of requests that ask for none: the highest that is loaded."""
        with self._lock:
            return max(self._loaded)

    @property
    def labels(self) -> dict[str, int]:
        """Version by label."""
        with self._lock:
            return dict(self._labels)

    def set_labels(self, labels: Mapping[str, int]) -> None:
        """Replaces all labels at once.

        A version that has lost its last label is retired at the next :meth:`poll`, unless it is the
        newest.

        Raises:
          UsageError: for a label of a version that is not loaded; the labels then stay as they were.
        """
        with self._lock:
            _check_labels(labels, self._loaded, "loaded")
            self._labels = dict(labels)

    def states(self, wanted: Wanted = None) -> dict[int, VersionStatus]:
        """Every version seen, or the one that is wanted, with its state.

        Raises:
          StatusError: INVALID_ARGUMENT for an unknown label.
        """
        with self._lock:
            if wanted is None:
                return dict(self._states)
            version = self._number(wanted)
            return {version: self._states[version]} if version in self._states else {}

    @contextlib.contextmanager
    def use(self, wanted: Wanted = None) -> Iterator[SavedModel]:
        """A served model, for one request.

        Raises:
          StatusError: NOT_FOUND when that version is not served, INVALID_ARGUMENT for an unknown
            label.
        """
        with self._lock:
            version = self._number(wanted)
            if version not in self._loaded:
                raise not_served(self.name, version)
            served = self._loaded[version]
            served.users += 1
        try:
            yield served.model
        finally:
            with self._lock:
                served.users -= 1
                last = served.retired and not served.users
            if last:
                self._end(served)

    def _number(self, wanted: Wanted) -> int | None:
        """The version wanted; called with the lock held."""
        if wanted is None:
            return max(self._loaded, default=None)
        if isinstance(wanted, int):
            return wanted
        if wanted not in self._labels:
            raise not_served(self.name, wanted)
        return self._labels[wanted]

    def poll(self) -> None:
        """Looks at the folder once: serves its newest version, and retires what that replaces."""
        with self._polling:
            try:
                folders = require_versions(self.base_path)
            except UsageError as error:
                _log.warning("%s; version %d is still served", error, self.version)
                return
            version = max(folders)
            if version not in self._loaded:
                files = fingerprint(folders[version])
                if self._failed != (version, files) and self._load(version, folders[version]):
                    _log.info("version %d of %s is served", version, self.name)
                else:
                    self._failed = version, files
                    version = self.version  # serves on instead of the one that does not load
            self._retire_all_but(version)

    def _load(self, version: int, path: Path) -> bool:
        """Loads a version, warms it up and serves it; returns whether that worked."""
        with self._lock:
            self._states[version] = VersionStatus(State.LOADING)
        _log.info("loading version %d of %s from %s", version, self.name, path)
        try:
            model = _load(path, version)
        # whatever is wrong with a new version, the others serve on
        except Exception as error:
            status = StatusError(grpc.StatusCode.UNKNOWN, f"{error}" or type(error).__name__)
            if isinstance(error, tf.errors.OpError):
                status = StatusError.from_op_error(error)
            with self._lock:
                self._states[version] = VersionStatus(State.END, status.code, status.message)
            _log.error("version %d of %s does not load: %s", version, self.name, status.message)
            return False
        with self._lock:
            self._loaded[version] = _Served(model)
            self._states[version] = VersionStatus(State.AVAILABLE)
        return True

    def _retire_all_but(self, version: int | None) -> None:
        """Serves this version and the labelled ones alone; others close after their last request."""
        with self._lock:
            kept = {version, *self._labels.values()}
            gone = [self._loaded.pop(number) for number in self._loaded.keys() - kept]
            for served in gone:
                served.retired = True
                self._states[served.model.version] = VersionStatus(State.UNLOADING)
            idle = [served for served in gone if not served.users]
        for served in idle:
            self._end(served)

    def _end(self, served: _Served) -> None:
        served.model.close()
        with self._lock:
            version = served.model.version
            # the same number may have been loaded again meanwhile
            if self._states[version].state == State.UNLOADING:
                self._states[version] = VersionStatus(State.END)

    def start_polling(self, seconds: float) -> None:
        """Polls the folder every so many seconds, in a thread of its own, until closed."""

        def watch() -> None:
            while not self._closed.wait(seconds):
                try:
                    self.poll()
                except Exception:
                    _log.exception("model folder %s could not be looked at", self.base_path)

        self._poller = threading.Thread(target=watch, name=f"poll-{self.name}", daemon=True)
        self._poller.start()

    def close(self) -> None:
        """Stops serving; a model closes after the last request that is on it."""
        self._closed.set()
        if self._poller is not None:
            self._poller.join()
        with self._lock:
            self._labels = {}
        self._retire_all_but(None)


def not_served(name: str, wanted: Wanted) -> StatusError:
    """The refusal of a request for a version that is not served, with TensorFlow Serving's message."""
    if isinstance(wanted, str):
        return invalid_argument(f"Unrecognized servable version label: {wanted}")
    which = f"Latest({name})" if wanted is None else f"Specific({name}, {wanted})"
    return not_found(f"Servable not found for request: {which}")


def _check_labels(labels: Mapping[str, int], versions: Collection[int], where: str) -> None:
    for label, version in labels.items():
        if version not in versions:
            raise UsageError(
                f"label {label!r} is given to version {version!r}, which is not {where}; choose "
                f"{', '.join(map(str, sorted(versions)))}"
            )


def _load(path: Path, version: int) -> SavedModel:
    model = SavedModel(path, version)
    start = time.monotonic()
    try:
        count = warm_up(model)
    except BaseException:
        model.close()
        raise
    if count:
        seconds = time.monotonic() - start
        _log.info("version %d answered %d warm-up requests in %.1f s", version, count, seconds)
    return model
