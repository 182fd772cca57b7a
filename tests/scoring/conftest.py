"""Two saved versions of the small model, a server on the first of them, and a client."""

from pathlib import Path

import pytest

from loopctr_tf.scoring import PredictionServer, ScoringClient
from tests.exported import with_moved_weights
from tests.scoring import scoring_model
from tests.scoring.running import Gate


@pytest.fixture(scope="session")
def saved(tmp_path_factory) -> dict[int, Path]:
    """Version 1 has bias 0, version 2 has bias 1."""
    folder = tmp_path_factory.mktemp("saved")
    first = scoring_model.save(folder / "one")
    return {1: first, 2: with_moved_weights(first, folder / "two", by=1.0)}


@pytest.fixture
def base_path(saved, tmp_path) -> Path:
    """A folder of versions of a test's own, with version 1 in it."""
    folder = tmp_path / "models"
    folder.mkdir()
    scoring_model.copy(saved[1], folder / "1")
    return folder


@pytest.fixture(scope="session")
def server(saved, tmp_path_factory):
    """A server that no test changes."""
    folder = tmp_path_factory.mktemp("served")
    scoring_model.copy(saved[1], folder / "1")
    with PredictionServer(folder, model_name="m", poll_seconds=0) as server:
        yield server


@pytest.fixture
def client(server):
    with ScoringClient(server.target, "m") as client:
        yield client


@pytest.fixture
def rows() -> dict:
    """Three rows for serving_default, histories as lists of unequal length."""
    return {
        "user_id": ["a", "b", "unknown"],
        "item_id": ["c", "b", "a"],
        "history": [["a", "b"], [], ["c", "c", "c"]],
        "price": [1.0, 2.5, -1.0],
    }


@pytest.fixture
def gated(monkeypatch):
    """A call that puts a gate before a server's model: that of a version or label, or the newest."""

    def gate(server, wanted: int | str | None = None) -> Gate:
        with server.store.use(wanted) as model:
            return Gate(model, monkeypatch)

    return gate
