"""Delimited text files, plain or gzip: columns of bytes, with row and line numbers."""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.records import Block, Records, line_breaks
from loopctr_tf.prepare.rejects import BadRow, Problem

FIELDS = Problem("wrong number of fields", "look for a delimiter in a value, or a row cut short")
_BOM = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
_ASCII = bytes(range(128)) + b"?" * 128
_OTHER_DELIMITERS = "\t;|"
_HEADER_BLOCK = 1 << 16


@dataclass(frozen=True)
class RawRows:
    """Unconverted rows of a file.

    Attributes:
      columns: an array for each requested column, in the file's types.
      rows: int64 [rows], row numbers in the file, from 1.
      lines: int64 [rows], lines on which the rows begin; None for Parquet.
      bad: rows that could not be split into columns; they are not in ``columns``.
    """

    columns: list[pa.Array]
    rows: np.ndarray
    lines: np.ndarray | None = None
    bad: tuple[BadRow, ...] = ()


class TextFile:
    """A delimited text file; the header is the first record, unless ``column_names`` are given.

    Args:
      path: the file; gzip if its name ends in .gz.
      column_names: of a file without a header.
      delimiter, quoting: as for ``reading.TableReader``.
      block: bytes read at a time.
      most: maximum bytes of a row.

    Attributes:
      types: name -> type of every column, in order: text.
      repeated: names shared by several columns.

    Raises:
      UsageError: if the file is empty or cannot be read, or for an invalid delimiter.
    """

    def __init__(
        self,
        path: Path,
        column_names: Sequence[str] | None = None,
        delimiter: str | None = None,
        quoting: bool = True,
        block: int = 1 << 22,
        most: int = 1 << 24,
    ):
        self.path, self._quoting, self._block, self._most = path, quoting, block, most
        if delimiter is None and ".tsv" in path.suffixes[-2:]:
            delimiter = "\t"
        if delimiter is not None and (len(delimiter.encode()) != 1 or delimiter in '"\r\n'):
            raise UsageError(f"delimiter is {delimiter!r}; give one character such as , or ;")
        self._delimiter = delimiter or ","
        with self._open() as file, self._reading(0):
            start = file.read(4)
        if start in (b"", _BOM):
            raise UsageError(f"{str(path)!r} is empty; leave it out, or write it again")
        if start[:2] == _GZIP:
            raise UsageError(f"{str(path)!r} is gzip; give it a name that ends in .gz")
        # Where the first row begins: offset in the unpacked file, and line.
        self._offset, self._line = len(_BOM) if start.startswith(_BOM) else 0, 1
        start = self._offset
        names = self._read_header() if column_names is None else list(column_names)
        if delimiter is None and column_names is None and len(names) == 1:
            other = next((char for char in _OTHER_DELIMITERS if char in names[0]), None)
            if other is not None:
                self._delimiter, self._offset, self._line = other, start, 1
                names = self._read_header()
        self._names = names
        self.types = dict.fromkeys(names, pa.string())
        self.repeated = {name for name in names if names.count(name) > 1}

    def batches(self, names: Sequence[str]) -> Iterator[RawRows]:
        """The columns ``names`` block by block, as binary arrays."""
        wanted = [str(self._names.index(name)) for name in names]
        done = 0
        with self._open() as file:
            with self._reading(0):
                file.read(self._offset)
            blocks = iter(self._records(file, self._block))
            while True:
                with self._reading(done):
                    block = next(blocks, None)
                if block is None:
                    return
                rows = self._parse(block, wanted, done)
                done += len(rows.rows) + len(rows.bad)
                yield rows

    def _parse(self, block: Block, wanted: list[str], done: int) -> RawRows:
        bad = []
        if block.long is not None:
            line, field = block.long
            column = self._names[field] if field < len(self._names) else ""
            problem = Problem(f"row of more than {self._most:,} bytes", "shorten it")
            bad.append(BadRow(done + 1, column, problem, None, line))
            done += 1
        count = len(block.lines)
        if not count:
            nothing = [pa.array([], pa.binary()) for _ in wanted]
            return RawRows(nothing, block.lines, block.lines, tuple(bad))
        text, ends = block.data, [*block.starts[1:].tolist(), len(block.data)]
        pieces = [slice(*place) for place in zip(block.starts.tolist(), ends, strict=True)]
        wrong: dict[int, str] = {}

        def pass_over(row: pacsv.InvalidRow) -> str:
            wrong[row.number - 1] = f"{row.actual_columns} for {row.expected_columns}: "
            return "skip"

        breaks = block.breaks_in_values
        if not _is_utf8(text):
            # Arrow passes wrong rows to the handler as text and fails if they are not UTF-8. So find
            # them in an ASCII copy, and parse only the others.
            self._columns(bytes(text).translate(_ASCII), wanted, breaks, pass_over)
            text = b"".join(text[piece] for row, piece in enumerate(pieces) if row not in wrong)
        table = self._columns(text, wanted, breaks, pass_over)
        for row, found in wrong.items():
            value = found.encode() + bytes(block.data[pieces[row]]).rstrip(b"\r\n")
            bad.append(BadRow(done + 1 + row, "", FIELDS, value, int(block.lines[row])))
        good = np.delete(np.arange(count), list(wrong))
        columns = [pa.concat_arrays(column.chunks) for column in table.columns]
        return RawRows(columns, done + 1 + good, block.lines[good], tuple(bad))

    def _columns(self, data, wanted: list[str], breaks_in_values: bool, pass_over) -> pa.Table:
        return pacsv.read_csv(
            pa.BufferReader(pa.py_buffer(data)),
            pacsv.ReadOptions(
                use_threads=False,  # Otherwise rows have no numbers.
                block_size=len(data) + 1,
                column_names=[str(index) for index in range(len(self._names))],
            ),
            pacsv.ParseOptions(
                delimiter=self._delimiter,
                quote_char='"' if self._quoting else False,
                newlines_in_values=breaks_in_values,
                invalid_row_handler=pass_over,
            ),
            pacsv.ConvertOptions(
                check_utf8=False,
                strings_can_be_null=False,
                column_types=dict.fromkeys(wanted, pa.binary()),
                include_columns=wanted,
            ),
        )

    def _read_header(self) -> list[str]:
        with self._open() as file, self._reading(0):
            file.read(self._offset)
            block = next(iter(self._records(file, _HEADER_BLOCK)), None)
        if block is None or not len(block.starts):
            raise UsageError(
                f"{str(self.path)!r} has no header; write one, or give the names of the columns"
            )
        start, end = [*block.starts, len(block.data)][:2]
        text = bytes(block.data[start:end])
        self._offset += int(end)
        self._line += line_breaks(bytes(block.data[:end]))
        try:
            line = text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UsageError(
                f"{str(self.path)!r}: the header is not UTF-8; convert the "
                "file, e.g. with iconv -t UTF-8"
            ) from error
        quoting = csv.QUOTE_MINIMAL if self._quoting else csv.QUOTE_NONE
        lines = io.StringIO(line, newline="")
        return next(csv.reader(lines, delimiter=self._delimiter, quoting=quoting))

    def _records(self, file: BinaryIO, block: int) -> Records:
        return Records(
            file,
            str(self.path),
            self._delimiter.encode(),
            self._quoting,
            block,
            self._most,
            self._line,
        )

    def _open(self) -> BinaryIO:
        try:
            return gzip.open(self.path) if self.path.suffix == ".gz" else self.path.open("rb")
        except OSError as error:
            raise UsageError(f"{str(self.path)!r} cannot be read: {error.strerror}") from error

    @contextmanager
    def _reading(self, done: int) -> Iterator[None]:
        """Turns errors of reading and unpacking into a UsageError."""
        rest = (
            f"what follows row {done:,} cannot be read, also with --skip-bad; copy the file again "
            "or leave it out"
        )
        try:
            yield
        except EOFError as error:
            raise UsageError(f"{str(self.path)!r}: the gzip data is truncated; {rest}") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise UsageError(
                f"{str(self.path)!r} is not a valid gzip file ({error}); {rest}"
            ) from error
        except OSError as error:
            raise UsageError(f"{str(self.path)!r}: {error.strerror}; {rest}") from error


def _is_utf8(data: memoryview) -> bool:
    try:
        str(data, "utf-8")
    except UnicodeDecodeError:
        return False
    return True
