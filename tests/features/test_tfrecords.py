import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from loopctr_tf.features.tfrecords import crc32c, write_records


def binary(values) -> pa.LargeBinaryArray:
    return pa.array(values, pa.large_binary())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # RFC 3720, B.4, and the check value of the polynomial.
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (bytes([0xFF] * 32), 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"", 0),
    ],
)
def test_checksums_are_those_of_the_standard(text, expected):
    data = np.frombuffer(b"ab" + text + b"c", np.uint8)
    offsets = np.array([0, 2, 2 + len(text), 3 + len(text)])
    assert crc32c(data, offsets)[1] == expected


def test_the_file_is_that_of_tensorflow(tmp_path):
    """Sizes around those at which a block, a piece of work and the length of a varint end."""
    rng = np.random.default_rng(0)
    sizes = [0, 1, 4, 255, 256, 257, 512, 1000, 65_535, 65_536, 65_537, 300_000, 0, 0, 3]
    sizes += rng.integers(0, 3000, 200).tolist()
    values = [rng.integers(0, 256, size).astype(np.uint8).tobytes() for size in sizes]
    written = write_records(tmp_path / "ours", [binary(values)])
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for value in values:
            writer.write(value)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert written == (len(values), (tmp_path / "theirs").stat().st_size)


def test_arrays_follow_each_other_and_may_be_parts(tmp_path):
    values = binary([b"a", b"bc", b"", b"def"])
    written = write_records(
        tmp_path / "file", [values, values.slice(1, 2), values.slice(4), values[3:]]
    )
    found = list(tf.data.TFRecordDataset(str(tmp_path / "file")).as_numpy_iterator())
    assert found == [b"a", b"bc", b"", b"def", b"bc", b"", b"def"]
    assert written[0] == 7


def test_nothing_to_write_is_an_empty_file(tmp_path):
    assert write_records(tmp_path / "file", []) == (0, 0)
    assert (tmp_path / "file").read_bytes() == b""
