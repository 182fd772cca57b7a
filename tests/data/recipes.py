"""The recipes' scripts, and prepared folders read back and compared."""

import functools
import importlib.util
import sys
from pathlib import Path

import tensorflow as tf

DATA = Path(__file__).parents[2] / "data"


def load_script(recipe):
    """``prepare.py`` under a name of its own; its folder is importable, as when it is run."""
    folder = DATA / recipe
    sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location(f"{recipe}_prepare", folder / "prepare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def read_rows(folder, split):
    """Rows of a split as name -> list of plain values, in the order of the shards."""
    rows = []
    paths = sorted(str(path) for path in (folder / split).iterdir())
    for record in tf.data.TFRecordDataset(paths).as_numpy_iterator():
        row = {}
        for name, feature in tf.train.Example.FromString(record).features.feature.items():
            values = getattr(feature, feature.WhichOneof("kind") or "bytes_list").value
            row[name] = [v.decode() if isinstance(v, bytes) else v for v in values]
        rows.append(row)
    return rows


def same_files(first, second, but=()):
    """Asserts that two folders hold the same names and bytes."""
    names = [sorted(p.relative_to(f) for p in f.rglob("*") if p.is_file()) for f in (first, second)]
    assert names[0] == names[1]
    for name in names[0]:
        if name.name not in but:
            assert (first / name).read_bytes() == (second / name).read_bytes(), name
