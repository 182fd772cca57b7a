"""A made-up schema and made-up requests of a given size, for benchmarks.

Four global features (user, hour, item, category), one or two histories of item and category; ids are
strings, as in most logs, and tables hash them.
"""

import numpy as np

from loopctr_tf.features.schema import Schema

IDS = 100_000
CATEGORIES = 1_000


def workload_schema(history: int, long_history: int = 0, item_buckets: int = IDS) -> Schema:
    """A schema with ``history`` recent events, and ``long_history`` older ones unless that is 0.

    ``item_buckets`` is the number of rows of the item table; there are always :data:`IDS` items.
    """

    def sequence(name: str, length: int, compress: bool):
        return {
            "name": name,
            "max_length": length,
            "compress": compress,
            "fields": [
                {"name": f"{name}_item", "type": "categorical", "table": "item"},
                {"name": f"{name}_category", "type": "categorical", "table": "category"},
            ],
        }

    def category(name: str, side: str, table: str):
        return {"name": name, "type": "categorical", "side": side, "table": table}

    sequences = [sequence("clicks", history, False)]
    if long_history:
        sequences.append(sequence("older_clicks", long_history, True))
    return Schema.from_dict(
        {
            "version": 1,
            "label": "click",
            "group": "user_id",
            "tables": {
                "user": {"hash_buckets": IDS},
                "item": {"hash_buckets": item_buckets},
                "category": {"hash_buckets": CATEGORIES},
            },
            "features": [
                category("user_id", "user", "user"),
                {"name": "hour", "type": "numeric", "side": "context", "mean": 11.5, "std": 6.9},
                category("item_id", "item", "item"),
                category("category", "item", "category"),
            ],
            "sequences": sequences,
        }
    )


def user_features(schema: Schema, requests: int, seed: int = 0) -> dict[str, np.ndarray]:
    """The user's and the context's features of ``requests`` users with full histories."""
    rng = np.random.default_rng(seed)
    features = {
        "user_id": _ids("u", IDS, rng, (requests,)),
        "hour": rng.integers(0, 24, requests).astype(np.float32),
    }
    for sequence in schema.sequences:
        shape = (requests, sequence.max_length)
        features[f"{sequence.name}_item"] = _ids("i", IDS, rng, shape)
        features[f"{sequence.name}_category"] = _ids("c", CATEGORIES, rng, shape)
        features[sequence.length_name] = np.full(requests, sequence.max_length, np.int32)
    return features


def candidate_features(shape: tuple[int, ...], seed: int = 1) -> dict[str, np.ndarray]:
    """Features of candidates: [R, N] for ranking, [B] row by row."""
    rng = np.random.default_rng(seed)
    return {
        "item_id": _ids("i", IDS, rng, shape),
        "category": _ids("c", CATEGORIES, rng, shape),
    }


def rows_of(user: dict[str, np.ndarray], candidates: dict[str, np.ndarray]):
    """One request [1, N] as N rows: the user's side repeated."""
    count = len(next(iter(candidates.values()))[0])
    return {
        **{name: np.repeat(value, count, axis=0) for name, value in user.items()},
        **{name: value[0] for name, value in candidates.items()},
    }


def _ids(letter: str, count: int, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    numbers = rng.integers(0, count, shape)
    return np.array([f"{letter}{n}".encode() for n in numbers.ravel()], object).reshape(shape)
