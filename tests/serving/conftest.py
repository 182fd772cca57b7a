"""One small zero-loop export with the demo's features, as CALLING.md asks it, and a server on it."""

from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
import yaml
from tensorflow_serving.apis import prediction_service_pb2_grpc

import loopctr_tf as lc
from loopctr_tf.scoring import PredictionServer
from tests.factories import tiny_model

VOCABULARIES = {
    "movie": ["1", "50", "56", "127", "172", "258", "313"],
    "genre": ["Action", "Animation", "Comedy", "Crime", "Drama", "Romance", "Sci-Fi"],
    "gender": ["M", "F"],
    "occupation": ["technician", "other"],
    "rating": ["1", "2", "3", "4", "5"],
}
STATISTICS = {"age": (35.0, 12.0), "year": (1990.0, 10.0)}
"""Mean and standard deviation of the numbers that are not near zero."""
SIGNATURES = ["serving_default", "rank_loop_0"]


@pytest.fixture(scope="session")
def movie_schema() -> lc.Schema:
    """`data/movielens/schema.yaml` with small vocabularies and plain statistics."""
    template = Path(__file__).resolve().parents[2] / "data/movielens/schema.yaml"
    values = yaml.safe_load(template.read_text(encoding="utf-8"))
    del values["build"]
    for name, vocabulary in VOCABULARIES.items():
        values["tables"][name]["vocabulary"] = vocabulary
    for feature in values["features"]:
        if feature["name"] in STATISTICS:
            feature["mean"], feature["std"] = STATISTICS[feature["name"]]
    return lc.Schema.from_dict(values)


@pytest.fixture(scope="session")
def movie_export(movie_schema, tmp_path_factory) -> Path:
    """A version folder that mends bad input, as servers that batch want it."""
    settings = {"streams": 1, "experts": 2, "active_experts": 1, "loops": 0}
    # A seed whose probabilities lie between 0.1 and 0.8, where differences show.
    model = tiny_model(schema=movie_schema, seed=4, **settings)
    folder = tmp_path_factory.mktemp("movies") / "1"
    options = {"signatures": SIGNATURES, "bad_input": "repair", "warmup_batch_sizes": ()}
    return lc.export_saved_model(model, folder, **options)


@pytest.fixture(scope="session")
def ask(movie_export):
    """A call: PredictRequest -> outputs by name, over gRPC, from the embedded server on that export."""
    with (
        PredictionServer(movie_export.parent, model_name="loopctr", poll_seconds=0) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

        def ask(request) -> dict[str, np.ndarray]:
            outputs = stub.Predict(request, timeout=60).outputs
            return {name: tf.make_ndarray(tensor) for name, tensor in outputs.items()}

        yield ask
