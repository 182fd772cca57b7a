"""TFRecord files written without TensorFlow: the frame of every record, and its CRC-32C in NumPy.

The format is TensorFlow's: length (uint64), checksum of the length, bytes, checksum of the bytes, all
little-endian; a checksum is a CRC-32C (Castagnoli, RFC 3720), rotated and offset. Workers that write
need no TensorFlow then, which costs each of them seconds and hundreds of megabytes.
"""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_POLYNOMIAL = 0x82F63B78  # bits reversed
_BLOCK = 256
"""Bytes whose checksum is looked up at once; its table fits into a core's cache."""
_PIECE = 1 << 16
"""Bytes that are worked on at once, for the same reason."""
_ONES = np.uint32(0xFFFFFFFF)


def write_records(path: str | Path, pieces: Iterable[pa.LargeBinaryArray]) -> tuple[int, int]:
    """Writes every value of every array as one record.

    Args:
      path: of the file, which is made anew.
      pieces: arrays without missing values, written one after the other.

    Returns:
      (records, bytes) written.
    """
    records = 0
    with open(path, "wb") as file:
        for values in pieces:
            file.write(_framed(values))
            records += len(values)
        return records, file.tell()


def binary_bytes(values: pa.LargeBinaryArray) -> tuple[np.ndarray, np.ndarray]:
    """(bytes uint8, offsets int64 [n + 1]): value i is ``bytes[offsets[i]:offsets[i + 1]]``."""
    _, offsets, data = values.buffers()
    if len(values) == 0:
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    offsets = np.frombuffer(offsets, np.int64)[values.offset : values.offset + len(values) + 1]
    return np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8), offsets


def _framed(values: pa.LargeBinaryArray) -> bytes:
    data, offsets = binary_bytes(values)
    head = np.empty((len(values), 12), np.uint8)
    head[:, :8] = np.diff(offsets).astype("<u8").view(np.uint8).reshape(-1, 8)
    eights = np.arange(len(values) + 1) * 8
    head[:, 8:] = _checksums(np.ascontiguousarray(head[:, :8]).reshape(-1), eights)
    joined = pc.binary_join_element_wise(
        _fixed(head), values, _fixed(_checksums(data, offsets)), pa.scalar(b"", pa.large_binary())
    )
    data, offsets = binary_bytes(joined)
    return data[offsets[0] : offsets[-1]]


def _fixed(rows: np.ndarray) -> pa.LargeBinaryArray:
    """The rows of a uint8 matrix."""
    offsets = np.arange(len(rows) + 1) * rows.shape[1]
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(rows))]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(rows), buffers)


def _checksums(data: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Masked checksums of ``data[offsets[i]:offsets[i + 1]]``, uint8 [n, 4]."""
    crc = crc32c(data, offsets)
    masked = ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(0xA282EAD8)
    return masked.astype("<u4").view(np.uint8).reshape(-1, 4)


def crc32c(data: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """CRC-32C of ``data[offsets[i]:offsets[i + 1]]``, uint32 [n].

    A CRC without its initial value is linear over XOR. So the bytes of each record are cut, from its
    end, into blocks; a byte's share of its block's CRC depends on its value and its distance to the
    block's end alone, and a block's share of the whole on the number of blocks behind it. Each share
    is one look-up.

    Args:
      data: uint8.
      offsets: int64 [n + 1], not falling.
    """
    lengths = np.diff(offsets)
    result = _initial(int(lengths.max(initial=0)))[lengths]
    filled = np.flatnonzero(lengths)
    start = 0
    while start < len(filled):
        # As many records as fit into a piece, at least one.
        limit = offsets[filled[start]] + _PIECE
        end = max(start + 1, int(np.searchsorted(offsets[filled + 1], limit, "right")))
        some = filled[start:end]
        result[some] ^= _linear(data[offsets[some[0]] : offsets[some[-1] + 1]], lengths[some])
        start = end
    return result ^ _ONES


def _linear(data: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """CRCs, begun with zero, of non-empty records that lie one behind the other."""
    counts = -(-lengths // _BLOCK)
    last = np.cumsum(counts)
    behind = np.repeat(last, counts) - 1 - np.arange(last[-1])  # blocks behind a block
    # The first block of a record is what is left over.
    sizes = np.full(last[-1], _BLOCK)
    sizes[last - counts] = lengths - (counts - 1) * _BLOCK
    ends = np.cumsum(sizes)
    distance = np.repeat(ends - 1, sizes).astype(np.int32)
    distance -= np.arange(len(data), dtype=np.int32)
    distance <<= 8
    distance |= data
    blocks = np.bitwise_xor.reduceat(_byte_table().take(distance), ends - sizes)
    moved = _move(_move_table(int(counts.max())), behind, blocks)
    return np.bitwise_xor.reduceat(moved, last - counts)


@lru_cache(maxsize=1)
def _byte_steps() -> np.ndarray:
    """CRC of one byte, uint32 [256]."""
    steps = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        steps = (steps >> np.uint32(1)) ^ (steps & np.uint32(1)) * np.uint32(_POLYNOMIAL)
    return steps


def _past_zero(crc: np.ndarray) -> np.ndarray:
    """CRCs after one more byte, of value 0."""
    return (crc >> np.uint32(8)) ^ _byte_steps()[crc & np.uint32(255)]


@lru_cache(maxsize=1)
def _byte_table() -> np.ndarray:
    """CRC of byte v followed by k zeros at [256 k + v], for k below the block's size."""
    rows = [_byte_steps()]
    while len(rows) < _BLOCK:
        rows.append(_past_zero(rows[-1]))
    return np.concatenate(rows)


def _move(table: np.ndarray, blocks: np.ndarray, crc: np.ndarray) -> np.ndarray:
    """CRCs after ``blocks`` more blocks of zeros; ``table`` as of :func:`_move_table`."""
    parts = [
        table[blocks, byte, (crc >> np.uint32(8 * byte)) & np.uint32(255)] for byte in range(4)
    ]
    return parts[0] ^ parts[1] ^ parts[2] ^ parts[3]


def _move_table(blocks: int) -> np.ndarray:
    """What j blocks of zeros make of a CRC whose byte b is v and whose others are 0; [j, b, v].

    Of at least ``blocks`` blocks; rounded up so that few sizes are made.
    """
    return _move_table_of(1 << (blocks - 1).bit_length())


@lru_cache(maxsize=16)
def _move_table_of(blocks: int) -> np.ndarray:
    values = np.arange(256, dtype=np.uint32)
    table = np.empty((max(blocks, 2), 4, 256), np.uint32)
    table[0] = table[1] = np.stack([values << np.uint32(8 * byte) for byte in range(4)])
    for _ in range(_BLOCK):
        table[1] = _past_zero(table[1])
    for j in range(2, len(table)):
        table[j] = _move(table[1:2], np.zeros(1, int), table[j - 1])
    return table


def _initial(length: int) -> np.ndarray:
    """What is left of the initial value after 0, 1, ... bytes, up to at least ``length``."""
    return _initial_of(1 << max(length, 1).bit_length())


@lru_cache(maxsize=32)
def _initial_of(count: int) -> np.ndarray:
    left = np.empty(count, np.uint32)
    value, steps = 0xFFFFFFFF, _byte_steps().tolist()
    for k in range(count):
        left[k] = value
        value = (value >> 8) ^ steps[value & 255]
    return left
