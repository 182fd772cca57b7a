import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from loopctr_tf.features.records import WireColumn, serialize_rows, wire_values, write_records


def binary(values) -> pa.LargeBinaryArray:
    return pa.array(values, pa.large_binary())


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


# Rows.

ROWS = 40


def serialized_by_protobuf(lists: dict[str, list], row: int) -> bytes:
    """One row of columns that hold a list a row, by TensorFlow's own class."""
    example = tf.train.Example()
    for name, column in lists.items():
        kind, values = column[0], column[1][row]
        getattr(example.features.feature[name], kind).value.extend(values)
    return example.SerializeToString(deterministic=True)


def random_columns(seed: int = 0):
    """(wire columns, the same as {name: (kind, a list a row)}) of all kinds; no name begins another."""
    rng = np.random.default_rng(seed)
    columns, lists = {}, {}

    def add(name, kind, values, plain, splits=None):
        columns[name] = WireColumn(wire_values(values), row_splits=splits)
        edges = np.arange(ROWS + 1) if splits is None else splits
        lists[name] = (kind, [plain[edges[r] : edges[r + 1]] for r in range(ROWS)])

    def splits(most):
        return np.concatenate([[0], np.cumsum(rng.integers(0, most, ROWS))])

    def texts(count):
        known = ["", "a", "Zoë", "千" * 50, "x" * 127, "y" * 128, "z" * 20_000]
        return np.array([known[i] for i in rng.integers(0, len(known), count)], object)

    for name, most in (("tags", 4), ("clicks", 60)):
        edges = splits(most)
        values = texts(edges[-1])
        add(name, "bytes_list", values, [v.encode() for v in values], edges)
    one = texts(ROWS)
    add("id", "bytes_list", one, [v.encode() for v in one])
    edges = splits(300)
    numbers = rng.normal(size=edges[-1]).astype(np.float32)
    add("prices", "float_list", numbers, numbers.tolist(), edges)
    add("label", "float_list", np.zeros(ROWS, np.float32), [0.0] * ROWS)
    edges = splits(200)
    whole = rng.integers(-(2**62), 2**62, edges[-1])
    whole[:6] = [0, -1, 127, 128, 2**63 - 1, -(2**63)]
    add("W", "int64_list", whole, whole.tolist(), edges)
    add("n" * 200, "int64_list", np.arange(ROWS, dtype=np.int32), list(range(ROWS)))
    nothing = np.zeros(ROWS + 1, np.int64)
    add("no_text", "bytes_list", np.zeros(0, object), [], nothing)
    add("no_number", "float_list", np.zeros(0, np.float32), [], nothing)
    add("no_whole", "int64_list", np.zeros(0, np.int64), [], nothing)
    return columns, lists


@pytest.mark.parametrize("seed", range(3))
def test_rows_are_those_of_protobuf_byte_for_byte(seed):
    columns, lists = random_columns(seed)
    found = serialize_rows(columns).to_pylist()
    assert found == [serialized_by_protobuf(lists, row) for row in range(ROWS)]


def test_names_of_which_one_begins_the_other_are_told_apart():
    """In an order of ours; protobuf's runtimes have different ones."""
    names = ("history", "history_item", "his", "History")
    columns = {name: WireColumn(wire_values(np.array([name], object))) for name in names}
    (found,) = serialize_rows(columns).to_pylist()
    features = tf.train.Example.FromString(found).features.feature
    assert {name: features[name].bytes_list.value[0].decode() for name in features} == {
        name: name for name in names
    }
    places = [found.index(b"\x0a" + bytes([len(name)]) + name.encode()) for name in sorted(names)]
    assert places == sorted(places)


def test_codes_splits_and_rows_pick_the_values():
    """Different values once, lists of them by code, and lists that several rows share."""
    wire = wire_values(pa.array(["zero", "one", "two"], pa.large_string()))
    shared = np.array([1, 1, 0, 2])
    columns = {
        "list": WireColumn(wire, np.array([2, 0, 1, 1, 0]), np.array([0, 2, 2, 5]), shared),
        "one": WireColumn(wire, np.array([0, 2, 1, 1])),
    }
    found = [
        tf.train.Example.FromString(row).features.feature
        for row in serialize_rows(columns).to_pylist()
    ]
    lists = [[value.decode() for value in row["list"].bytes_list.value] for row in found]
    assert lists == [[], [], ["two", "zero"], ["one", "one", "zero"]]
    assert [row["one"].bytes_list.value[0] for row in found] == [b"zero", b"two", b"one", b"one"]


def test_whole_numbers_of_arrow_are_whole_numbers():
    wire = wire_values(pa.array([5, -1], pa.int64()))
    assert wire.kind == "int64"
    (row, _) = serialize_rows({"x": WireColumn(wire)}).to_pylist()
    assert tf.train.Example.FromString(row).features.feature["x"].int64_list.value == [5]
