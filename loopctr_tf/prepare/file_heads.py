"""The beginning of a file: its header and delimiter, and what Python can tell cheaply about the rest."""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from loopctr_tf.errors import UsageError

LINE_LIMIT = 1 << 24
"""Maximum bytes of a line of text."""

_BOM, _GZIP = b"\xef\xbb\xbf", b"\x1f\x8b"
_WIDE = (b"\xff\xfe", b"\xfe\xff")
_OTHER_DELIMITERS = "\t;|"
_CHUNK = 1 << 22


@dataclass(frozen=True)
class TextOptions:
    """How to read the text files of a table.

    Attributes:
      delimiter: between values. None means a tab for .tsv and RecBole files, else a comma, or if the
        header has no comma, the tab, semicolon or bar in it.
      names: of the columns of files without a header.
      header: whether the first line holds the names of the columns. Without header and ``names``, the
        columns are called column_1, column_2 and so on.
      quoting: whether double quotes enclose values. None decides by the content of each file.
    """

    delimiter: str | None = None
    names: tuple[str, ...] = ()
    header: bool = True
    quoting: bool | None = None

    def __post_init__(self):
        if self.delimiter is not None and (
            len(self.delimiter.encode()) != 1 or self.delimiter in '"\r\n'
        ):
            raise UsageError(f"delimiter is {self.delimiter!r}; give one character such as , or ;")
        if self.names and self.header:
            raise UsageError(
                f"names are {', '.join(self.names)}, which are for files without a header; add "
                "--no-header, or leave --names out"
            )


@dataclass(frozen=True)
class Head:
    """How one text file is written. Files with equal heads can be read together.

    Attributes:
      names: of the columns.
      delimiter: one character.
      lines: to skip before the first row.
      quoting: whether quotes enclose values.
      mixed_breaks: whether lines end in several ways.
      path: of the file.
      has_quotes: whether a double quote occurs in it.
    """

    names: tuple[str, ...]
    delimiter: str
    lines: int
    quoting: bool = True
    mixed_breaks: bool = False
    path: Path = field(default=Path(), compare=False)
    has_quotes: bool = field(default=False, compare=False)


def text_head(path: Path, options: TextOptions, tab: bool) -> Head:
    """The head of a delimited file; ``tab`` says whether its name stands for tabs."""
    line, lines = _first_record(path, options)
    delimiter = options.delimiter or ("\t" if tab else ",")
    names = _fields(line, delimiter, options)
    other = next((char for char in "," + _OTHER_DELIMITERS if char in line), None)
    if len(names) == 1 and other is not None and other != delimiter:
        if options.delimiter is not None or tab:
            raise UsageError(
                f"{str(path)!r} has one column {_short(line)!r} if {delimiter!r} is the delimiter; give "
                f"--delimiter {other!r}"
            )
        delimiter = other
        names = _fields(line, delimiter, options)
    if not options.header:
        lines = 0
        if options.names and len(names) != len(options.names):
            raise UsageError(
                f"{str(path)!r}: names has {len(options.names)} entries, but the first line has "
                f"{len(names)} values: {_short(line)!r}; give as many names, and the right delimiter"
            )
        names = options.names or [""] * len(names)
    names = [name.strip() or f"column_{place + 1}" for place, name in enumerate(names)]
    quotes, mixed = _quotes_and_breaks(path)
    return Head(tuple(names), delimiter, lines, mixed_breaks=mixed, path=path, has_quotes=quotes)


def json_head(path: Path) -> Head:
    """A file of JSON lines as a text of one column ``line``; U+001F cannot occur in JSON."""
    line, _ = _first_record(path, TextOptions(quoting=False))
    if line.lstrip().startswith("["):
        raise UsageError(f"{str(path)!r} is a JSON array; write one object per line (.jsonl)")
    _, mixed = _quotes_and_breaks(path)
    return Head(("line",), "\x1f", 0, quoting=False, mixed_breaks=mixed, path=path)


def parquet_types(path: Path) -> list[tuple[str, pa.DataType]]:
    """Names and types of the columns of a Parquet file."""
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        what = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UsageError(
            f"{str(path)!r} cannot be read: {what}; is it a whole Parquet file?"
        ) from error
    return [(column.name, column.type) for column in schema]


def line_numbers(path: Path, places: Sequence[int]) -> list[int]:
    """Lines of the file, from 1, of ascending places: numbers of bytes in the unpacked file, from 1."""
    numbers: list[int] = []
    line, done, todo = 1, 0, list(places)
    with _reading(path), _open(path) as file:
        for chunk in _chunks(file):
            start = 0
            while len(numbers) < len(todo) and todo[len(numbers)] - 1 <= done + len(chunk):
                end = max(todo[len(numbers)] - 1 - done, start)
                line, start = line + _line_breaks(chunk, start, end), end
                numbers.append(line)
            if len(numbers) == len(todo):
                break
            line, done = line + _line_breaks(chunk, start, len(chunk)), done + len(chunk)
    return numbers + [line] * (len(todo) - len(numbers))


def _line_breaks(data: bytes, start: int, end: int) -> int:
    lone = data.count(b"\r", start, end) - data.count(b"\r\n", start, end + 1)
    return data.count(b"\n", start, end) + max(lone, 0)


def _first_record(path: Path, options: TextOptions) -> tuple[str, int]:
    """(first record that is not empty, number of records up to it, empty ones included)."""
    with _reading(path), _open(path) as file:
        data = file.read(LINE_LIMIT)
    if data[:2] == _GZIP:
        raise UsageError(f"{str(path)!r} is gzip; give it a name that ends in .gz")
    if data[:2] in _WIDE:
        raise UsageError(f"{str(path)!r} is UTF-16; convert the file, e.g. with iconv -t UTF-8")
    data = data.removeprefix(_BOM)
    if not data:
        raise UsageError(f"{str(path)!r} is empty; leave it out, or write it again")
    lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n", 1000)
    empty = next((place for place, line in enumerate(lines) if line.strip()), None)
    if empty is None:
        raise UsageError(
            f"{str(path)!r} has no header; write one, or give the names of the columns with --no-header "
            "--names"
        )
    last = empty + 1
    if options.header and options.quoting is not False:
        # A name may hold a line break if it is quoted; without a closing quote it is one line.
        while b"\n".join(lines[empty:last]).count(b'"') % 2 and last < len(lines):
            last += 1
        if b"\n".join(lines[empty:last]).count(b'"') % 2:
            last = empty + 1
    try:
        return b"\n".join(lines[empty:last]).decode(), empty + 1
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{str(path)!r}: the header is not UTF-8; convert the file, e.g. with iconv -t UTF-8"
        ) from error


def _fields(line: str, delimiter: str, options: TextOptions) -> list[str]:
    # Blanks after a comma must not hide the quote that follows.
    quoting = csv.QUOTE_NONE if options.quoting is False else csv.QUOTE_MINIMAL
    csv.field_size_limit(LINE_LIMIT)
    lines = io.StringIO(line, newline="")
    return next(csv.reader(lines, delimiter=delimiter, quoting=quoting))


def _quotes_and_breaks(path: Path) -> tuple[bool, bool]:
    """(whether double quotes occur, whether lines end in several ways)."""
    quotes, returns, feeds, pairs, last = False, 0, 0, 0, b""
    with _reading(path), _open(path) as file:
        for chunk in _chunks(file):
            quotes = quotes or b'"' in chunk
            if b"\r" in chunk or last == b"\r":
                returns += chunk.count(b"\r")
                pairs += chunk.count(b"\r\n") + (last == b"\r" and chunk[:1] == b"\n")
            feeds += chunk.count(b"\n")
            last = chunk[-1:]
    return quotes, returns > 0 and feeds > 0 and not returns == feeds == pairs


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk


def _open(path: Path) -> BinaryIO:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns errors of reading and unpacking into a UsageError."""
    rest = "copy the file again or leave it out"
    try:
        yield
    except EOFError as error:
        raise UsageError(f"{str(path)!r}: the gzip data is truncated; {rest}") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UsageError(f"{str(path)!r} is not a valid gzip file ({error}); {rest}") from error
    except OSError as error:
        raise UsageError(f"{str(path)!r} cannot be read: {error.strerror}; {rest}") from error


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:60] + "..."
