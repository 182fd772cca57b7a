"""Columns to tf.Example rows to TFRecord files, without TensorFlow.

Rows are serialized whole columns at a time, with no Python step per row or value: a row is put together
from the wire format of its parts (protobuf.dev/programming-guides/encoding) in Arrow's kernels: the
values of each list, then what precedes them, then all features in the order of their names. The bytes
are those of ``tf.train.Example.SerializeToString(deterministic=True)``, except for the order of two
names of which one begins the other, where protobuf's own runtimes differ.

A TFRecord is the length (uint64), its checksum, the bytes and their checksum, all little-endian; a
checksum is a CRC-32C (RFC 3720), rotated and offset. Worker processes that write need no TensorFlow,
which would cost each of them seconds and hundreds of megabytes.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_BINARY = pa.large_binary()
_FIRST = b"\x0a"  # field 1, of a length and bytes
_SECOND = b"\x12"  # field 2, the same
_KINDS = {"bytes": b"\x0a", "float": b"\x12", "int64": b"\x1a"}
"""What begins the list of each kind in tf.train.Feature."""
_SMALL = 1 << 16
"""Numbers below are counted rather than sorted."""
_HEADS = 1 << 14
"""Different heads of entries and records that are kept."""


@dataclass(frozen=True)
class Wire:
    """Values as they lie in a list of a tf.train.Feature.

    Attributes:
      kind: "bytes", "float" or "int64", the kind of the list.
      values: for each value the bytes that it adds to the list.
    """

    kind: str
    values: pa.LargeBinaryArray


@dataclass(frozen=True)
class WireColumn:
    """One column of rows.

    Attributes:
      wire: values.
      codes: which of them, one after the other; None takes them as they are.
      row_splits: list i is ``row_splits[i]:row_splits[i + 1]`` of them; None is one value a list.
      rows: the list of each row; None is one list a row, in order.
    """

    wire: Wire
    codes: np.ndarray | None = None
    row_splits: np.ndarray | None = None
    rows: np.ndarray | None = None


def wire_values(values: np.ndarray | pa.Array) -> Wire:
    """The wire format of text, float32 or whole numbers, without missing ones."""
    if isinstance(values, pa.Array) and not pa.types.is_large_string(values.type):
        values = values.to_numpy()
    if isinstance(values, pa.Array) or values.dtype.kind in "OUT":
        if not isinstance(values, pa.Array):
            values = pa.array(np.asarray(values, object), pa.large_string())
        values = values.cast(_BINARY)
        lengths = np.diff(binary_bytes(values)[1])
        heads = _by_number(lengths, lambda length: _FIRST + _varint(length))
        return Wire("bytes", _joined(heads, values))
    if values.dtype.kind == "f":
        data = np.ascontiguousarray(values, "<f4")
        offsets = np.arange(len(data) + 1) * data.itemsize
        return Wire("float", _binary(offsets, pa.py_buffer(data)))
    return Wire("int64", _varints(values))


def serialize_rows(columns: Mapping[str, WireColumn]) -> pa.LargeBinaryArray:
    """One serialized tf.Example a row, all columns in it; every column must have as many rows."""
    # A map field has no order of its own; sorted keys are what makes equal rows equal bytes.
    parts = []
    for name in sorted(columns, key=str.encode):
        parts += _entries(name.encode(), columns[name])
    lengths = sum(np.diff(binary_bytes(part)[1]) for part in parts)
    return _joined(_by_number(lengths, lambda length: _FIRST + _varint(length)), *parts)


def _entries(key: bytes, column: WireColumn) -> list[pa.LargeBinaryArray]:
    """A column's part of every row: what precedes the values, and the values."""
    values = column.wire.values
    if column.codes is not None:
        values = values.take(pa.array(column.codes))
    if column.row_splits is not None:
        _, offsets = binary_bytes(values)
        values = _binary(offsets[column.row_splits], values.buffers()[2])
    if column.rows is not None:
        values = values.take(pa.array(column.rows))
    lengths = np.diff(binary_bytes(values)[1])
    return [_by_number(lengths, lambda length: _entry_head(key, column.wire.kind, length)), values]


@lru_cache(_HEADS)
def _entry_head(key: bytes, kind: str, length: int) -> bytes:
    """An entry of the map of features up to its values, which take ``length`` bytes."""
    # Numbers lie packed behind their length, if there are any; texts one by one.
    inner = b"" if kind == "bytes" or length == 0 else _FIRST + _varint(length)
    head = _KINDS[kind] + _varint(len(inner) + length) + inner
    name = _FIRST + _varint(len(key)) + key
    feature = _SECOND + _varint(len(head) + length) + head
    return _FIRST + _varint(len(name) + len(feature) + length) + name + feature


def _varint(number: int) -> bytes:
    """Seven bits a byte, lowest first; a negative number as its 64-bit complement."""
    number &= 2**64 - 1
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)


def _varints(numbers: np.ndarray) -> pa.LargeBinaryArray:
    """:func:`_varint` of every number."""
    left = numbers.astype(np.int64).view(np.uint64)
    groups = [left & np.uint64(127)]
    while (left := left >> np.uint64(7)).any():
        groups.append(left & np.uint64(127))
    digits = np.stack(groups, axis=1).astype(np.uint8)  # [numbers, groups], lowest first
    more = np.logical_or.accumulate(digits[:, ::-1] > 0, axis=1)[:, ::-1]
    used = more.copy()
    used[:, 0] = True
    digits[:, :-1] |= more[:, 1:].astype(np.uint8) << 7
    offsets = np.concatenate([[0], np.cumsum(used.sum(axis=1))])
    return _binary(offsets, pa.py_buffer(digits[used]))


def _by_number(numbers: np.ndarray, make: Callable[[int], bytes]) -> pa.LargeBinaryArray:
    """``make`` of every number, called once for each different one."""
    if len(numbers) and numbers.min() >= 0 and numbers.max() < _SMALL:
        different = np.flatnonzero(np.bincount(numbers))
        place = np.empty(int(different[-1]) + 1, np.int64)
        place[different] = np.arange(len(different))
        codes = place[numbers]
    else:
        different, codes = np.unique(numbers, return_inverse=True)
    made = pa.array([make(number) for number in different.tolist()], _BINARY)
    return made.take(pa.array(codes))


def _binary(offsets: np.ndarray, data: pa.Buffer | None) -> pa.LargeBinaryArray:
    offsets = pa.py_buffer(np.ascontiguousarray(offsets, np.int64))
    return pa.LargeBinaryArray.from_buffers(
        _BINARY, offsets.size // 8 - 1, [None, offsets, data if data is not None else b""]
    )


def _joined(*parts: pa.LargeBinaryArray) -> pa.LargeBinaryArray:
    return pc.binary_join_element_wise(*parts, pa.scalar(b"", _BINARY))


def binary_bytes(values: pa.LargeBinaryArray) -> tuple[np.ndarray, np.ndarray]:
    """(bytes uint8, offsets int64 [n + 1]): value i is ``bytes[offsets[i]:offsets[i + 1]]``."""
    _, offsets, data = values.buffers()
    if len(values) == 0:
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    offsets = np.frombuffer(offsets, np.int64)[values.offset : values.offset + len(values) + 1]
    return np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8), offsets


def write_records(path: str | Path, pieces: Iterable[pa.LargeBinaryArray]) -> tuple[int, int]:
    """Writes every value of every array as one record.

    Args:
      path: of the file, which is replaced.
      pieces: arrays without missing values, written one after the other.

    Returns:
      (records, bytes) written.
    """
    records = 0
    with open(path, "wb") as file:
        for values in pieces:
            data, offsets = binary_bytes(values)
            heads = _by_number(np.diff(offsets), _record_head)
            checks = _binary(
                np.arange(len(values) + 1) * 4, pa.py_buffer(_checksums(data, offsets))
            )
            file.write(memoryview(binary_bytes(_joined(heads, values, checks))[0]))
            records += len(values)
        return records, file.tell()


@lru_cache(_HEADS)
def _record_head(size: int) -> bytes:
    """What precedes a record of ``size`` bytes: its length, and the checksum of that."""
    length = np.array([size], "<u8").tobytes()
    return length + _checksums(np.frombuffer(length, np.uint8), np.array([0, 8])).tobytes()


def _checksums(data: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Checksums of ``data[offsets[i]:offsets[i + 1]]``, uint32."""
    whole, crc = data.tobytes(), google_crc32c.value
    found = [crc(whole[start:end]) for start, end in itertools.pairwise(offsets.tolist())]
    crcs = np.array(found, np.uint32)
    return ((crcs >> np.uint32(15) | crcs << np.uint32(17)) + np.uint32(0xA282EAD8)).astype("<u4")
