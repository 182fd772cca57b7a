"""A SavedModel run the way TensorFlow Serving runs it: a graph session over the tag ``serve``."""

import contextlib
import ctypes
import functools
import logging
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
from tensorflow.python.framework.ops import dismantle_graph

# prepared sets of inputs and outputs; the least recently used is dropped for another
_CALLABLES = 64
_MALLOC_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None


class SavedModel:
    """One loaded version of a model. Thread-safe until it is closed.

    Args:
      path: the folder that holds ``saved_model.pb``.
      version: the number that requests know it by.

    Attributes:
      signature_defs: SignatureDef by name.

    Raises:
      OSError, ValueError, RuntimeError, tf.errors.OpError: when the folder does not hold a SavedModel
        with the tag ``serve`` that this TensorFlow can load.
    """

    def __init__(self, path: str | Path, version: int):
        self.path = Path(path)
        self.version = version
        graph = tf.Graph()
        options = config_pb2.ConfigProto(allow_soft_placement=True)
        # the service shares its accelerator with whatever else the process does
        options.gpu_options.allow_growth = True
        self._session = tf.compat.v1.Session(graph=graph, config=options)
        try:
            with graph.as_default(), _no_loader_notices():
                meta_graph = tf.compat.v1.saved_model.loader.load(
                    self._session, [tf.saved_model.SERVING], str(path)
                )
        except BaseException:
            self._session.close()
            dismantle_graph(graph)
            raise
        self.signature_defs: Mapping[str, meta_graph_pb2.SignatureDef] = dict(
            meta_graph.signature_def
        )
        making = threading.Lock()
        self._callable = functools.lru_cache(maxsize=_CALLABLES)(
            lambda *names: _Once(functools.partial(self._make_callable, *names), making)
        )
        release_freed_memory()

    def run(self, feeds: Mapping[str, np.ndarray], fetches: tuple[str, ...]) -> list[np.ndarray]:
        """Runs the graph once.

        Args:
          feeds: arrays by tensor name, each of the tensor's type; strings as objects of bytes.
          fetches: names of the tensors wanted.

        Returns:
          One array a fetch; strings as objects of bytes.

        Raises:
          tf.errors.OpError: with the code and the message of the operation that failed.
        """
        names, wanted = tuple(sorted(feeds)), tuple(sorted(set(fetches)))
        call = self._callable(names, wanted)()
        try:
            results = call(*(feeds[name] for name in names))
        except UnicodeDecodeError as error:
            # The message of a failed operation quotes bytes of the request, which may not be text.
            # The operation's code is lost, but a message that quotes a request is a refusal.
            message = error.object.decode("utf-8", "replace")
            raise tf.errors.InvalidArgumentError(None, None, message) from error
        by_name = dict(zip(wanted, results, strict=True))
        return [by_name[name] for name in fetches]

    def _make_callable(self, feeds: tuple[str, ...], fetches: tuple[str, ...]):
        options = config_pb2.CallableOptions(feed=feeds, fetch=fetches)
        # Not `Session.run`: it takes three times as long a call, casts what it is fed in silence,
        # and rewrites the messages of failed operations. tf_keras builds on it as well.
        made = self._session._make_callable_from_options(options)
        release_freed_memory()
        return made

    def close(self) -> None:
        """Frees the graph, its variables and its tables; no run may be in progress."""
        graph = self._session.graph
        self._session.close()
        # without its last references, the session frees its variables now, not at some garbage
        # collection: a model may take gigabytes
        del self._callable, self._session
        # a graph and its operations reference each other, so that it would wait for one as well
        dismantle_graph(graph)
        release_freed_memory()


class _Once:
    """Calls ``make`` on first use, and once, however many threads ask for its result.

    To prepare a graph takes seconds and, meanwhile, hundreds of megabytes. Callers of a new version
    ask for all of its signatures at once: the shared lock ``making`` prepares one after another.
    """

    def __init__(self, make: Callable[[], Any], making: threading.Lock):
        self._make, self._making, self._made = make, making, None

    def __call__(self) -> Any:
        if self._made is None:
            with self._making:
                if self._made is None:
                    self._made = self._make()
        return self._made


def release_freed_memory() -> None:
    """Returns freed memory to the system, which the C library (glibc) would keep.

    Loading and preparing a graph needs many times the memory that stays in use.
    """
    if _MALLOC_TRIM is not None:
        _MALLOC_TRIM(0)


@contextlib.contextmanager
def _no_loader_notices():
    """Filters the graph loader's deprecation notice (it has no successor) and paths from the log."""

    def keep(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not ("loader_impl" in message or message.startswith("Restoring parameters from"))

    logger = tf.get_logger()
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)
