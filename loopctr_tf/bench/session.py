"""Exports as a model server runs them: in a graph session of this process, or in a server."""

import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from loopctr_tf.export.export import export_saved_model
from loopctr_tf.models.base import RankingModel
from loopctr_tf.scoring import PredictionServer
from loopctr_tf.scoring.names import SERVING_DEFAULT
from loopctr_tf.scoring.server.saved_model import SavedModel

MODEL = "loopctr"
"""The name under which models are served."""


def heads_at(model: RankingModel, loops: Sequence[int] | None) -> tuple[str, ...]:
    """The heads at those numbers of loops, none for None; UsageError for loops it does not have."""
    return tuple(model.heads_to(number)[-1] for number in loops or ())


def pointwise(head: str) -> str:
    """The signature that scores rows by ``head``."""
    return head or SERVING_DEFAULT


def write_export(
    model: RankingModel, path: Path, signatures: Sequence[str], heads: Sequence[str]
) -> Path:
    """Exports ``signatures``, which are of ``heads``, without warm-up records."""
    loops = [model.loops_of(head) for head in heads]
    most = None if None in loops else max(loops)
    return export_saved_model(model, path, signatures=signatures, loops=most, warmup_batch_sizes=())


@contextmanager
def exported(
    model: RankingModel, signatures: Sequence[str], heads: Sequence[str]
) -> Iterator[SavedModel]:
    """A session of an export of ``model``, which is removed afterwards."""
    with (
        TemporaryDirectory() as scratch,
        closing(
            SavedModel(write_export(model, Path(scratch) / "1", signatures, heads), 1)
        ) as session,
    ):
        yield session


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
