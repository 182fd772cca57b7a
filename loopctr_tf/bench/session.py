"""Exports as a model server runs them: in a graph session of this process, or in a server."""

import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from loopctr_tf.errors import UsageError
from loopctr_tf.export.export import export_saved_model
from loopctr_tf.scoring import PredictionServer
from loopctr_tf.scoring.server.saved_model import SavedModel

MODEL = "loopctr"
"""The name under which models are served."""


def write_export(model, path: Path, signatures: Sequence[str], depths: Sequence[int]) -> Path:
    """Exports ``signatures``, without warm-up records."""
    return export_saved_model(
        model, path, signatures=signatures, loops=max(depths), warmup_batch_sizes=()
    )


@contextmanager
def exported(model, signatures: Sequence[str], depths: Sequence[int]) -> Iterator[SavedModel]:
    """A session of an export of ``model``, which is removed afterwards."""
    with TemporaryDirectory() as scratch:
        session = SavedModel(write_export(model, Path(scratch) / "1", signatures, depths), 1)
        try:
            yield session
        finally:
            session.close()


def run_signature(
    session: SavedModel, signature: str, features: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """One call of a signature: outputs by name."""
    definition = session.signature_defs[signature]
    feeds = {definition.inputs[name].name: value for name, value in features.items()}
    names = list(definition.outputs)
    values = session.run(feeds, tuple(definition.outputs[name].name for name in names))
    return dict(zip(names, values, strict=True))


class Served(NamedTuple):
    """An embedded server in a process of its own."""

    target: str
    process: BaseProcess


@contextmanager
def served(base_path: Path) -> Iterator[Served]:
    """Serves a folder of versions as :data:`MODEL`; the server stops at the end of the block."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(str(base_path), there), daemon=True)
    process.start()
    there.close()  # so that the end of the process is the end of the pipe
    try:
        try:
            target = here.recv()
        except EOFError as error:
            raise RuntimeError(f"the server of {str(base_path)!r} did not start") from error
        yield Served(target, process)
        with suppress(BrokenPipeError):
            here.send("stop")
        process.join(30)
    finally:
        if process.is_alive():
            process.terminate()
            process.join(30)


def _serve(base_path: str, connection) -> None:
    with PredictionServer(base_path, model_name=MODEL) as server:
        connection.send(server.target)
        with suppress(EOFError):
            connection.recv()


def check_depths(depths: Sequence[int], max_loops: int) -> None:
    """Raises UsageError for depths that the model does not have."""
    if min(depths) < 0 or max(depths) > max_loops:
        raise UsageError(f"loops are {list(depths)}; give 0 to max_loops ({max_loops})")


def check_least(name: str, numbers: Sequence[int], least: int = 1) -> None:
    """Raises UsageError for numbers that are too small."""
    if min(numbers) < least:
        raise UsageError(f"{name} are {list(numbers)}; give {least} or more")
