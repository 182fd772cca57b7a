"""A small schema with every kind of column, random rows for it, and models that are quick to run."""

import contextlib

import numpy as np
import pandas as pd
import tensorflow as tf
import tf_keras as keras

import loopctr_tf as lc
from loopctr_tf.models.settings import ExecutionConfig

MOVIES = [f"m{i}" for i in range(12)]
GENRES = ["action", "comedy", "drama"]
HISTORY, LONG = 5, 9
"""``max_length`` of the two sequences; the frames hold longer histories too."""


def schema_dict() -> dict:
    """A schema as plain values: string, integer and hashed tables, all types, both kinds of sequence."""
    return {
        "version": 1,
        "label": "label",
        "group": "user_id",
        "tables": {
            "movie": {"vocabulary": list(MOVIES), "oov_buckets": 2},
            "genre": {"vocabulary": list(GENRES), "dim": 3},
            "device": {"dtype": "int64", "vocabulary": [7, 3, 5]},
            "zip": {"hash_buckets": 6},
        },
        "features": [
            {"name": "movie_id", "type": "categorical", "side": "item", "table": "movie"},
            {
                "name": "genres",
                "type": "multi_categorical",
                "side": "item",
                "table": "genre",
                "max_values": 3,
            },
            {
                "name": "age",
                "type": "numeric",
                "side": "user",
                "mean": 30.0,
                "std": 10.0,
                "default": 25.0,
            },
            {"name": "zip_code", "type": "categorical", "side": "user", "table": "zip"},
            {"name": "device", "type": "categorical", "side": "context", "table": "device"},
            {"name": "affinity", "type": "numeric", "side": "cross"},
        ],
        "sequences": [
            {
                "name": "history",
                "max_length": HISTORY,
                "fields": [
                    {"name": "history_movie", "type": "categorical", "table": "movie"},
                    {
                        "name": "history_genres",
                        "type": "multi_categorical",
                        "table": "genre",
                        "max_values": 2,
                    },
                    {
                        "name": "history_gap",
                        "type": "numeric",
                        "transform": "log1p",
                        "mean": 1.0,
                        "std": 2.0,
                    },
                ],
            },
            {
                "name": "long",
                "max_length": LONG,
                "compress": True,
                "fields": [
                    {"name": "long_movie", "type": "categorical", "table": "movie"},
                    {"name": "long_rating", "type": "numeric", "mean": 3.0},
                ],
            },
        ],
    }


def small_schema() -> lc.Schema:
    """:func:`schema_dict` as a schema."""
    return lc.Schema.from_dict(schema_dict())


def compact_schema() -> lc.Schema:
    """The least of columns, for tests in which the features do not matter: one of each side."""
    values = schema_dict()
    values["tables"] = {"movie": values["tables"]["movie"]}
    values["features"] = [f for f in values["features"] if f["name"] in ("movie_id", "age")]
    values["sequences"] = values["sequences"][:1]
    values["sequences"][0]["fields"] = values["sequences"][0]["fields"][:1]
    return lc.Schema.from_dict(values)


def random_frame(rows: int, seed: int = 0) -> pd.DataFrame:
    """Rows of both schemas: known and unknown ids, histories empty, short and too long."""
    rng = np.random.default_rng(seed)

    def movies(count):
        return [f"m{i}" for i in rng.integers(0, len(MOVIES) + 4, count)]

    def genres(most):
        return [str(g) for g in rng.choice([*GENRES, "western"], rng.integers(0, most + 1))]

    records = []
    for row in range(rows):
        short, long = rng.integers(0, HISTORY + 3), rng.integers(0, LONG + 4)
        records.append(
            {
                "user_id": f"u{row % 7}",
                "movie_id": movies(1)[0],
                "genres": genres(3),
                "age": float(rng.integers(18, 60)),
                "zip_code": str(rng.integers(10_000, 99_999)),
                "device": int(rng.choice([7, 3, 5, 11])),
                "affinity": float(rng.normal()),
                "history_movie": movies(short),
                "history_genres": [genres(2) for _ in range(short)],
                "history_gap": [float(x) for x in rng.exponential(20.0, short)],
                "long_movie": movies(long),
                "long_rating": [float(x) for x in rng.integers(1, 6, long)],
                "label": int(rng.integers(2)),
            }
        )
    return pd.DataFrame(records)


def learnable_frame(rows: int, seed: int = 0) -> pd.DataFrame:
    """:func:`random_frame` whose label is 1 where ``affinity``, give or take some noise, is positive."""
    frame = random_frame(rows, seed)
    noise = np.random.default_rng([seed, 1]).normal(scale=0.3, size=rows)
    return frame.assign(label=(frame["affinity"] + noise > 0).astype(int))


def random_batch(rows: int = 6, seed: int = 0, schema=None):
    """One batch (features, labels) of :func:`random_frame`."""
    frame, schema = random_frame(rows, seed), schema or small_schema()
    return next(iter(lc.read_dataset(frame, schema, batch_size=rows)))


def tiny_config(**settings) -> lc.LoopCTRConfig:
    """The whole architecture at the least width."""
    defaults = {
        "dim": 8,
        "heads": 2,
        "ffn_dim": 6,
        "experts": 3,
        "active_experts": 2,
        "loops": 2,
        "max_loops": 6,
        "num_queries": 2,
        "embedding_dim": 4,
        "tower_units": [5],
    }
    return lc.LoopCTRConfig.from_dict({**defaults, **settings})


def tiny_model(cls=None, schema=None, seed: int | None = 0, **settings):
    """A model of :func:`tiny_config` named "m", so that weights of two models have equal names.

    With ``seed`` the weights depend on it alone, and every one is moved away from its first value, so
    that nothing is equal only because it is still zero or still a copy. None leaves them as they start.
    """
    if seed is not None:
        keras.utils.set_random_seed(seed)
    executed = {n: settings.pop(n) for n in ExecutionConfig.model_fields if n in settings}
    execution = ExecutionConfig.from_dict({"loop_execution": "unrolled", **executed})
    model = (cls or lc.LoopCTR)(schema or small_schema(), tiny_config(**settings), execution, "m")
    if seed is not None:
        disturb(model, seed)
    return model


@contextlib.contextmanager
def rewriting_off():
    """Graphs run as they were traced: TensorFlow's rewriting takes longer than few and small steps."""
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})


def disturb(model, seed: int = 0) -> None:
    """Adds noise to every weight; a weight's noise depends on its name and ``seed`` alone."""
    for weight in model.weights:
        rng = np.random.default_rng([seed, *weight.name.encode()])
        weight.assign_add(0.3 * rng.standard_normal(weight.shape).astype(np.float32))


def copy_weights(source, target, rename=lambda name: name) -> None:
    """Sets the weights of ``target`` to those of ``source`` whose name is ``rename(name)``."""
    by_name = {weight.name: weight for weight in source.weights}
    for weight in target.weights:
        weight.assign(by_name[rename(weight.name)])
