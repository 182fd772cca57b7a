"""Tiny Amazon files as their publishers lay them out, the two recipes' scripts, and rows read back."""

import gzip
import importlib.util
import json
import sys
from pathlib import Path

import tensorflow as tf

DATA = Path(__file__).parents[2] / "data"
DAY = 86400


def load_script(recipe):
    """``prepare.py`` under a name of its own; its folder is importable, as when it is run."""
    folder = DATA / recipe
    sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location(f"{recipe}_prepare", folder / "prepare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# (user, item, day), in the order of the file. U1 in time: A | B C | D | E; B and C are of one day.
REVIEWS = [
    ("U1", "D", 3),
    ("U2", "C", 1),
    ("U1", "B", 2),
    ("U2", "E", 2),
    ("U1", "C", 2),
    ("U1", "A", 1),
    ("U2", "F", 3),
    ("U1", "E", 9),
    ("U3", "G", 4),
    ("U3", "H", 5),
]

# As Python writes them: the publisher's metadata is no JSON. X has no review.
META = [
    {"asin": "A", "brand": "Kodak", "categories": [["Top", "Cameras"], ["Top", "Photo", "Film"]]},
    {"asin": "X", "categories": [["Top", "Unseen"]]},
    {"asin": "B", "price": 3.5, "categories": [["Top", "Men's", 'Wire 5"']], "brand": ""},
    {"asin": "C", "title": "back\\slash \n and 'quotes\"", "categories": [["Top", "Film"]]},
    {"asin": "D", "brand": "Kodak", "categories": [["Top"]]},
    {"asin": "E"},
    {"asin": "F", "related": {"also_bought": ["A"]}, "categories": [["Top", "Cameras"]]},
    {"asin": "G", "brand": None, "categories": []},
]


def review(user, item, day):
    """A review with the fields that the publisher gives."""
    return {
        "reviewerID": user,
        "asin": item,
        "reviewerName": 'A "quoted" name',
        "helpful": [0, 0],
        "reviewText": "Don't, \u00e9\nbuy",
        "overall": 1.0,
        "unixReviewTime": day * DAY,
        "reviewTime": "01 2, 1970",
    }


def write_gzip(path, lines):
    """Lines of text or bytes."""
    lines = [line if isinstance(line, bytes) else line.encode() for line in lines]
    path.write_bytes(gzip.compress(b"".join(line + b"\n" for line in lines)))


def write_json(folder, name="Electronics", reviews=REVIEWS, meta=META):
    """The publisher's layout."""
    folder.mkdir(parents=True)
    write_gzip(
        folder / f"reviews_{name}_5.json.gz", [json.dumps(review(*given)) for given in reviews]
    )
    write_gzip(folder / f"meta_{name}.json.gz", [repr(item) for item in meta])
    return folder


def insert_line(path, line, at):
    """Puts a line (bytes) into a gzip file, as number ``at``."""
    lines = gzip.decompress(path.read_bytes()).splitlines()
    write_gzip(path, [*lines[: at - 1], line, *lines[at - 1 :]])


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


def same_files(first, second):
    """Whether two folders hold the same names and bytes."""
    names = [sorted(p.relative_to(f) for p in f.rglob("*") if p.is_file()) for f in (first, second)]
    assert names[0] == names[1]
    assert [n for n in names[0] if (first / n).read_bytes() != (second / n).read_bytes()] == []
