"""Amazon 5-core reviews in three layouts, as the same two tables: events, and items with attributes."""

import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from amazon_raw import (
    AGAIN,
    EVENTS,
    NO_NAME,
    FieldError,
    TableWriter,
    category,
    category_lists,
    find_one,
    find_reviews,
    is_name,
    raw_lines,
    write_items,
    write_reviews,
)
from recipe_tables import Read, Tables

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.reading import TypedRows
from loopctr_tf.prepare.rejects import BadRow, Problem, Rejects
from loopctr_tf.prepare.typed import WantedColumn

MAX_ATTRIBUTES = 8
"""``max_values`` of schema.yaml; an item's further attributes are left out and counted."""

REVIEWS = {
    "Books": 8_898_041,
    "CDs_and_Vinyl": 1_097_592,
    "Digital_Music": 64_706,
    "Electronics": 1_689_188,
    "Grocery_and_Gourmet_Food": 151_254,
    "Health_and_Personal_Care": 346_355,
    "Kindle_Store": 982_619,
    "Movies_and_TV": 1_697_533,
    "Sports_and_Outdoors": 296_337,
}
"""Reviews of the publisher's 5-core files, as far as they could be checked."""

GROCERY = {"reviews": 121_892, "users": 14_681, "items": 8_687}
SPORTS = {"reviews": 296_337, "users": 35_598, "items": 18_357}

ATTRIBUTES = pa.field("attributes", pa.list_(pa.string()))
_ITEMS = pa.schema([("item_id", pa.string()), ATTRIBUTES])
NO_EVENTS = Problem("no user with items behind", "write a user and the items, with spaces between")
AGAIN_USER = Problem("user has a line already", "write all items of a user on one line")


def find_layout(folder: str | Path) -> Read:
    """A function that reads the files of ``folder``, for ``recipe_tables.prepare_tables``.

    Layouts: the publisher's (`reviews_NAME_5.json.gz`, `meta_NAME.json.gz`), events with unix times
    (`train.csv`, `item_meta.csv`) and sequences without (`NAME.txt`, `NAME_item2attributes.json`).

    Raises:
      UsageError: for a folder that does not exist, or holds none of them, or an incomplete one.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f"raw folder {str(folder)!r} does not exist; name the one with the files")
    pair = find_reviews(folder)
    if pair is not None:
        return partial(_read_json, *pair)
    events, items = folder / "train.csv", folder / "item_meta.csv"
    if events.exists() and items.exists():
        return partial(_read_timed, events, items)
    attributes = find_one(folder, "*_item2attributes.json")
    if attributes is not None:
        sequences = folder / (attributes.name.removesuffix("_item2attributes.json") + ".txt")
        if sequences.exists():
            return partial(_read_sequences, sequences, attributes)
    raise UsageError(
        f"raw folder {str(folder)!r} holds no Amazon reviews: looked for reviews_NAME_5.json.gz with "
        "meta_NAME.json.gz, train.csv with item_meta.csv, and NAME.txt with "
        "NAME_item2attributes.json; name the folder that holds them"
    )


class _Attributes:
    """Cuts lists of attributes, and counts what that leaves out."""

    def __init__(self):
        self.cut = self.without = 0

    def __call__(self, names: Iterable[str]) -> list[str]:
        names = list(dict.fromkeys(names))
        self.without += not names
        self.cut += len(names) > MAX_ATTRIBUTES
        return names[:MAX_ATTRIBUTES]

    def facts(self, source: str, layout: str, time: str) -> dict[str, Any]:
        return {
            "source": f"Amazon 5-core 2014, {source} ({layout} layout)",
            "time": time,
            "items_with_attributes_cut": self.cut,
            "items_without_attributes": self.without,
        }


def _read_json(reviews: Path, meta: Path, parts: Path, rejects: Rejects, progress) -> Tables:
    attributes = _Attributes()

    def of_item(item: dict[str, Any]) -> list[str]:
        brand = item.get("brand") or None
        if brand is not None and not is_name(brand):
            raise FieldError("brand", NO_NAME, brand)
        # The first name of a path is that of the whole category.
        below = [name for path in category_lists(item) for name in path[1:]]
        return attributes([brand, *below] if brand else below)

    events, items = parts / "events.parquet", parts / "items.parquet"
    wanted = write_reviews(reviews, events, rejects, progress)
    write_items(meta, items, wanted, ATTRIBUTES, of_item, rejects)
    name = category(reviews)
    expected = {"reviews": REVIEWS[name]} if name in REVIEWS else {}
    facts = attributes.facts(name, "JSON", "unixReviewTime, whole days")
    names = {events: reviews, items: meta}
    return Tables(events, items, names=names, facts=facts, published=expected)


def _read_timed(events: Path, meta: Path, parts: Path, rejects: Rejects, progress) -> Tables:
    """Events and one category an item; the other columns of `item_meta.csv` are not read."""
    attributes, items = _Attributes(), parts / "items.parquet"
    wanted = [
        WantedColumn("item_id", "string", required=True),
        WantedColumn("i_category", "string"),
    ]
    with TableWriter(items, _ITEMS) as table:
        for batch in TypedRows(meta, wanted, rejects=rejects):
            for item, name in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                table.add(item, attributes([] if name is None else [name]))
    facts = attributes.facts("Grocery_and_Gourmet_Food", "CSV", "unix time, whole days")
    return Tables(events, items, names={items: meta}, facts=facts, published=GROCERY)


def _read_sequences(sequences: Path, meta: Path, parts: Path, rejects: Rejects, progress) -> Tables:
    """One user a line; the place in the line stands for the time."""
    attributes, users = _Attributes(), set()
    events, items = parts / "events.parquet", parts / "items.parquet"
    with TableWriter(events, EVENTS) as table:
        for number, line in raw_lines(sequences, rejects):
            user, *bought = line.decode("utf-8", "replace").split() or [""]
            if not bought or user in users:
                problem = AGAIN_USER if bought else NO_EVENTS
                rejects.add(sequences, BadRow(number, "", problem, line, number))
                continue
            users.add(user)
            for place, item in enumerate(bought, 1):
                table.add(user, item, place)
            progress(len(bought))
    with TableWriter(items, _ITEMS) as table:
        for item, numbers in _attribute_file(meta).items():
            table.add(item, attributes(map(str, numbers)))
    name = sequences.stem
    facts = attributes.facts(name, "sequence", "place among the user's events")
    expected = SPORTS if name == "Sports_and_Outdoors" else {}
    names = {events: sequences, items: meta}
    return Tables(events, items, names=names, facts=facts, published=expected)


def _attribute_file(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        problem = " ".join(str(error).split())
        raise UsageError(f"file {str(path)!r} cannot be read ({problem}); {AGAIN}") from error
    if not isinstance(value, dict):
        raise UsageError(f"file {str(path)!r} holds no object of items; {AGAIN}")
    for item, numbers in value.items():
        if not isinstance(numbers, list):
            raise UsageError(f"file {str(path)!r}, item {item!r}: no list of attributes; {AGAIN}")
    return value
