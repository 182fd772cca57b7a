"""Tiny Amazon files as their publishers lay them out."""

import gzip
import json

DAY = 86400


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
