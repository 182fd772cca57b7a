import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

from loopctr_tf.scoring import tensors
from tests.scoring.scoring_model import ECHO_TYPES


def sample(dtype: tf.DType) -> np.ndarray:
    if dtype == tf.string:
        return np.array([[b"", b"a"], ["é".encode(), b"\x00\xff"]], object)
    return np.array([[0, 1], [2, 3]]).astype(dtype.as_numpy_dtype)


@pytest.mark.parametrize("shape", [(2, 2), (4,), (1, 4, 1), (0, 3)], ids=str)
def test_round_trip(shape):
    for dtype in ECHO_TYPES:
        array = sample(dtype).ravel()[: np.prod(shape)].reshape(shape)
        proto = tensors.to_proto(array)
        assert proto.dtype == dtype.as_datatype_enum
        back = tensors.to_array(tensor_pb2.TensorProto.FromString(proto.SerializeToString()))
        assert back.dtype == array.dtype
        np.testing.assert_array_equal(back, array, dtype.name)
        np.testing.assert_array_equal(tf.make_ndarray(proto), array, dtype.name)


def test_scalar():
    assert tensors.to_array(tensors.to_proto(np.float32(2.5))) == np.float32(2.5)
    assert tensors.to_array(tensors.to_proto(np.array(b"x", object))).item() == b"x"


def test_numbers_travel_as_raw_bytes():
    for dtype in ECHO_TYPES:
        proto = tensors.to_proto(sample(dtype))
        if dtype != tf.string:
            assert len(proto.tensor_content) == 4 * dtype.size, dtype
            assert not any(field.name.endswith("_val") for field, _ in proto.ListFields()), dtype


def test_reads_one_value_a_field():
    """The last value of `sample` in the field that TensorFlow writes one value to."""
    for dtype in ECHO_TYPES:
        value = sample(dtype)[-1, -1:]
        proto = tf.make_tensor_proto(value)
        assert not proto.tensor_content, dtype
        np.testing.assert_array_equal(tensors.to_array(proto), value, dtype.name)


def test_a_value_outside_its_type_is_refused():
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_INT8, int_val=[300])
    proto.tensor_shape.dim.add(size=1)
    with pytest.raises(ValueError, match="outside the range of int8"):
        tensors.to_array(proto)


def test_last_value_stands_for_the_rest():
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_INT64, int64_val=[7, 5])
    proto.tensor_shape.dim.add(size=2)
    proto.tensor_shape.dim.add(size=2)
    np.testing.assert_array_equal(tensors.to_array(proto), [[7, 5], [5, 5]])
    strings = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[b"x"])
    strings.tensor_shape.dim.add(size=3)
    assert tensors.to_array(strings).tolist() == [b"x", b"x", b"x"]


def test_no_value_is_zero_or_empty():
    numbers = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT)
    numbers.tensor_shape.dim.add(size=2)
    assert tensors.to_array(numbers).tolist() == [0.0, 0.0]
    strings = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING)
    strings.tensor_shape.dim.add(size=2)
    assert tensors.to_array(strings).tolist() == [b"", b""]


def test_strings_in_tensor_content():
    # "ab", "" and 200 times "c": lengths 2, 0 and 200 (0xC8 0x01 as a varint), then the bytes
    content = b"\x02\x00\xc8\x01" + b"ab" + b"c" * 200
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, tensor_content=content)
    proto.tensor_shape.dim.add(size=3)
    assert tensors.to_array(proto).tolist() == [b"ab", b"", b"c" * 200]
    for broken in (content[:-1], content + b"x", b"\xff" * 12, b"\x01"):
        proto.tensor_content = broken
        with pytest.raises(ValueError, match="strings"):
            tensors.to_array(proto)


@pytest.mark.parametrize("count", [7, 9], ids=["short", "long"])
def test_content_must_fill_the_shape(count):
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, tensor_content=b"\0" * count)
    proto.tensor_shape.dim.add(size=2)
    with pytest.raises(ValueError, match=f"{count} bytes for 2 elements"):
        tensors.to_array(proto)


@pytest.mark.parametrize("data_type", [0, 20, 21, 999])
def test_unknown_types(data_type):
    with pytest.raises(ValueError, match=f"data type {data_type}"):
        tensors.to_array(tensor_pb2.TensorProto(dtype=data_type))


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ([-1], "negative"),
        ([2, -5], "negative"),
        ([2**40, 2**40], "too many elements"),
        ([0, 2**40, 2**40], "too many elements"),
        ([2**31], "larger than"),
        ([1] * 65, "65 dimensions"),
    ],
)
def test_bad_shapes(sizes, words):
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[1.0])
    for size in sizes:
        proto.tensor_shape.dim.add(size=size)
    with pytest.raises(ValueError, match=words):
        tensors.to_array(proto)


def test_unknown_rank():
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[1.0])
    proto.tensor_shape.unknown_rank = True
    with pytest.raises(ValueError, match="rank"):
        tensors.to_array(proto)


def test_text_is_written_as_utf8():
    array = np.array(["é", b"raw", np.str_("x")], object)
    assert tensors.to_array(tensors.to_proto(array)).tolist() == ["é".encode(), b"raw", b"x"]
    assert tensors.to_array(tensors.to_proto(np.array(["a", "bc"]))).tolist() == [b"a", b"bc"]


@pytest.mark.parametrize("value", [None, 3, float("nan"), "\ud800"])
def test_what_is_no_string(value):
    with pytest.raises(ValueError, match=r"not a string|UTF-8"):
        tensors.to_proto(np.array(["a", value], object))


def test_what_tensorflow_has_no_type_for():
    with pytest.raises(ValueError, match="datetime64"):
        tensors.to_proto(np.array(["2020-01-01"], "datetime64[D]"))
