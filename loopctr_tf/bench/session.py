"""An export that runs as a model server runs it: in a graph session, inputs as arrays."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from loopctr_tf.errors import UsageError
from loopctr_tf.export.export import export_saved_model
from loopctr_tf.scoring.server.saved_model import SavedModel


def write_export(model, path: Path, signatures: Sequence[str], depths: Sequence[int]) -> Path:
    """Exports ``signatures``, without warm-up records."""
    return export_saved_model(
        model, path, signatures=signatures, loops=max(depths), warmup_batch_sizes=()
    )


@contextmanager
def exported(model, signatures: Sequence[str], depths: Sequence[int]) -> Iterator[SavedModel]:
    """A session of an export of ``model`` that is removed afterwards."""
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


def check_depths(depths: Sequence[int], max_loops: int) -> None:
    """UsageError for depths that no export of the model has."""
    if min(depths) < 0 or max(depths) > max_loops:
        raise UsageError(f"loops are {list(depths)}; give 0 to max_loops ({max_loops})")


def check_least(name: str, numbers: Sequence[int], least: int = 1) -> None:
    """UsageError for numbers that are too small."""
    if min(numbers) < least:
        raise UsageError(f"{name} are {list(numbers)}; give {least} or more")
