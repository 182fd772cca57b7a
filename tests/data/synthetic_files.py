"""The synthetic recipe's script and modules, small runs of it, and its rows read back."""

import functools
import importlib.util
import sys
from pathlib import Path

import tensorflow as tf

FOLDER = Path(__file__).parents[2] / "data" / "synthetic"


def load_script():
    """``prepare.py`` under a name of its own; its folder is importable, as when it is run."""
    sys.path.insert(0, str(FOLDER))
    spec = importlib.util.spec_from_file_location("synthetic_prepare", FOLDER / "prepare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


recipe = load_script()
shards, truth, users, world = (
    sys.modules[f"synthetic_{name}"] for name in ("shards", "truth", "users", "world")
)
Options = world.Options

# Three blocks, and one block whose sequences are both full for many.
BLOCKS = Options(rows=5000, users=2001, items=300, short=4, long=10, seed=3)
LONG = Options(rows=1500, users=90, items=400, short=8, long=40, seed=5)


@functools.cache
def read_rows(folder, split):
    """Rows of a split as a name -> list of plain values, in the order of the shards."""
    paths = sorted(str(path) for path in (folder / split).iterdir())
    rows = []
    for record in tf.data.TFRecordDataset(paths).as_numpy_iterator():
        row = {}
        for name, feature in tf.train.Example.FromString(record).features.feature.items():
            values = list(getattr(feature, feature.WhichOneof("kind")).value)
            row[name] = [v.decode() if isinstance(v, bytes) else v for v in values]
        rows.append(row)
    return rows


def same_files(first, second):
    """Asserts that two folders hold the same bytes."""
    names = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert names == sorted(p.relative_to(second) for p in second.rglob("*") if p.is_file())
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
