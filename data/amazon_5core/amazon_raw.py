"""The 2014 Amazon files, one object a line, as Parquet tables of events and items in bounded memory."""

import ast
import gzip
import json
import re
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.rejects import BadRow, Problem, Rejects

EVENTS = pa.schema([("user_id", pa.string()), ("item_id", pa.string()), ("time", pa.int64())])
LINE_LIMIT = 1 << 24
"""Bytes that a line may have; the longest of the publisher's have some hundred thousand."""
_GROUP = 65536
_LATEST = 1 << 40  # Seconds; far beyond the calendar, and far from overflow.
_SURROGATE = re.compile("[\ud800-\udfff]")

RULES = {
    "split": "per user by time: the last event is test, the one before it valid, the rest train; events "
    "of one time in the order of the file; users with two events or fewer are all train",
    "negatives": "one row of label 0 for each event, of an item that the user never had, drawn "
    "uniformly from the items of the split's own and earlier splits' events",
}
"""For stats.json."""

AGAIN = "get the file again"
LONG = Problem(f"line of more than {LINE_LIMIT:,} bytes", AGAIN)
NO_OBJECT = Problem("neither a JSON object nor a Python dictionary", AGAIN)
NO_NAME = Problem("no text", "write the id")
NO_TIME = Problem("no whole number of seconds since 1970", "write the time of the review")
NO_NAMES = Problem("no lists of names", "write a list of lists of text")
TWICE = Problem("item is described twice", "keep one line for each")


def find_one(folder: Path, *patterns: str) -> Path | None:
    """The one file of ``folder`` that fits any pattern; None without; UsageError for several."""
    found = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:5])
        raise UsageError(f"folder {str(folder)!r} holds {names}; keep one of them in it")
    return found[0] if found else None


def find_reviews(folder: Path) -> tuple[Path, Path] | None:
    """(``reviews_NAME_5.json``, ``meta_NAME.json``), gzip or not; None where there are no reviews.

    Raises:
      UsageError: for reviews of several categories, or without the file of their items.
    """
    reviews = find_one(folder, "reviews_*_5.json", "reviews_*_5.json.gz")
    if reviews is None:
        return None
    name = category(reviews)
    meta = find_one(folder, f"meta_{name}.json", f"meta_{name}.json.gz")
    if meta is None:
        raise UsageError(
            f"folder {str(folder)!r} holds {reviews.name} and no meta_{name}.json.gz, which describes "
            "its items; put it beside"
        )
    return reviews, meta


def category(reviews: Path) -> str:
    """NAME of ``reviews_NAME_5.json.gz``."""
    return reviews.name.removeprefix("reviews_").rpartition("_5.json")[0]


def raw_lines(path: Path, rejects: Rejects) -> Iterator[tuple[int, bytes]]:
    """The lines of a plain or gzip file that are not too long, with their numbers from 1.

    Raises:
      UsageError: for a file that cannot be read to its end.
    """
    number = 0
    try:
        with _opened(path) as file:
            while line := file.readline(LINE_LIMIT):
                number += 1
                if len(line) < LINE_LIMIT or line.endswith(b"\n"):
                    yield number, line
                    continue
                rejects.add(path, BadRow(number, "", LONG, line[:200], number))
                while line and not line.endswith(b"\n"):
                    line = file.readline(LINE_LIMIT)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(
            f"file {str(path)!r} cannot be read beyond line {number:,} ({error}); {AGAIN}"
        ) from error


def _opened(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if packed else path.open("rb")


def objects(path: Path, rejects: Rejects) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file, with the number of their line; other lines are rejected.

    The publisher's reviews are JSON; the lines of its metadata are Python literals, which JSON is tried
    on first, because copies exist that were converted. Nothing in a line is run.
    """
    for number, line in raw_lines(path, rejects):
        value = _parsed(line)
        if isinstance(value, dict):
            yield number, value
        else:
            rejects.add(path, BadRow(number, "", NO_OBJECT, line, number))


def _parsed(line: bytes) -> Any:
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of backslashes that Python would write otherwise.
            return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


class TableWriter:
    """Writes rows to a Parquet file, a group at a time; use as a context."""

    def __init__(self, path: Path, schema: pa.Schema):
        self._file, self._schema = pq.ParquetWriter(path, schema), schema
        self._rows: list[Sequence] = []

    def add(self, *row: Any) -> None:
        """Appends a row, its values in the order of the schema."""
        self._rows.append(row)
        if len(self._rows) == _GROUP:
            self._flush()

    def _flush(self) -> None:
        columns = list(zip(*self._rows, strict=True)) or [()] * len(self._schema)
        arrays = [pa.array(v, f.type) for v, f in zip(columns, self._schema, strict=True)]
        self._file.write_table(pa.table(arrays, schema=self._schema))
        self._rows = []

    def __enter__(self) -> "TableWriter":
        return self

    def __exit__(self, *error) -> None:
        self._flush()
        self._file.close()


def write_reviews(
    path: Path, out: Path, rejects: Rejects, progress: Callable[[int], Any]
) -> set[str]:
    """Writes who reviewed what and when, in the order of the file, and returns the items.

    Every review is an event, whatever its stars.

    Args:
      path: reviews_NAME_5.json.gz.
      out: Parquet file with the columns of ``EVENTS``.
      rejects: takes lines that are no review.
      progress: called with 1 for each review.
    """
    items: set[str] = set()
    with TableWriter(out, EVENTS) as table:
        for number, review in objects(path, rejects):
            user, item, time = (review.get(k) for k in ("reviewerID", "asin", "unixReviewTime"))
            if not is_name(user):
                bad = ("reviewerID", NO_NAME, user)
            elif not is_name(item):
                bad = ("asin", NO_NAME, item)
            elif type(time) is not int or not 0 <= time < _LATEST:
                bad = ("unixReviewTime", NO_TIME, time)
            else:
                table.add(user, item, time)
                items.add(item)
                progress(1)
                continue
            reject(rejects, path, number, *bad)
    return items


def write_items(
    path: Path,
    out: Path,
    wanted: set[str],
    column: pa.Field,
    make: Callable[[dict[str, Any]], Any],
    rejects: Rejects,
) -> None:
    """Writes the items of ``wanted``, with one column beside `item_id`.

    Args:
      path: meta_NAME.json.gz; it describes many items without a review too.
      out: Parquet file.
      wanted: their ids.
      column: name and type of the column.
      make: its value out of an item; ``FieldError`` where that cannot be had.
      rejects: takes lines that are no item.
    """
    known: set[str] = set()
    with TableWriter(out, pa.schema([("item_id", pa.string()), column])) as table:
        for number, item in objects(path, rejects):
            name = item.get("asin")
            if not is_name(name):
                reject(rejects, path, number, "asin", NO_NAME, name)
            elif name in known:
                reject(rejects, path, number, "asin", TWICE, name)
            elif name in wanted:
                try:
                    table.add(name, make(item))
                    known.add(name)
                except FieldError as error:
                    reject(rejects, path, number, *error.args)


class FieldError(Exception):
    """A field of an item that is not of the layout: (name, problem, value)."""


def category_lists(item: dict[str, Any]) -> list[list[str]]:
    """The paths of categories that an item stands in, the most general name first; often several.

    Raises:
      FieldError: where `categories` holds anything else.
    """
    paths = item.get("categories") or []
    if not isinstance(paths, list) or not all(
        isinstance(path, list) and all(map(is_name, path)) for path in paths
    ):
        raise FieldError("categories", NO_NAMES, paths)
    return [path for path in paths if path]


def is_name(value: Any) -> bool:
    """Whether a value is text that can be stored."""
    return isinstance(value, str) and bool(value) and not _SURROGATE.search(value)


def reject(rejects: Rejects, path: Path, number: int, column: str, problem: Problem, value) -> None:
    """Counts a line as bad, or refuses it."""
    text = None if value is None else str(value)
    rejects.add(path, BadRow(number, column, problem, text, number))
