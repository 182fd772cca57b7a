"""Delimited text read by DuckDB: the call, the decision about quotes, and the lines it rejects."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import duckdb

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.file_heads import LINE_LIMIT, Head, line_numbers
from loopctr_tf.prepare.file_paths import FILE

FIELDS = "wrong number of fields"
NOT_UTF8 = "not UTF-8"
OPEN_QUOTE = "a quote that is not closed, or text after a closing quote"
LONG_LINE = f"line of more than {LINE_LIMIT:,} bytes"
NOT_JSON = "not a JSON object"
UNREADABLE = "cannot be read"
LINE_REMEDIES = {
    FIELDS: "look for a delimiter in a value, or a row cut short",
    NOT_UTF8: "convert the file, e.g. with iconv -t UTF-8",
    OPEN_QUOTE: "close it, double the quotes within the value, or read quotes as text (--no-quoting)",
    LONG_LINE: "shorten it",
    NOT_JSON: "write one JSON object per line",
    UNREADABLE: "write the line again",
}
"""Reason of a bad line -> remedy."""

_REASONS = {
    "MISSING COLUMNS": FIELDS,
    "TOO MANY COLUMNS": FIELDS,
    "INVALID ENCODING": NOT_UTF8,
    "UNQUOTED VALUE": OPEN_QUOTE,
    "LINE SIZE OVER MAXIMUM": LONG_LINE,
}
SHOWN = 1000
"""Maximum characters of a bad line's text."""


class BadLine(NamedTuple):
    """A line that could not be split into columns.

    Attributes:
      file: path as given.
      line: of the file, on which the row begins, from 1.
      reason: a key of ``LINE_REMEDIES``.
      text: what the line holds, at most ``SHOWN`` characters; where the number of fields is wrong, it
        begins with those found and needed: "3 for 7: ".
    """

    file: str
    line: int
    reason: str
    text: str


def csv_scan(paths: Sequence[Path], head: Head, hive: bool = False, rejects: int = 0) -> str:
    """DuckDB's table expression for files with the same head.

    Args:
      paths: the files.
      head: of each of them.
      hive: whether to add the keys of their folders.
      rejects: maximum of rejected lines kept for ``rejected_lines``; 0 keeps all.
    """
    quote = '"' if head.quoting else ""
    types = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in head.names)
    # All columns are needed: of a scan of some columns, DuckDB 1.5 rejects other lines, or it fails.
    needed = " OR ".join(f"{quoted(name)} IS NOT NULL" for name in [*head.names, FILE])
    listed = ", ".join(literal(str(path)) for path in paths)
    return (
        f"(SELECT * FROM read_csv([{listed}], auto_detect=false, "
        f"columns={{{types}}}, delim={literal(head.delimiter)}, quote='{quote}', escape='{quote}', "
        f"header=false, skip={head.lines}, nullstr='', encoding='utf-8', null_padding=false, "
        f"strict_mode={_word(not head.mixed_breaks)}, ignore_errors=true, "
        # Without store_rejects, DuckDB 1.5 ends the scan soon after the first bad line.
        f"store_rejects=true, rejects_limit={rejects}, "
        f"max_line_size={LINE_LIMIT}, "
        # DuckDB 1.5 loses an unclosed quote at the end of the file if parallel is false.
        f"parallel=true, filename={literal(FILE)}, "
        f"hive_partitioning={_word(hive)}, hive_types_autocast=false) WHERE {needed})"
    )


def with_quoting(head: Head, quoting: bool | None) -> tuple[Head, str | None]:
    """``head`` with the given quoting, or what the file's content asks for; a note about it.

    Raises:
      UsageError: if lines end in several ways, outside of quoted values.
    """
    name = head.path.name
    # Outside strict mode, DuckDB drops surplus fields and text after a closing quote.
    text = replace(head, quoting=False, mixed_breaks=False)
    both = replace(text, quoting=True)
    try:
        if head.mixed_breaks:
            first = text if quoting is False or not head.has_quotes else both
            _counts("count(*)", csv_scan([head.path], first, rejects=1))
        if not head.has_quotes:
            return replace(both, quoting=quoting is not False), None
        if quoting is False:
            return text, None
        cells = " + ".join(
            f"count(*) FILTER (contains({c}, chr(10)) OR contains({c}, chr(13)))"
            for c in map(quoted, head.names)
        )
        rows, spanning = _counts(f"count(*), {cells}", csv_scan([head.path], both, rejects=1))
        if quoting is None and not any("\n" in column for column in head.names):
            lines, plain = _plain_lines(head)
            # Cells that really have several lines fall into bad lines without quoting.
            if 2 * (lines - plain) <= plain - rows > 0 and not _has_enclosed_column(head):
                if head.mixed_breaks:
                    _counts("count(*)", csv_scan([head.path], text, rejects=1))
                return text, (
                    f"{name}: {rows:,} rows with quotes, {plain:,} without: quotes are read as text; "
                    "give --quoting if they enclose values"
                )
    except duckdb.InvalidInputException as error:
        raise UsageError(
            f"{str(head.path)!r} has several kinds of line breaks (LF, CRLF, CR); write it with one, "
            "e.g. with tr -d '\\r'"
        ) from error
    if spanning == 0:
        return both, None
    return both, (
        f"{name}: {spanning:,} quoted cells hold line breaks; give --no-quoting if quotes are text"
    )


def _plain_lines(head: Head) -> tuple[int, int]:
    """Lines, empty ones apart, and those of the right number of fields without quoting."""
    # DuckDB takes 15 microseconds to reject a line, so it must not split them.
    delimiter = literal(head.delimiter)
    fields = f"length(line) - length(replace(line, {delimiter}, '')) + 1"
    what = f"count(line), count(*) FILTER ({fields} = {len(head.names)})"
    return _counts(what, csv_scan([head.path], _as_lines(head), rejects=1))


def _has_enclosed_column(head: Head) -> bool:
    """Whether quotes enclose nearly all values of a column: an odd quote is then one row's mistake."""
    columns = range(1, len(head.names) + 1)
    shares = [f"avg((c[{place}] LIKE '\"%\"')::INT) FILTER (c[{place}] <> '')" for place in columns]
    lines = csv_scan([head.path], _as_lines(head), rejects=1)
    source = f"(SELECT string_split(line, {literal(head.delimiter)}) AS c FROM {lines})"
    return any((share or 0) > 0.9 for share in _counts(", ".join(shares), source))


def _as_lines(head: Head) -> Head:
    """A head that makes each line the value of a column ``line``: U+001F is in no text."""
    return replace(head, names=("line",), delimiter="\x1f", quoting=False, mixed_breaks=True)


def _counts(what: str, source: str) -> tuple:
    with duckdb.connect() as connection:
        return connection.execute(f"SELECT {what} FROM {source}").fetchall()[0]


def _rejects(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, int, str, str, str]]:
    """(file, byte on which the line begins, type, text, message) of rejected lines, each once."""
    try:
        return connection.execute(
            "SELECT DISTINCT ON (file_path, line_byte_position) file_path, line_byte_position, "
            f"error_type, left(csv_line, {SHOWN + 10}), error_message FROM reject_errors JOIN "
            "reject_scans USING (scan_id, file_id) ORDER BY file_path, line_byte_position, column_idx"
        ).fetchall()
    except duckdb.CatalogException:  # No line has been rejected.
        return []


def rejected_lines(connection, paths: Sequence[Path]) -> list[BadLine]:
    """The lines of ``paths`` that scans on ``connection`` have rejected."""
    rejects, found = _rejects(connection), []
    for path in map(str, paths):
        own = [row[1:] for row in rejects if row[0] == path]
        # An empty line before the rejected one counts as its beginning.
        places = [
            place + len(text or "") - len((text or "").lstrip("\r\n")) for place, _, text, _ in own
        ]
        for line, (_, error, text, message) in zip(
            line_numbers(Path(path), places), own, strict=True
        ):
            reason, text = _REASONS.get(error, UNREADABLE), (text or "").strip("\r\n")
            counts = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", message or "")
            if counts and reason == FIELDS:
                text = f"{counts[2]} for {counts[1]}: {text}"
            found.append(BadLine(path, line, reason, text[:SHOWN]))
    return found


def quoted(name: str) -> str:
    """``name`` as an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """``value`` as a string of SQL."""
    return "'" + value.replace("'", "''") + "'"


def _word(value: bool) -> str:
    return "true" if value else "false"
