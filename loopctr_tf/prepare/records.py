"""Cuts delimited text into blocks of whole records with their line numbers, in bounded memory.

A record ends at a line break (LF, CRLF or CR) outside a quoted field. A field is quoted if its first
character is a quote; a quote within it is doubled. Empty lines are ignored.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from loopctr_tf.errors import UsageError

_LF, _CR = 10, 13


@dataclass(frozen=True)
class Block:
    """Whole records.

    Attributes:
      data: the bytes of the records, and of empty lines between them.
      starts: int64 [records], where each record begins in ``data``.
      lines: int64 [records], the line of the file on which each begins, from 1.
      breaks_in_values: whether a quoted field holds a line break.
      long: (line, field number from 0) of a record that was too long, precedes the others and is not
        in ``data``.
    """

    data: memoryview
    starts: np.ndarray
    lines: np.ndarray
    breaks_in_values: bool
    long: tuple[int, int] | None = None


class Records:
    """Cuts a file into blocks of whole records.

    Args:
      file: read from its current position.
      name: of the file, for messages.
      delimiter: one byte.
      quoting: whether quotes enclose fields.
      block: bytes read at a time.
      most: maximum bytes of a record; a longer one is skipped and reported as ``Block.long``.
      line: line number of the file's current position.
    """

    def __init__(
        self,
        file: BinaryIO,
        name: str,
        delimiter: bytes,
        quoting: bool = True,
        block: int = 1 << 22,
        most: int = 1 << 24,
        line: int = 1,
    ):
        self._file, self._name, self._delimiter = file, name, delimiter
        self._block, self._most = block, most
        # Whatever is not a quoted field, and quoted fields of one line; then a quoted field that has
        # line breaks, or is cut off by the end. Possessive, so that no match begins inside a field.
        ends = rb"[\r\n" + re.escape(delimiter) + rb"]"
        within = rb"(?!\A)(?<!" + ends + rb')"'
        skipped = rb'(?:[^"]++|' + within + rb'|"(?:[^"\r\n]++|"")*+")*+'
        quoted = rb'("(?:[^"]++|"")*+("|\Z))'
        self._broken = re.compile(skipped + quoted) if quoting else None
        self._any = re.compile(rb"(?:\A|(?<=" + ends + rb"))" + quoted) if quoting else None
        self._line = line

    def __iter__(self) -> Iterator[Block]:
        data, long = b"", None
        while True:
            piece = self._file.read(self._block)
            data += piece
            if not piece and data and data[-1] not in b"\r\n":
                data += b"\n"
            spans, opened = self._broken_fields(data)
            if not piece and opened is not None:
                line = self._line + line_breaks(data[:opened])
                raise self._never_closed(line)
            ends, breaks, kept = _record_ends(data, spans, final=not piece)
            if len(ends):
                yield from self._cut(data, ends, breaks, kept, long)
                data, long = data[int(ends[-1]) + 1 :], None
            if not piece:
                return
            if len(data) > self._most:
                data, where = self._pass_over(data)
                long = long or where

    def _broken_fields(self, data: bytes) -> tuple[list[tuple[int, int]], int | None]:
        """(start and end of quoted fields with line breaks, start of one still open at the end)."""
        if self._broken is None or b'"' not in data:
            return [], None
        spans, match = [], self._broken.match(data)
        while match is not None:
            spans.append(match.span(1))
            if not match.group(2):
                return spans, match.start(1)
            match = self._broken.match(data, match.end())
        return spans, None

    def _cut(self, data, ends, breaks, kept, long) -> Iterator[Block]:
        """The records up to the last of ``ends``; ``long`` if the first is the rest of a long record."""
        starts = np.concatenate([[0], ends[:-1] + 1])
        # Line breaks before a record are those up to the end of the one before it.
        lines = self._line + np.concatenate([[0], np.flatnonzero(kept)[:-1] + 1])
        self._line += len(breaks)
        text = np.frombuffer(data, np.uint8)
        sizes = ends - starts
        sizes -= (sizes > 0) & (text[np.maximum(ends - 1, 0)] == _CR) & (text[ends] == _LF)
        real, first, broken = sizes > 0, 0, len(breaks) > len(ends)
        if long is not None:
            first, real[0] = 1, False
        for last in [*np.flatnonzero(real & (sizes > self._most)), len(ends)]:
            rows = slice(first, last)
            begin = int(starts[first]) if first < len(ends) else int(ends[-1]) + 1
            end = int(starts[last]) if last < len(ends) else int(ends[-1]) + 1
            taken = real[rows]
            places, numbers = starts[rows][taken] - begin, lines[rows][taken]
            yield Block(memoryview(data)[begin:end], places, numbers, broken, long)
            if last < len(ends):
                long = (int(lines[last]), self._field(data[starts[last] :][: self._most + 1]))
            first = last + 1

    def _pass_over(self, data: bytes) -> tuple[bytes, tuple[int, int]]:
        """Drops the beginning of a too long record.

        Returns:
          (a short replacement that leaves the parser in the same state; (line, number of the field that
          was too long)).
        """
        _, opened = self._broken_fields(data)
        if opened is not None and line_breaks(data[opened:]):
            raise self._never_closed(self._line + line_breaks(data[:opened]))
        where = (self._line, self._field(data[: self._most + 1]))
        if opened is not None:
            rest = b'"x'
        elif any(match.end() == len(data) for match in self._fields(data)):
            rest = b'"x"'  # Closed, unless the next byte is another quote.
        else:
            rest = b"x"
            if data[-1] == _CR or data[-1:] == self._delimiter:
                rest += data[-1:]
        self._line += line_breaks(data[:-1])
        return rest, where

    def _field(self, data: bytes) -> int:
        """Number of the field in which the beginning of a record ends."""
        delimiters = np.frombuffer(data, np.uint8) == self._delimiter[0]
        for match in self._fields(data):
            delimiters[match.start() : match.end()] = False
        return int(delimiters.sum())

    def _fields(self, data: bytes) -> Iterator[re.Match]:
        """All quoted fields."""
        return iter(()) if self._any is None else self._any.finditer(data)

    def _never_closed(self, line: int) -> UsageError:
        return UsageError(
            f"{self._name!r}: the quote that opens a field in the record of line {line:,} is not "
            "closed, so the rest of the file cannot be read, also with --skip-bad; close it, "
            "or read the file without quoting"
        )


def line_breaks(data: bytes) -> int:
    """Number of line breaks: LF, CRLF or lone CR."""
    return data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")


def _record_ends(data: bytes, spans, final: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(positions of record ends, of all line breaks up to the last one, which of these are ends)."""
    text = np.frombuffer(data, np.uint8)
    breaks = np.flatnonzero(text == _LF)
    if b"\r" in data:
        returns = np.flatnonzero(text == _CR)
        follower = text[np.minimum(returns + 1, len(text) - 1)]
        lone = follower != _LF
        if returns[-1] == len(text) - 1:
            lone[-1] = final  # The next piece may begin with its LF.
        breaks = np.sort(np.concatenate([breaks, returns[lone]]))
    kept = np.ones(len(breaks), bool)
    if spans:
        starts, stops = np.array(spans).T
        within = np.searchsorted(starts, breaks, side="right") - 1
        kept = (within < 0) | (breaks >= stops[np.maximum(within, 0)])
    ends = breaks[kept]
    if len(ends):
        last = np.searchsorted(breaks, ends[-1]) + 1
        breaks, kept = breaks[:last], kept[:last]
    return ends, breaks, kept
