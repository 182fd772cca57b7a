"""Reads the rows of a file in batches of columns, without guessing a type from the values.

Parquet is read by Arrow. CSV and TSV are read by Arrow, every cell as text. JSON lines are read line by
line by Python: Arrow would make dates of text, doubles of whole numbers beside them, and an error of a
column that holds both text and numbers.
"""

import ast
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from loopctr_tf.errors import UsageError
from loopctr_tf.features.columns import PADDING
from loopctr_tf.features.values import BadValueError, id_texts, numbers, whole_numbers
from loopctr_tf.scoring.client.features import row_of
from loopctr_tf.scoring.client.signature import TensorInfo

Batch = Mapping[str, pa.Array | list]
"""Columns by name."""

DELIMITERS = {".csv": ",", ".tsv": "\t"}
_BLOCK = 1 << 23
"""Bytes of text that Arrow reads at a time; no record may be longer."""


def read_batches(
    path: Path, batch_size: int, delimiter: str | None = None, quoting: bool = True
) -> Iterator[Batch]:
    """Batches of the rows of a file, in order.

    Args:
      path: ``.parquet``, or ``.csv``, ``.tsv``, ``.jsonl``, the latter three also with ``.gz`` behind.
      batch_size: rows a batch, except for the last.
      delimiter: between the cells of a line of text; None takes that of the file's name.
      quoting: whether quotes enclose cells.

    Raises:
      UsageError: for a file that cannot be read.
    """
    kind = Path(path.name.removesuffix(".gz")).suffix
    if kind not in (".parquet", ".jsonl", *DELIMITERS) or path.name.endswith(".parquet.gz"):
        raise UsageError(
            f"{str(path)!r} is neither a folder, .parquet, .jsonl, .csv nor .tsv; convert it to one of "
            "them"
        )
    try:
        if kind == ".parquet":
            yield from _parquet(path, batch_size)
        elif kind == ".jsonl":
            yield from _json_lines(path, batch_size)
        else:
            yield from _text(path, batch_size, delimiter or DELIMITERS[kind], quoting)
    except (OSError, EOFError, zlib.error, pa.ArrowException, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())[:200]
        raise UsageError(f"{str(path)!r} cannot be read: {problem}") from error


def _parquet(path: Path, batch_size: int) -> Iterator[Batch]:
    with pa.parquet.ParquetFile(path) as file:
        _check_names(path, file.schema_arrow.names)
        for batch in file.iter_batches(batch_size):
            yield dict(zip(batch.schema.names, batch.columns, strict=True))


def _json_lines(path: Path, batch_size: int) -> Iterator[Batch]:
    names: dict[str, None] = {}  # of all rows so far: a later row may lack some
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig") as file:
        lines = ((number, line) for number, line in enumerate(file, 1) if line.strip())
        while some := list(islice(lines, batch_size)):
            rows = [_json_row(path, *each) for each in some]
            for row in rows:
                names.update(dict.fromkeys(row))
            yield {name: [row.get(name) for row in rows] for name in names}


def _json_row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UsageError(f"{str(path)!r} cannot be read: line {number}: {error}") from error
    if not isinstance(row, dict):
        raise UsageError(f"{str(path)!r} cannot be read: line {number} is no JSON object")
    return row


def _text(path: Path, batch_size: int, delimiter: str, quoting: bool) -> Iterator[Batch]:
    reading = pa.csv.ReadOptions(block_size=_BLOCK)
    parsing = pa.csv.ParseOptions(
        delimiter=delimiter, quote_char='"' if quoting else False, newlines_in_values=quoting
    )

    def opened(names: list[str]):
        converting = pa.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
        )
        stream = pa.input_stream(path, compression="gzip" if path.suffix == ".gz" else None)
        return pa.csv.open_csv(stream, reading, parsing, converting)

    if path.stat().st_size == 0:
        return
    with opened([]) as reader:
        names = reader.schema.names
    _check_names(path, names)
    start, rest = 0, None
    with opened(names) as reader:
        for batch in reader:
            # The batches of Arrow are of blocks of bytes.
            table = pa.Table.from_batches([batch])
            _check_breaks(path, table, start)
            start += len(table)
            rest = table if rest is None else pa.concat_tables([rest, table]).combine_chunks()
            whole = len(rest) // batch_size * batch_size
            for first in range(0, whole, batch_size):
                yield _columns(rest.slice(first, batch_size))
            rest = rest.slice(whole)
    if rest is not None and len(rest):
        yield _columns(rest)


def _check_names(path: Path, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{str(path)!r} has two columns {name!r}; keep one, or rename it")


def _columns(table: pa.Table) -> Batch:
    return {
        name: column.combine_chunks()
        for name, column in zip(table.column_names, table.columns, strict=True)
    }


def _check_breaks(path: Path, table: pa.Table, start: int) -> None:
    """A value with a line break is a lone quote that swallowed lines: no id has one."""
    for name, column in zip(table.column_names, table.columns, strict=True):
        broken = pa.compute.index(
            pa.compute.match_substring_regex(column, r"[\r\n]"), pa.scalar(True)
        ).as_py()
        if broken >= 0:
            raise UsageError(
                f"{str(path)!r}: column {name!r} holds {column[broken].as_py()!r:.40} in row "
                f"{start + broken}, a value of several lines: is a quote left open? Give --no-quoting "
                "where quotes are ordinary characters"
            )


def typed(
    name: str, column: pa.Array | list, info: TensorInfo, start: int, separator: str | None = None
) -> list:
    """A column as what a client takes for ``info``: whole numbers exact, text spelt, nothing missing.

    A missing id takes the padding value ("" or -1), a missing number becomes NaN, for the server to
    refuse or to fill, and a missing list is empty.

    Args:
      name: of the column, for messages.
      column: of a batch.
      info: the input.
      start: row of the file with which the batch begins.
      separator: between the values of a list in a cell of text; without one, it is JSON.

    Raises:
      UsageError: naming column, row and value.
    """
    depth = (info.rank or 1) - 1
    if depth and _holds_text(column):
        texts = column.to_pylist() if isinstance(column, pa.Array) else column
        column = [
            _list_of_cell(cell, name, start + row, separator, depth)
            if isinstance(cell, str)
            else cell
            for row, cell in enumerate(texts)
        ]
    counts: list[np.ndarray] = []
    values = column
    while len(counts) < depth:
        values, sizes = _opened(values, name, info, start, counts)
        counts.append(sizes)
    fill, convert = {
        "O": (PADDING["string"], id_texts),
        "i": (PADDING["int64"], whole_numbers),
        "u": (0, whole_numbers),
        "f": (np.nan, numbers),
    }.get(info.dtype.kind, (None, None))
    if convert is None:  # no export takes other types
        return column.to_pylist() if isinstance(column, pa.Array) else column
    try:
        _refuse_lists(values)
        found = convert(values).fill_null(fill).to_pylist()
    except BadValueError as error:
        raise UsageError(
            f"column {name!r} holds {error.value!r:.80} in row "
            f"{start + row_of(error.position, counts)}, {error.problem}"
        ) from error
    except pa.ArrowException as error:
        raise UsageError(
            f"column {name!r} is not {info}: {' '.join(str(error).split())}"
        ) from error
    for sizes in reversed(counts):
        ends = np.cumsum(sizes).tolist()
        found = [found[end - size : end] for end, size in zip(ends, sizes.tolist(), strict=True)]
    return found


def id_column(name: str, column: pa.Array | list, start: int) -> list[str]:
    """A column of ids as text, "" for missing ones."""
    return typed(name, column, TensorInfo(np.dtype(object), (None,)), start)


def _holds_text(column: pa.Array | list) -> bool:
    if isinstance(column, list):
        return any(isinstance(value, str) for value in column)
    return column.type in (pa.string(), pa.large_string(), pa.string_view())


def _list_of_cell(cell: str, name: str, row: int, separator: str | None, depth: int) -> list | None:
    text = cell.strip()
    if not text:
        return None
    if text[0] in "[(" and text[-1] in "])":
        for read in (json.loads, ast.literal_eval):
            try:
                found = read(text)
                if isinstance(found, (list, tuple)):
                    return list(found)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
    elif separator is not None and depth == 1:
        return text.split(separator)
    remedy = "write [[1], [2, 3]]"
    if depth == 1:
        remedy = f"give --separator {name}=CHARACTER, or write [1, 2]"
    raise UsageError(
        f"column {name!r} holds {cell!r:.60} in row {row}, where a list belongs; {remedy}"
    )


def _opened(
    values: pa.Array | list, name: str, info: TensorInfo, start: int, counts: list[np.ndarray]
) -> tuple[pa.Array | list, np.ndarray]:
    """The elements of lists one after the other, and the size of each list; a missing one is empty."""
    if isinstance(values, list):
        for position, value in enumerate(values):
            if value is not None and not isinstance(value, (list, tuple)) and value == value:
                raise UsageError(
                    f"column {name!r} holds {value!r:.60} in row {start + row_of(position, counts)}, "
                    f"where a list belongs; the model takes {info}"
                )
        lists = [value if isinstance(value, (list, tuple)) else () for value in values]
        sizes = np.fromiter(map(len, lists), np.int64, len(lists))
        return [value for each in lists for value in each], sizes
    if pa.types.is_null(values.type):
        return values.slice(0, 0), np.zeros(len(values), np.int64)
    if not isinstance(values, (pa.ListArray, pa.LargeListArray, pa.FixedSizeListArray)):
        raise UsageError(
            f"column {name!r} is {values.type}, where lists belong; the model takes {info}"
        )
    if isinstance(values, pa.FixedSizeListArray):
        values = values.cast(pa.list_(values.type.value_type))
    sizes = pa.compute.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False)
    return values.flatten(), sizes.astype(np.int64)


def _refuse_lists(values: pa.Array | list) -> None:
    """BadValueError for a list where one value belongs."""
    if isinstance(values, pa.Array):
        if pa.types.is_nested(values.type) and len(values):
            raise BadValueError(0, values[0].as_py(), "where one value belongs")
        return
    for position, value in enumerate(values):
        if isinstance(value, (list, dict, tuple)):
            raise BadValueError(position, value, "where one value belongs")
